"""Searches as users ask for them: one, one for each of many budgets and tables, and one again from its result."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ofa_deploy.delivery import requests
from ofa_deploy.delivery.requests import Prepared, Request, plan_of, prepare
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import artifacts
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.result import SearchResult, load_result
from ofa_deploy.search.run import find_network
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space

MANY = 5
"""So many searches are begun with what those before them have found, and are shorter but for the first."""
SHORT = {"restarts": 4, "recombinations": 30}
"""Settings that a shorter search has at most."""
NEAREST = 4
"""Of the networks that earlier searches have found, a shorter one begins with so many within its limits, and as many
without."""


def search_files(request: Request) -> SearchResult:
    """Search with tables and a predictor from files.

    Where the working folder has no table of this machine, the reference table that ships is used: a warning says whose
    it is, and the result is marked.

    Args:
        request: what is asked for.

    Raises:
        OfaDeployError: a file is missing or unusable, the limits cannot be understood or met.
    """
    return _searched(prepare(request), request)


def _searched(prepared: Prepared, request: Request) -> SearchResult:
    plan = plan_of(request, prepared)
    return find_network(
        prepared.problem,
        plan.settings,
        stopping=plan.stopping,
        risk=plan.risk,
        inputs=plan.inputs,
        front=request.front,
        prove_seconds=request.prove_seconds,
        start=prepared.space.genes(list(map(Arch.parse, request.start))) if request.start else None,
    )


def search_each(request: Request) -> list[SearchResult]:
    """A search of its own for every table and budget of a request, with tables and a predictor from files.

    Where there are many, all but the first are short and begin with what those before them have found.

    Raises:
        OfaDeployError: a file is missing or unusable, the limits of a search cannot be understood or met.
    """
    each = request.each()
    results: list[SearchResult] = []
    with _each_line_once(requests.logger):
        for single, prepared in zip(each, checked(each), strict=True):
            if results and len(each) >= MANY:
                single = _shorter(single, _nearest(prepared, [result.arch for result in results]))
                prepared.inputs["request"]["start"] = single.start
            results.append(_searched(prepared, single))
    return results


def checked(each: Sequence[Request]) -> list[Prepared]:
    """What requests need, once it is known of each that something is within its limits: before the first search.

    Raises:
        OfaDeployError: a file is missing or unusable, the limits of a request cannot be understood or met.
    """
    searches = [prepare(request) for request in each]
    for prepared in searches:
        prepared.problem.check_feasible()
    return searches


@contextlib.contextmanager
def _each_line_once(logger: logging.Logger) -> Iterator[None]:
    """While the block lasts, what a logger has logged already is not logged again."""
    lines: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        line = record.getMessage()
        new = line not in lines
        lines.add(line)
        return new

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def _shorter(request: Request, start: tuple[str, ...]) -> Request:
    """A request that begins with architectures, and searches less."""
    short = {name: min(most, getattr(request.settings, name)) for name, most in SHORT.items()}
    return replace(request, start=start, settings=replace(request.settings, **short))


def _nearest(prepared: Prepared, archs: Sequence[Arch]) -> tuple[str, ...]:
    """Those of some architectures that are closest to what a search wants: the best within its limits and without."""
    space = prepared.space
    genes = space.genes(list(dict.fromkeys(archs)))
    scores, outside = prepared.problem.score(genes), prepared.problem.excess(genes)
    ranked = np.lexsort((-scores, outside))
    within = int((outside == 0).sum())
    nearest = [*ranked[:within][:NEAREST], *ranked[within:][:NEAREST]]
    return tuple(map(str, space.archs(genes[nearest])))


def again(path: Path) -> SearchResult:
    """Repeat the search of a result file; one that time has ended is repeated for as many evaluations.

    Raises:
        ArtifactError: table or predictor are not those of then, or the result rests on measurements.
    """
    before = load_result(path)
    if before.verified is not None or before.refined is not None:
        raise ArtifactError(
            f"{path} rests on what was measured meanwhile, which no search gives again; search with the "
            "options themselves"
        )
    request = _request_of(before, path)
    prepared = prepare(request)
    if prepared.tables and not request.luts and before.limits[0].sha256 != prepared.limits[0].sha256:
        then = prepare(replace(request, luts=_table_of(before)))
        prepared = replace(then, inputs=then.inputs | {"request": prepared.inputs["request"]})
    pairs = zip(before.limits, prepared.limits, strict=True)
    changed = [limit.source for limit, now in pairs if limit.sha256 != now.sha256]
    changed += ["the predictor"] * (before.inputs.get("predictor_sha256") != prepared.inputs.get("predictor_sha256"))
    if changed:
        raise ArtifactError(f"{' and '.join(changed)} changed since {path} was made, so its search cannot be repeated")
    return _searched(prepared, request)


def _request_of(before: SearchResult, path: Path) -> Request:
    """What was asked for when a result was made.

    Raises:
        ArtifactError: the result does not say.
    """
    try:
        values = dict(before.inputs["request"])
        lists = {key: tuple(map(str, values[key])) for key in ("latency", "luts", "start")}
        stopping = before.stopping.repeatable(before.stopped_by, before.evaluations)
        return Request(**{**values, **lists, "settings": before.settings, "stopping": stopping})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} does not say what was asked for; search again with the options themselves"
        ) from error


def _table_of(before: SearchResult) -> tuple[str, ...]:
    """The table of a result, by its checksum; nothing where no table has that."""
    space = get_space(before.space)
    for description in artifacts.candidates("lut", f"{space.name}_*.json"):
        with contextlib.suppress(OfaDeployError):
            table = LatencyTable.load(description.with_suffix(".csv"), space)
            if table.identity == before.limits[0].sha256:
                return (str(description.with_suffix(".csv")),)
    return ()
