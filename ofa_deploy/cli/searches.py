"""The command that searches, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from ofa_deploy.device.devices import with_precision
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import outputs
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import Candidate, Certificate, Refined, Verified
from ofa_deploy.spaces.arch import Arch

if TYPE_CHECKING:
    from ofa_deploy.delivery.requests import Request


def search(
    *,
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
    macs: Annotated[str | None, typer.Option(help="Limit on multiply-accumulates: 300M, 50%, or 200M..300M.")] = None,
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
    seconds: Annotated[float | None, typer.Option(help="At most, for each search.")] = None,
    evaluations: Annotated[int | None, typer.Option(help="Architectures that are evaluated at most.")] = None,
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
    from ofa_deploy.delivery import searches
    from ofa_deploy.delivery.requests import Request
    from ofa_deploy.search.settings import SearchSettings
    from ofa_deploy.search.stopping import Stopping

    typed = _typed(context)
    _check_file(out, front=not each and (front or again is not None))
    if again is not None:
        _check_alone(typed)
        results = [searches.again(again)]
    else:
        _check_together(typed, objective)
        prove_seconds = 60.0 if certify_seconds is None else certify_seconds
        request = Request(
            space=space_of(space, lut[0] if lut else None).name,
            latency=tuple(latency or ()),
            luts=tuple(map(str, lut or ())),
            macs=macs,
            params=params,
            size=size,
            device=with_precision(device, precision),
            threads=threads,
            batch=batch,
            predictor=None if predictor is None else str(predictor),
            objective=objective,
            margin_percent=margin,
            risk=risk,
            front=front,
            prove_seconds=prove_seconds if certify else None,
            settings=SearchSettings(population=population, seed=seed),
            stopping=Stopping(generations=generations, seconds=seconds, evaluations=evaluations),
        )
        results = _run(request, _Measuring(verify, refine, weights, data), each=each, out=out)
    _finish(results, out=out if verify is None else None, as_json=as_json)


def _finish(results: list[SearchResult], *, out: Path | None, as_json: bool) -> None:
    """Write results where a file is named, print them, and exit with an error where a measured budget is not kept."""
    from ofa_deploy.search.result import write_results

    if out is not None:
        write_results(results, out)
    _print_results(results, as_json=as_json)
    if any(result.verified and not result.verified.within_budget for result in results):
        raise typer.Exit(NOT_KEPT)


@dataclass(frozen=True)
class _Measuring:
    """What a search measures, and measures it with: the values of these options."""

    verify: int | None
    refine: int | None
    weights: Path | None
    data: str | None


def _run(request: Request, measuring: _Measuring, *, each: bool, out: Path | None) -> list[SearchResult]:
    """Search as the options say: with measured latencies, with measured accuracies, or by predictions alone."""
    from ofa_deploy.delivery import searches

    listed = request.each() if each else [request]
    if measuring.verify is not None:
        from ofa_deploy.delivery.verification import verify_files

        return verify_files(listed, measuring.verify, weights=measuring.weights, data=measuring.data, out=out)
    if measuring.refine is not None:
        from ofa_deploy.delivery.refinement import refine_files

        if each:
            searches.checked(listed)
        weights, data = measuring.weights, measuring.data
        return [refine_files(single, measuring.refine, weights=weights, data=data) for single in listed]
    return searches.search_each(request) if each else [searches.search_files(request)]


def _check_file(out: Path | None, *, front: bool) -> None:
    """Refuse a file that results cannot be written to.

    Args:
        out: what was named.
        front: whether the result is the front of one search.

    Raises:
        OfaDeployError: it has another end than `.json`, and `.csv` for a front, or is not to be written.
    """
    if out is None:
        return
    outputs.check_plain(out, ".json", ".csv")
    if out.suffix == ".csv" and not front:
        raise OfaDeployError(f"{out}: only the front of one search is written as CSV, see --front; choose a .json")


def _check_alone(typed: set[str]) -> None:
    """Refuse options that `--again` has from the result.

    Raises:
        OfaDeployError: naming one.
    """
    if names := sorted(typed - {"again", "out", "as_json"}):
        raise OfaDeployError(f"--again repeats a search as it was, without --{names[0].replace('_', '-')}")


def _check_together(typed: set[str], objective: str) -> None:
    """Refuse options that would do nothing beside the others.

    Raises:
        OfaDeployError: naming one, and what it needs.
    """
    if typed >= {"verify", "refine"}:
        raise OfaDeployError("--verify and --refine are two searches; take one of them")
    if "certify_seconds" in typed and "certify" not in typed:
        raise OfaDeployError("--certify-seconds goes with --certify")
    if (names := typed & {"weights", "data"}) and not typed & {"verify", "refine"}:
        raise OfaDeployError(f"--{min(names)} goes with --verify or --refine: other searches measure nothing")
    if (names := typed & {"weights", "data", "predictor", "risk"}) and objective == "macs":
        raise OfaDeployError(f"--{min(names)} is about accuracy, which --objective macs leaves out")
    if (names := typed & {"device", "threads", "batch", "precision", "margin"}) and not typed & {"latency", "front"}:
        raise OfaDeployError(f"--{min(names)} is about latency; give a --latency, or --front")
    if (names := typed & {"device", "threads", "batch", "precision"}) and "lut" in typed:
        raise OfaDeployError(f"--{min(names)} is what a --lut already says; leave one of them out")


def _typed(context: typer.Context) -> set[str]:
    """Names of the parameters that the user typed."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _print_results(results: Sequence[SearchResult], *, as_json: bool) -> None:
    """What `search` ends with."""
    from ofa_deploy.search.result import dumps

    if as_json:
        print(dumps(results), end="")
    elif len(results) > 1:
        print(aligned(_summary(results)))
    else:
        _print_result(results[0])


def _print_result(result: SearchResult) -> None:
    """What was found, and what is known of it."""
    if result.objective == "accuracy":
        interval = "" if result.score_std is None else f" (standard deviation {result.score_std:.2f})"
        print(f"predicted top-1   {result.score:.2f} %{interval}")
    for limit in result.limits:
        named = len(result.limits) > 1 or ", batches of " in limit.source
        device = f", {limit.source}" if limit.sha256 and named else ""
        print(f"{'predicted ' + limit.name:17} {limit.in_words}{device}")
    print(f"cost              {result.macs / 1e6:.2f} million MACs, {result.params / 1e6:.3f} million parameters")
    ending = result.stopping.ending(result.stopped_by)
    print(f"searched          {result.evaluations} architectures{', ' * bool(ending)}{ending}")
    if result.certificate is not None:
        _print_certificate(result.certificate)
    print(f"architecture      {result.arch}")
    if result.verified is not None:
        _print_verified(result.verified, result.arch)
    if result.refined is not None:
        _print_refined(result.refined)
    if result.front:
        print(f"front             {len(result.front)} networks, of which this is the best; a .csv or .json lists them")


def _print_certificate(proof: Certificate) -> None:
    """What was proved of the best prediction."""
    print(
        f"{'proof' if proof.proven else 'bound':17} no network within the limits is predicted above "
        f"{proof.bound_percent:.4f} %, the best known {proof.found_percent:.4f} % "
        f"({proof.seconds:.1f} s; about predictor and table, not about true accuracy)"
    )


def _print_refined(refined: Refined) -> None:
    """How far predictions were off, round by round, and what was measured of the chosen network."""
    for comparison in refined.rounds:
        print(
            f"round {comparison.number}           {len(comparison.networks)} networks of the front: predicted "
            f"{comparison.bias_points:+.2f} ±{comparison.bias_interval95_points or 0:.2f} points above measured"
        )
    (network,) = refined.final.networks
    print(
        f"measured top-1    {network.measured_top1_percent:.2f} % (±{network.interval95_points:.2f}) "
        "on the held-out images"
    )


def _print_verified(verified: Verified, arch: Arch) -> None:
    """What was measured of the candidates, of which `arch` is the network that the search answers with."""
    rows = [["predicted", "measured", "predicted", "held-out", "architecture"]]
    rows += [_candidate_cells(candidate, arch) for candidate in verified.candidates]
    print(f"\n             latency              top-1\n{aligned(rows)}")
    measured_ms = verified.measured_ms
    share = 100 * measured_ms / verified.budget_ms
    kept = f"yes: {measured_ms:.4g} ms measured, {share:.1f} % of the budget"
    if not verified.within_budget:
        kept = f"NO: no measured network is within the budget; the closest takes {measured_ms:.4g} ms"
    print(
        f"kept              {kept} (searches: {verified.rounds}; the table was corrected by "
        f"{verified.table_correction_percent or 0.0:+.1f} %)"
    )


def _candidate_cells(candidate: Candidate, arch: Arch) -> list[str]:
    """A measured candidate's row, marked where it is the network `arch`."""
    measured, predicted = candidate.measured_top1_percent, candidate.predicted_top1_percent
    return [
        f"{candidate.predicted_ms:.4g} ms",
        f"{candidate.measured_ms:.4g} ms",
        "-" if predicted is None else f"{predicted:.2f}",
        "-" if measured is None else f"{measured:.2f} ±{candidate.interval95_points:.2f}",
        ("* " if candidate.arch == arch else "  ") + str(candidate.arch),
    ]


def _summary(results: Sequence[SearchResult]) -> list[list[str]]:
    """Cells of a table with a row a result, the heading first."""
    score = "top-1" if results[0].objective == "accuracy" else "score"
    of_measured = ["measured", "kept"] * any(result.verified for result in results)
    rows = [["latency of", "allowed", "predicted", *of_measured, score, "MACs", "architecture"]]
    for result in results:
        limit, verified = result.limits[0], result.verified
        measured = []
        if verified:
            measured = [f"{verified.measured_ms:.4g} ms", "yes" if verified.within_budget else "NO"]
        allowed = "-" if limit.upper is None else f"{limit.upper:.4g} {limit.unit}"
        rows.append(
            [
                limit.source,
                allowed,
                f"{limit.predicted:.4g} {limit.unit}",
                *measured,
                f"{result.score:.2f}",
                f"{result.macs / 1e6:.2f} M",
                str(result.arch),
            ]
        )
    return rows
