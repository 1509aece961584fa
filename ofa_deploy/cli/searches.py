"""The command that searches, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa_deploy.cli.options import (
    NOT_KEPT,
    AsJson,
    Batch,
    Data,
    Device,
    Margin,
    Objective,
    Precision,
    Seed,
    Space,
    Threads,
    Weights,
    aligned,
    space_of,
)
from ofa_deploy.device.conditions import with_precision
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import outputs
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result import in_words as limit_in_words


def search(
    context: typer.Context,
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
    size: Annotated[str | None, typer.Option(help="Limit on the float32 weights: 10MB (files hold more).")] = None,
    front: Annotated[bool, typer.Option("--front", help="The whole front of accuracy against latency.")] = False,
    certify: Annotated[bool, typer.Option("--certify", help="Prove how good it is; for a concave predictor.")] = False,
    certify_seconds: Annotated[
        float | None, typer.Option(help="Time for the proof, 60 by default; then it says what is left open.")
    ] = None,
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
    again: Annotated[
        Path | None, typer.Option(help="Repeat the search of this result instead; goes with --out and --json alone.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the result as JSON, or the front as .csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the most accurate network within limits. On latency, multiply-accumulates, parameters, or size.

    Exit code 3 says that --verify measured no network within the budget.

    Example: ofa-deploy search --latency 25% --params 5M --out result.json
    """
    from ofa_deploy.delivery.requests import Request, checked, search_each, search_files
    from ofa_deploy.delivery.requests import again as search_again
    from ofa_deploy.search.evolution import SearchSettings
    from ofa_deploy.search.result import dumps, write_results

    given = _given(context)
    if out is not None:
        outputs.check_plain(out, ".json", ".csv")
        if out.suffix == ".csv" and (each or not (front or again is not None)):
            raise OfaDeployError(f"{out}: only the front of one search is written as CSV, see --front; choose a .json")
    if again is not None:
        if told := sorted(given - {"again", "out", "as_json"}):
            raise OfaDeployError(f"--again repeats a search as it was, without --{told[0].replace('_', '-')}")
        found = [search_again(again)]
    else:
        if verify is not None and refine is not None:
            raise OfaDeployError("--verify and --refine are two searches; take one of them")
        _check_together(given, objective)
        searched = space_of(space, lut[0] if lut else None).name
        request = Request(
            searched,
            tuple(latency or ()),
            tuple(map(str, lut or ())),
            macs,
            params,
            size,
            with_precision(device, precision),
            threads,
            batch,
            None if predictor is None else str(predictor),
            objective,
            margin,
            risk,
            front,
            (60.0 if certify_seconds is None else certify_seconds) if certify else None,
            SearchSettings(population=population, generations=generations, seed=seed),
        )
        requests = request.each() if each else [request]
        if verify is not None:
            from ofa_deploy.delivery.verification import verify_files

            found = verify_files(requests, verify, weights, data, out)
        elif refine is not None:
            from ofa_deploy.delivery.refinement import refine_files

            if each:
                checked(requests)
            found = [refine_files(one, refine, weights, data) for one in requests]
        else:
            found = search_each(request) if each else [search_files(request)]
    if out is not None and verify is None:
        write_results(found, out)
    if as_json:
        print(dumps(found), end="")
    elif len(found) > 1:
        print(aligned(_summary(found)))
    else:
        _print_result(found[0])
    if not all((one.verified or {"within_budget": True})["within_budget"] for one in found):
        raise typer.Exit(NOT_KEPT)


def _check_together(given: set[str], objective: str) -> None:
    """Refuse options that would do nothing beside the others.

    Raises:
        OfaDeployError: naming one, and what it needs.
    """
    if "certify_seconds" in given and "certify" not in given:
        raise OfaDeployError("--certify-seconds goes with --certify")
    if (named := given & {"weights", "data"}) and not given & {"verify", "refine"}:
        raise OfaDeployError(f"--{min(named)} goes with --verify or --refine: other searches measure nothing")
    if (named := given & {"weights", "data", "predictor", "risk"}) and objective == "macs":
        raise OfaDeployError(f"--{min(named)} is about accuracy, which --objective macs leaves out")
    if (named := given & {"device", "threads", "batch", "precision", "margin"}) and not given & {"latency", "front"}:
        raise OfaDeployError(f"--{min(named)} is about latency; give a --latency, or --front")
    if (named := given & {"device", "threads", "batch", "precision"}) and "lut" in given:
        raise OfaDeployError(f"--{min(named)} is what a --lut already says; leave one of them out")


def _given(context: typer.Context) -> set[str]:
    """Names of the parameters that the user typed."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _print_result(result: SearchResult) -> None:
    """What `search` ends with."""
    if result.objective == "accuracy":
        sure = "" if result.score_std is None else f" (standard deviation {result.score_std:.2f})"
        print(f"predicted top-1   {result.score:.2f} %{sure}")
    for limit in result.limits:
        told = len(result.limits) > 1 or ", batches of " in limit["of"]
        of = f", {limit['of']}" if limit["sha256"] and told else ""
        print(f"{'predicted ' + limit['name']:17} {limit_in_words(limit)}{of}")
    print(f"cost              {result.macs / 1e6:.2f} million MACs, {result.params / 1e6:.3f} million parameters")
    print(f"searched          {result.evaluations} architectures")
    if result.certificate is not None:
        proof = result.certificate
        print(
            f"{'proof' if proof['proven'] else 'bound':17} no network within the limits is predicted above "
            f"{proof['bound_percent']:.4f} %, the best known {proof['found_percent']:.4f} % "
            f"({proof['seconds']:.1f} s; about predictor and table, not about true accuracy)"
        )
    print(f"architecture      {result.arch}")
    if result.verified is not None:
        _print_verified(result)
    if result.refined is not None:
        _print_refined(result.refined)
    if result.front:
        print(f"front             {len(result.front)} networks, of which this is the best; a .csv or .json lists them")


def _print_refined(refined: dict[str, Any]) -> None:
    """How far predictions were off, round by round, and what was measured of the chosen network."""
    for row in refined["rounds"]:
        print(
            f"round {row['round']}           {len(row['networks'])} networks of the front: predicted "
            f"{row['bias_points']:+.2f} ±{row['bias_interval95_points'] or 0:.2f} points above measured"
        )
    (chosen,) = refined["chosen"]["networks"]
    print(
        f"measured top-1    {chosen['measured_top1_percent']:.2f} % (±{chosen['interval95_points']:.2f}) "
        "on the held-out images"
    )


def _print_verified(result: SearchResult) -> None:
    """What was measured of the chosen network and the other candidates."""
    about = result.verified
    assert about is not None
    rows = [["predicted", "measured", "predicted", "held-out", "architecture"]]
    for row in about["candidates"]:
        top, expected = row["measured_top1_percent"], row["predicted_top1_percent"]
        rows.append(
            [
                f"{row['predicted_ms']:.4g} ms",
                f"{row['measured_ms']:.4g} ms",
                "-" if expected is None else f"{expected:.2f}",
                "-" if top is None else f"{top:.2f} ±{row['interval95_points']:.2f}",
                ("* " if row["arch"] == str(result.arch) else "  ") + row["arch"],
            ]
        )
    print(f"\n             latency              top-1\n{aligned(rows)}")
    share = 100 * about["measured_ms"] / about["budget_ms"]
    kept = (
        f"yes: {about['measured_ms']:.4g} ms measured, {share:.1f} % of the budget"
        if about["within_budget"]
        else (f"NO: no measured network is within the budget; the closest takes {about['measured_ms']:.4g} ms")
    )
    print(
        f"kept              {kept} (searches: {about['rounds']}; the table was corrected by "
        f"{about['table_correction_percent']:+.1f} %)"
    )


def _summary(results: Sequence[SearchResult]) -> list[list[str]]:
    """Cells of a table with a row a result, the heading first."""
    score = "top-1" if results[0].objective == "accuracy" else "score"
    verified = any(result.verified for result in results)
    rows = [["latency of", "allowed", "predicted", *(["measured", "kept"] * verified), score, "MACs", "architecture"]]
    for result in results:
        limit, about = result.limits[0], result.verified
        measured = [f"{about['measured_ms']:.4g} ms", "yes" if about["within_budget"] else "NO"] if about else []
        allowed = "-" if limit["upper"] is None else f"{limit['upper']:.4g} {limit['unit']}"
        rows.append(
            [
                limit["of"],
                allowed,
                f"{limit['predicted']:.4g} {limit['unit']}",
                *measured,
                f"{result.score:.2f}",
                f"{result.macs / 1e6:.2f} M",
                str(result.arch),
            ]
        )
    return rows
