"""Commands for latencies, and for the networks that are found, written and delivered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa_deploy import artifacts
from ofa_deploy.cli.options import (
    AsJson,
    Batch,
    Data,
    Device,
    From,
    Margin,
    Networks,
    Objective,
    Precision,
    Resolutions,
    Rounds,
    Seed,
    Space,
    Threads,
    Weights,
    aligned,
    numbers,
    say,
    tables_of,
    weights_of,
)  # fmt: skip
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.families import get_space
from ofa_deploy.latency.device.conditions import with_precision
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result import in_words as limit_in_words

FEW = 10
"""Networks that `build-lut --from` measures by default."""


def build_lut(
    device: Device = "cpu",
    space: Space = None,
    resolutions: Resolutions = None,
    threads: Threads = 1,
    batch: Batch = 1,
    precision: Precision = None,
    rounds: Rounds = None,
    networks: Networks = None,
    from_: From = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; default: lut/SPACE_DEVICE_MACHINE.csv.")] = None,
    interpolate: Annotated[
        float | None,
        typer.Option(help="Measure only some resolutions: percent that interpolated operators may be off, such as 1."),
    ] = None,
    ssh: Annotated[
        str | None, typer.Option(help="Measure there instead: user@host, as ssh takes it. Needs numpy and the runtime.")
    ] = None,
    python: Annotated[str, typer.Option(help="The interpreter there (3.9 or newer).")] = "python3",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Build this machine's latency table, or that of one behind ssh. Killed at any moment, it goes on where it was.

    With --from or --networks, few whole networks are measured and a table is fitted to them: quicker and less exact.

    Example: ofa-deploy build-lut --device tflite --precision int8
    """
    from ofa_deploy.latency import table as tables
    from ofa_deploy.latency.build import Job, build
    from ofa_deploy.latency.device.conditions import conditions
    from ofa_deploy.latency.device.rounds import Plan
    from ofa_deploy.latency.fitted import covered
    from ofa_deploy.latency.remote import build_over_ssh

    chosen = get_space(space)
    device = with_precision(device, precision)
    others = tables_of(from_, chosen)
    sizes = numbers(resolutions) if resolutions else covered(chosen, others)
    number = networks or (FEW if others else None)
    plan = Plan(threads=threads, seed=seed, rounds=rounds or Plan.rounds, networks=number or Plan.networks)
    job = Job(chosen, tuple(sizes), plan, blocks=number is None, batch=batch)
    if ssh is not None:
        if interpolate is not None:
            raise OfaDeployError("--interpolate needs to see what is measured; leave it out, or measure without --ssh")
        table, path = build_over_ssh(job, device, ssh, python, out, say, others)
    else:
        path = out or Path("lut") / tables.file_name(chosen, conditions(device, threads, batch), job.blocks)
        table = build(job, device, path, say, others, interpolate)
    if as_json:
        print(json.dumps({"file": str(path), "operators": len(table.rows), "error": dict(table.error)}))
        return
    say(f"{len(table.rows)} operators; {table.error_in_words}")
    print(path)


def search(
    latency: Annotated[
        list[str] | None, typer.Option(help="Budget with its unit: 30ms, 0.03s, 10ms..30ms, or a share such as 25%.")
    ] = None,
    space: Space = None,
    device: Device = "cpu",
    threads: Threads = 1,
    batch: Batch = 1,
    precision: Precision = None,
    lut: Annotated[
        list[Path] | None,
        typer.Option(help="Latency table; default: this machine's in lut/. Several: one network for all of them."),
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="A network of its own for every table and latency.")] = False,
    macs: Annotated[str | None, typer.Option(help="Limit on multiply-accumulates: 300M, or 200M..300M.")] = None,
    params: Annotated[str | None, typer.Option(help="Limit on parameters: 5M.")] = None,
    size: Annotated[str | None, typer.Option(help="Limit on the float32 model file: 10MB.")] = None,
    front: Annotated[bool, typer.Option("--front", help="The whole front of accuracy against latency.")] = False,
    certify: Annotated[bool, typer.Option("--certify", help="Prove how good it is; for a concave predictor.")] = False,
    certify_seconds: Annotated[float, typer.Option(help="Time for the proof; then it says what is left open.")] = 60.0,
    verify: Annotated[
        int | None, typer.Option(help="Measure that many candidates on this machine, correct the table, search again.")
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(help="Times to measure the front's accuracy, fit the predictor anew, and search again."),
    ] = None,
    weights: Weights = None,
    data: Data = None,
    predictor: Annotated[Path | None, typer.Option(help="Default: predictors/SPACE.safetensors.")] = None,
    objective: Objective = "accuracy",
    margin: Margin = None,
    risk: Annotated[float, typer.Option(help="Standard deviations by which predicted accuracies are lowered.")] = 0.5,
    generations: Annotated[int, typer.Option(help="At most.")] = 120,
    population: Annotated[int, typer.Option(help="Architectures a generation.")] = 128,
    seed: Seed = 0,
    again: Annotated[Path | None, typer.Option(help="Repeat the search of this result instead.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the result as JSON, or the front as .csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the most accurate network within limits on latency, multiply-accumulates, parameters or size.

    Example: ofa-deploy search --latency 30ms --params 5M --out result.json
    """
    from ofa_deploy.search import files
    from ofa_deploy.search.evolve import Settings
    from ofa_deploy.search.result import dumps, write

    if out is not None:
        artifacts.check_folder(out)
    if again is not None:
        found = [files.again(again, say)]
    else:
        request = files.Request(
            get_space(space).name, tuple(latency or ()), tuple(map(str, lut or ())), macs, params, size,
            with_precision(device, precision), threads, batch, None if predictor is None else str(predictor),
            objective, margin, risk, front, certify_seconds if certify else None,
            Settings(population=population, generations=generations, seed=seed),
        )  # fmt: skip
        if verify is not None:
            from ofa_deploy.search.verify import verify_files

            requests = request.each() if each else [request]
            found = [verify_files(one, verify, weights, data, say) for one in requests]
        elif refine is not None:
            from ofa_deploy.search.refine import refine_files

            requests = request.each() if each else [request]
            found = [refine_files(one, refine, weights, data, say) for one in requests]
        else:
            found = files.search_each(request, say) if each else [files.search_files(request, say)]
    if out is not None:
        write(found, out)
    if as_json:
        print(dumps(found), end="")
    elif len(found) > 1:
        print(aligned(_summary(found)))
    else:
        _print_result(found[0])


def _print_result(result: SearchResult) -> None:
    """What `search` ends with."""
    if result.objective == "accuracy":
        sure = "" if result.score_std is None else f" (standard deviation {result.score_std:.2f})"
        print(f"predicted top-1   {result.score:.2f} %{sure}")
    for limit in result.limits:
        told = len(result.limits) > 1 or ", batches of " in limit["of"]
        of = f", {limit['of']}" if limit["sha256"] and told else ""
        margin = f" (kept {limit['margin_percent']:.2g} % below for the table's error)" * (limit["margin_percent"] > 0)
        print(f"{'predicted ' + limit['name']:17} {limit_in_words(limit)}{margin}{of}")
    print(f"cost              {result.macs / 1e6:.2f} million MACs, {result.params / 1e6:.3f} million parameters")
    print(f"searched          {result.evaluations} architectures")
    if result.certificate is not None:
        proof = result.certificate
        print(f"{'proof' if proof['proven'] else 'bound':17} no network within the limits is predicted above "
              f"{proof['bound_percent']:.4f} %, the best known {proof['found_percent']:.4f} % "
              f"({proof['seconds']:.1f} s; about predictor and table, not about true accuracy)")  # fmt: skip
    print(f"architecture      {result.arch}")
    if result.verified is not None:
        _print_verified(result)
    if result.refined is not None:
        _print_refined(result.refined)
    if result.front:
        print(f"front             {len(result.front)} networks, of which this is the best; --out FILE.csv lists them")


def _print_refined(refined: dict[str, Any]) -> None:
    """How far predictions were off, round by round, and what was measured of the chosen network."""
    for row in refined["rounds"]:
        print(f"round {row['round']}           {len(row['networks'])} networks of the front: predicted "
              f"{row['bias_points']:+.2f} ±{row['bias_interval95_points'] or 0:.2f} points above measured")  # fmt: skip
    (chosen,) = refined["chosen"]["networks"]
    print(f"measured top-1    {chosen['measured_top1_percent']:.2f} % (±{chosen['interval95_points']:.2f}) "
          "on the held-out images")  # fmt: skip


def _print_verified(result: SearchResult) -> None:
    """What was measured of the chosen network and the other candidates."""
    about = result.verified
    assert about is not None
    rows = [["predicted", "measured", "predicted", "held-out", "architecture"]]
    for row in about["candidates"]:
        top = row["measured_top1_percent"]
        rows.append([
            f"{row['predicted_ms']:.4g} ms", f"{row['measured_ms']:.4g} ms", f"{row['predicted_top1_percent']:.2f}",
            "-" if top is None else f"{top:.2f} ±{row['interval95_points']:.2f}",
            ("* " if row["arch"] == str(result.arch) else "  ") + row["arch"],
        ])  # fmt: skip
    print(f"\n             latency              top-1\n{aligned(rows)}")
    share = 100 * about["measured_ms"] / about["budget_ms"]
    kept = (
        f"yes: {about['measured_ms']:.4g} ms measured, {share:.1f} % of the budget"
        if about["within_budget"]
        else (f"NO: no measured network is within the budget; the fastest takes {about['measured_ms']:.4g} ms")
    )
    print(f"kept              {kept} (after {about['rounds']} rounds; the table was corrected by "
          f"{about['table_correction_percent']:+.1f} %)")  # fmt: skip


def _summary(results: Sequence[SearchResult]) -> list[list[str]]:
    """Cells of a table with a row a result, the heading first."""
    rows = [["latency of", "allowed", "predicted", "score", "MACs", "architecture"]]
    for result in results:
        limit = result.limits[0]
        allowed = "-" if limit["upper"] is None else f"{limit['upper']:.4g} {limit['unit']}"
        rows.append([
            limit["of"], allowed, f"{limit['predicted']:.4g} {limit['unit']}", f"{result.score:.2f}",
            f"{result.macs / 1e6:.2f} M", str(result.arch),
        ])  # fmt: skip
    return rows


def export(
    arch: Annotated[str | None, typer.Option(help="Architecture in text form.")] = None,
    result: Annotated[Path | None, typer.Option(help="Search result (search --out FILE).")] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON of the official code: ks, e, d, r; or a net.config with --resolution.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Of a net.config, in pixels.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, or with several formats what their names begin with.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of onnx, onnx-int8, tflite, tflite-int8, pt2, pte, safetensors; several with commas.",
        ),
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Points of top-1 that int8 may lose.")] = 1.0,
    family: Annotated[
        Path | None,
        typer.Option(
            help="Search result of several networks, or of a front: all into the folder --out, with an index."
        ),
    ] = None,
    number: Annotated[int, typer.Option(help="Networks that --family takes of a front.")] = 5,
    finetune_epochs: Annotated[
        int, typer.Option(help="Train the network further by itself, taught by the largest; needs all images.", min=0)
    ] = 0,
    seed: Seed = 0,
    recalibration: Annotated[
        int, typer.Option(help="Training images that batch norms are recalibrated on; fewer are quicker.")
    ] = 2000,
    space: Space = None,
    data: Data = None,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Write an architecture as a model, checked against torch, with a card beside it.

    The format is what --out ends in (.onnx, .tflite, .pt2, .pte, .safetensors), else ONNX. With --format, files are
    named SPACE_FORMAT. With --json the card is printed; with several formats, a list of them.

    Example: ofa-deploy export --result result.json --format onnx,tflite
    """
    from ofa_deploy.export.family import export_family
    from ofa_deploy.export.run import export_files

    chosen = get_space(space)
    found = weights_of(weights, chosen)
    if family is not None:
        if [arch, result, config].count(None) != 3:
            raise OfaDeployError("export needs one of --arch, --result, --config and --family")
        if finetune_epochs:
            raise OfaDeployError("--finetune-epochs is for one network; export those of a family one by one")
        folder = out or Path("models")
        cards = export_family(chosen, family, number, data, found, folder, format_, say, max_drop)
    else:
        cards = export_files(
            chosen, arch, result, data, found, out, format_, max_drop, config, resolution, finetune_epochs, seed, say,
            recalibration,
        )  # fmt: skip
    if as_json:
        print(json.dumps(list(cards.values()) if len(cards) > 1 else next(iter(cards.values())), indent=1))
        return
    for path, card in cards.items():
        say(_exported(card))
        print(path)


def _exported(card: dict[str, Any]) -> str:
    """What `export` says of a file."""
    checked, drop = card["agreement_with_torch"], card.get("accuracy")
    latency = card["measured"].get("latency")
    return "; ".join([
        f"{card['format']}: {card['bytes'] / 1e6:.2f} MB",
        *([f"{latency['latency_ms']:.3g} ms"] if latency else []),
        f"logits differ from torch by {checked['max_difference']:.1g} at most, classes agree on "
        f"{checked['agreement_percent']:.4g} % of {checked['images']} held-out images",
        *([f"top-1 {drop['drop_points']:.2f} points (±{drop['interval95_points']:.2f}) lower on {drop['images']}"]
          if drop else []),
    ])  # fmt: skip


def deploy(
    latency: Annotated[list[str], typer.Option(help="Budget with its unit; may be given several times.")],
    space: Space = None,
    data: Data = None,
    device: Device = "cpu",
    weights: Weights = None,
    threads: Threads = 1,
    precision: Precision = None,
    margin: Margin = None,
    out: Annotated[Path, typer.Option(help="Folder for the models and their cards.")] = Path("models"),
    page: Annotated[Path | None, typer.Option("--report", help="HTML page about the results to write as well.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Deliver the best model for this machine: table, search, export, and measuring what was exported.

    Example: ofa-deploy deploy --latency 10% --latency 0.4ms --report page.html
    """
    from ofa_deploy.deploy import deploy as run
    from ofa_deploy.deploy import results_file
    from ofa_deploy.latency.device.rounds import Plan
    from ofa_deploy.report.page import check_page, write_report
    from ofa_deploy.search.evolve import Settings

    chosen = get_space(space)
    if page is not None:
        check_page(page)
    plan, settings = Plan(threads=threads, seed=seed), Settings(seed=seed)
    device = with_precision(device, precision)
    found = run(chosen, data, latency, device, weights_of(weights, chosen), out, settings, plan, margin, say)
    if page is not None:
        write_report([results_file(chosen, device, out)], page, seed)
        say(f"report: {page}")
    rows = [one.row() for one in found]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(_deployed(rows))
    if not all(row["within_budget"] for row in rows):
        margins = max(row["margin_percent"] for row in rows if not row["within_budget"])
        slower = max(row["machine_slower_percent"] for row in rows)
        why = f" when the machine ran {slower:.0f} % slower than its table was measured" if slower > 1 else ""
        print(f"\nNO: over the budget{why}; a --margin larger than {margins:.2g} keeps further below it.")
    print("\nTop-1 in percent. Accuracy is predicted for the held-out images; a delivered model is measured on them")
    print(f"and on the test images (95 % interval ±{max(r['interval95_points'] for r in rows):.2f} points).")
    print(f"Latency in ms of one image, {threads} thread{'s' * (threads > 1)}. Models and cards: {out}/")


def _deployed(rows: Sequence[dict[str, Any]]) -> str:
    """The table that `deploy` ends with."""

    def cells(row: dict[str, Any]) -> list[str]:
        test = row["test_top1_percent"]
        return [
            f"{row['budget_ms']:.3f} ms", f"{row['predicted_ms']:.3f} ms", f"{row['measured_ms']:.3f} ms",
            "yes" if row["within_budget"] else "NO", f"{row['predicted_top1_percent']:.2f}",
            f"{row['heldout_top1_percent']:.2f}", "-" if test is None else f"{test:.2f}",
            f"{row['macs'] / 1e6:.2f} M", f"{row['bytes'] / 1e6:.2f} MB", Path(row["file"]).name,
        ]  # fmt: skip

    head = ["budget", "predicted", "measured", "kept", "predicted", "held-out", "test", "MACs", "size", "file"]
    return "\n".join(["             latency                      top-1", aligned([head, *map(cells, rows)])])
