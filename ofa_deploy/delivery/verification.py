"""The closed loop: measure what a search found, correct the table by it, and search again until the budget is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import ofa_deploy
from ofa_deploy.accuracy.measure import count_correct
from ofa_deploy.accuracy.predictors import AccuracyPredictor
from ofa_deploy.data.dataset import RECALIBRATION
from ofa_deploy.data.loading import load_data
from ofa_deploy.delivery.requests import Prepared, Request, of_this_machine, prepare
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import ArtifactError, DataError, InfeasibleError, OfaDeployError
from ofa_deploy.files import artifacts, journals
from ofa_deploy.files.journals import Journal
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.comparison import beside_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import build_command
from ofa_deploy.search.limits import Limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, write_results
from ofa_deploy.search.result_parts import Candidate, Verified
from ofa_deploy.search.run import RISK, Explored, candidates, check_risk, explore, none_found, result_of
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint

logger = logging.getLogger(__name__)

ROUNDS = 4
RESCUES = 2
"""Searches at most; and how many more where none of the networks stayed within the budget."""
GUARD_PERCENT = 2.0
"""Kept below the budget in a search."""
SAFE_PERCENT = 1.0
"""Networks measured as far below the budget come first: measured again, the same network differs by as much."""
USED_PERCENT = 97.0
"""Of the budget; a network that uses as much ends the loop."""
CONFIRMED = 2
"""Times that a network must be measured within the budget; its latency is the largest of them."""

Accuracies = Callable[[Sequence[Arch]], Sequence[tuple[float, float]]]
"""Measured top-1 of networks in percent, with the half width of the 95 % interval in points."""


def find_verified_network(
    problem: Problem,
    table: LatencyTable,
    budget: str,
    settings: SearchSettings | None = None,
    *,
    stopping: Stopping | None = None,
    number: int = 3,
    risk: float = RISK,
    inputs: Mapping[str, Any] | None = None,
    accuracies: Accuracies | None = None,
    journal: Journal | None = None,
) -> SearchResult:
    """Search, measure the best candidates on this machine, correct the table by them, and repeat.

    Args:
        problem: its limits are those beside the latency.
        table: of this machine.
        budget: the latency as users type it.
        settings: of each search; None takes `SearchSettings()`.
        stopping: when each search ends; None takes `Stopping()`.
        number: of candidates that are measured after each search.
        risk: see `run.search`.
        inputs: to be recorded in the result.
        accuracies: measures candidates' accuracy; None goes by the prediction.
        journal: keeps measured latencies, or has them from a run that was killed.

    Returns:
        the best network whose measured latency is within the budget, with all that was measured in `verified`; where
        none is, the closest of those measured, and `verified` says so.

    Raises:
        InfeasibleError: by the table no network is within the limits, or the search finds none.
        OfaDeployError: the table is not this machine's.
    """
    _check_own(table, problem.space)
    if number < 1:
        raise OfaDeployError(f"--verify needs at least 1 candidate, not {number}")
    check_risk(risk)
    limit = latency_limit(table, budget, 0.0)
    if not np.isfinite(limit.upper):
        raise OfaDeployError(f"--verify keeps a budget: --latency {budget} has no upper end")
    loop = _Loop(table, limit, problem.predictor, risk, accuracies, journal or Journal())
    correction, explored = 1.0, None
    dearest = extreme(problem.space, limit.cost, dearest=True)[1]
    for rounds in range(1, ROUNDS + RESCUES + 1):
        corrected = replace(limit, cost=limit.cost.scaled(correction))
        try:
            searched = replace(problem, limits=[corrected, *problem.limits])
            explored, found = _best(searched, settings, stopping, risk, number)
        except InfeasibleError:
            if explored is None:
                raise
            break
        if again := loop.knows(found):
            loop.confirm()
        else:
            loop.measure(found, correction)
        if loop.done or rounds >= ROUNDS:
            loop.confirm()
        correction = loop.correction(found, correction)
        logger.info(f"round {rounds}: {loop.in_words}; the table is corrected by {100 * (correction - 1):+.1f} %")
        no_limit = dearest * correction < limit.upper * (1 - GUARD_PERCENT / 100)  # the same would be found again
        if loop.done or (loop.kept and (again or no_limit or rounds >= ROUNDS)):
            break
    loop.confirm()
    assert explored is not None
    made = _result(explored, loop, risk, inputs or {}, limit.upper)
    return replace(made, verified=loop.verified(rounds, correction, made.arch))


def _check_own(table: LatencyTable, space: SearchSpace) -> None:
    """Refuse a table of another machine.

    Raises:
        OfaDeployError: saying how to build this one's.
    """
    if not of_this_machine(table):
        known = table.conditions if table.conditions["device"] in DEVICES else conditions("cpu", 1)
        raise OfaDeployError(
            f"--verify measures this machine, the table is of {table.label}; run: {build_command(space, known)}"
        )


def _best(
    problem: Problem, settings: SearchSettings | None, stopping: Stopping | None, risk: float, number: int
) -> tuple[Explored, list[Arch]]:
    """A search and its best networks: a little below the first limit, or, where there are none, up to all of it.

    Raises:
        InfeasibleError: there are none either.
    """
    limit, *others = problem.limits
    guard = min(limit.upper * GUARD_PERCENT / 100, (limit.upper - limit.lower) / 2)
    try:
        below = replace(problem, limits=[replace(limit, upper=limit.upper - guard), *others])
        explored = explore(below, settings, stopping)
        chosen = candidates(explored, risk, number)
    except InfeasibleError:
        chosen = []
    if not chosen:
        explored = explore(problem, settings, stopping)
        chosen = candidates(explored, risk, number)
    if not chosen:
        raise none_found(explored)
    return explored, problem.space.archs(explored.archive.genes[chosen])


class _Loop:
    """What was measured so far.

    Args:
        table: of this machine.
        limit: the budget.
        predictor: of accuracy.
        risk: see `run.search`.
        accuracies: see `search_verified`.
        journal: see `search_verified`.
    """

    def __init__(
        self,
        table: LatencyTable,
        limit: Limit,
        predictor: AccuracyPredictor | None,
        risk: float,
        accuracies: Accuracies | None,
        journal: Journal,
    ) -> None:
        self._table, self._budget_ms, self._least_ms = table, limit.upper, limit.lower
        self._predictor, self._risk = predictor, risk
        self._accuracies, self._journal = accuracies, journal
        self._plan = MeasurePlan(threads=int(table.conditions["threads"]))
        self._rows: dict[Arch, dict[str, Any]] = {}
        self._slower = 0.0

    def measure(self, archs: Sequence[Arch], correction: float) -> None:
        """Measure networks, and the best so far again; `correction` is the table's present one."""
        new = [arch for arch in archs if arch not in self._rows]
        self._time([*new, *self._within()[:CONFIRMED]], self._fresh_rows(new, correction))

    def correction(self, archs: Sequence[Arch], before: float) -> float:
        """The factor of the table by the networks that a search with the factor `before` has found."""
        ratios = [self._latency(arch) / self._rows[arch]["raw_ms"] for arch in archs]
        factor = float(np.median(ratios))
        latencies = list(map(self._latency, self._rows))
        if min(latencies) > self._budget_ms:
            return max(factor, before * (1 + GUARD_PERCENT / 200))  # or the same would be found again
        if max(latencies) < self._least_ms:
            return min(factor, before * (1 - GUARD_PERCENT / 200))
        return factor

    def _fresh_rows(self, archs: Sequence[Arch], correction: float) -> dict[Arch, dict[str, Any]]:
        """What is predicted of networks, and their measured accuracy where it can be."""
        if not archs:
            return {}
        space = self._table.space
        genes = space.genes(archs)
        tops: list[float | None] = [None] * len(archs)
        scores = space.macs(genes)
        if self._predictor is not None:
            means, deviations = self._predictor.predict(genes, return_std=True)
            tops, scores = means.round(4).tolist(), means - self._risk * np.nan_to_num(deviations)
        predicted = self._table.latency_ms(genes)
        measured = [(None, None)] * len(archs) if self._accuracies is None else self._accuracies(archs)
        return {
            arch: {
                "arch": arch,
                "raw_ms": float(raw),
                "predicted_ms": round(float(raw) * correction, 5),
                "latencies_ms": [],
                "spread_percent": 0.0,
                "score": float(score),
                "predicted_top1_percent": expected,
                "measured_top1_percent": top,
                "interval95_points": half,
            }
            for arch, raw, score, expected, (top, half) in zip(archs, predicted, scores, tops, measured, strict=True)
        }

    def confirm(self) -> None:
        """Measure the best again until one has been within the budget `CONFIRMED` times."""
        while (best := self._within()) and len(self._rows[best[0]]["latencies_ms"]) < CONFIRMED:
            self._time(best[:3], {})

    def knows(self, archs: Sequence[Arch]) -> bool:
        """Whether all of the networks were measured already."""
        return all(arch in self._rows for arch in archs)

    @property
    def kept(self) -> bool:
        """Whether a network is within the budget."""
        return bool(self._within())

    @property
    def done(self) -> bool:
        """Whether the best network uses enough of the budget."""
        best = self._within()
        return bool(best) and self._latency(best[0]) >= USED_PERCENT / 100 * self._budget_ms

    @property
    def in_words(self) -> str:
        """The state of the loop."""
        best = self._within()
        if not best:
            return f"none of {len(self._rows)} measured networks is within {self._budget_ms:.4g} ms"
        return f"the best within {self._budget_ms:.4g} ms takes {self._latency(best[0]):.4g} ms"

    @property
    def chosen(self) -> Arch:
        """The best network within the budget; where there is none, the one that is closest to it."""
        return (self._within() or sorted(self._rows, key=self._outside))[0]

    def verified(self, rounds: int, correction: float, chosen: Arch) -> Verified:
        """All that was measured."""
        rows = sorted(self._rows.values(), key=lambda row: row["raw_ms"])
        return Verified(
            budget_ms=round(self._budget_ms, 5),
            within_budget=chosen in self._within(),
            measured_ms=self._latency(chosen),
            rounds=rounds,
            table_correction_percent=round(100 * (correction - 1), 2),
            machine_slower_percent=self._slower,
            conditions=dict(self._table.conditions),
            candidates=tuple(map(_candidate, rows)),
        )

    def _within(self) -> list[Arch]:
        """Those measured within the budget, best first."""
        kept = [arch for arch in self._rows if self._least_ms <= self._latency(arch) <= self._budget_ms]
        safe = [arch for arch in kept if self._latency(arch) <= self._budget_ms * (1 - SAFE_PERCENT / 100)]
        return sorted(safe or kept, key=self._score, reverse=True)

    def _score(self, arch: Arch) -> float:
        row = self._rows[arch]
        measured = row["measured_top1_percent"]
        return float(row["score"] if measured is None else measured)

    def _outside(self, arch: Arch) -> float:
        return max(self._latency(arch) - self._budget_ms, self._least_ms - self._latency(arch))

    def _latency(self, arch: Arch) -> float:
        return float(max(self._rows[arch]["latencies_ms"]))

    def _time(self, archs: Sequence[Arch], fresh: Mapping[Arch, dict[str, Any]]) -> None:
        """Measure networks; `fresh` are the rows of those that were not measured before."""
        if not archs:
            return
        found, self._slower = self._journal.step(["latency", *map(str, archs)], lambda: self._latencies(archs))
        self._rows.update(fresh)
        for arch in archs:
            row = self._rows[arch]
            row["latencies_ms"].append(found[str(arch)]["latency_ms"])
            row["spread_percent"] = max(row["spread_percent"], found[str(arch)]["spread_percent"])

    def _latencies(self, archs: Sequence[Arch]) -> tuple[dict[str, Any], float]:
        """See `beside_table`."""
        logger.info(f"measuring {len(archs)} candidate{'s' * (len(archs) > 1)} on this machine")
        job = TableJob(self._table.space, self._table.resolutions, self._plan, batch=self._table.conditions["batch"])
        runtime = self._table.conditions["runtime"]
        sessions = {str(arch): job.started(self._table.space.walk(arch), runtime) for arch in archs}
        return beside_table(sessions, self._table, self._plan.threads)


def _candidate(row: Mapping[str, Any]) -> Candidate:
    """What a result says of a measured network."""
    names = ("arch", "predicted_ms", "spread_percent", "predicted_top1_percent", "measured_top1_percent")
    return Candidate(
        **{name: row[name] for name in names},
        interval95_points=row["interval95_points"],
        measured_ms=max(row["latencies_ms"]),
        times_measured=len(row["latencies_ms"]),
    )


def _result(explored: Explored, loop: _Loop, risk: float, inputs: Mapping[str, Any], budget_ms: float) -> SearchResult:
    """The result that the chosen network is, by the last correction of the table; its limit is the whole budget."""
    (chosen,) = explored.archive.add(explored.problem.space.genes([loop.chosen]))
    made = result_of(explored, int(chosen), risk, inputs)
    first = replace(made.limits[0], upper=round(budget_ms, 5))
    return replace(made, limits=(first, *made.limits[1:]))


def verify_files(
    requests: Sequence[Request], number: int, weights: Path | None, data: str | None, out: Path | None
) -> list[SearchResult]:
    """Search in closed loops with files, one after the other; see `search_verified`.

    Where accuracy is the objective and the weights of the supernet and its images are at hand, the candidates' accuracy
    is measured as well.

    Args:
        requests: each with one latency, of this machine.
        number: of candidates that are measured after each search.
        weights: of the supernet; None finds the space's own.
        data: the images, as `data.load` takes them.
        out: file to write the results to; what a run that was killed has measured for it is not measured again.
    """
    if number < 1:
        raise OfaDeployError(f"--verify needs at least 1 candidate, not {number}")
    for one in requests:
        if len(one.latency) != 1 or len(one.luts) > 1 or one.front or one.prove_seconds is not None:
            raise OfaDeployError("--verify goes with one --latency of this machine, without --front and --certify")
        if one.margin_percent is not None:
            raise OfaDeployError("--verify measures instead of keeping a margin; leave out --margin")
    prepared = [prepare(replace(one, margin_percent=0.0)) for one in requests]
    for ready in prepared:
        ready.problem.check_feasible()
        _check_own(ready.tables[0], ready.space)
    header = {
        "release": ofa_deploy.__version__,
        "requests": [asdict(one) for one in requests],
        "number": number,
        "inputs": [[one.limits[0].sha256, one.inputs.get("predictor_sha256")] for one in prepared],
    }
    found = []
    with journals.journal(out, header) as journal:
        if journal.known:
            logger.info(f"resuming: {journal.known} measurements are there")
        for request, ready in zip(requests, prepared, strict=True):
            accuracies = None if ready.predictor is None else accuracies_at_hand(ready, weights, data, journal)
            made = find_verified_network(
                replace(ready.problem, limits=ready.limits[1:]),
                ready.tables[0],
                request.latency[0],
                request.settings,
                stopping=request.stopping,
                number=number,
                risk=request.risk,
                inputs=ready.inputs,
                accuracies=accuracies,
                journal=journal,
            )
            found.append(made)
        if out is not None:
            write_results(found, out)
    return found


def accuracies_at_hand(
    ready: Prepared, weights: Path | None, data: str | None, journal: Journal | None = None
) -> Accuracies | None:
    """What measures accuracies, if weights and images are there; `journal` keeps them, or has them already."""
    space = ready.space
    try:
        found = weights or artifacts.find_artifact("supernets", checkpoint.file_name(space), "")
        images = load_data(data, space)
    except (ArtifactError, DataError):
        if weights is not None or data is not None:
            raise
        logger.warning(f"accuracy is not measured, as weights or images of {space.name} are not at hand")
        return None
    own, journal = checkpoint.origin(found)["sha256"], journal or Journal()
    if ready.predictor is not None and ready.predictor.weights_sha256 not in (None, own):
        raise ArtifactError(f"the predictor was fitted on subnetworks of other weights than {found}; name its own")
    net, total = checkpoint.load_supernet(found, space), len(images.heldout)
    about = ["accuracy", own, images.sha256(RECALIBRATION)]

    def measured(archs: Sequence[Arch]) -> list[tuple[float, float]]:
        return [(top, half) for top, half in journal.step([*about, *map(str, archs)], lambda: rows(archs))]

    def rows(archs: Sequence[Arch]) -> list[tuple[float, float]]:
        logger.info(f"measuring the accuracy of {len(archs)} candidates on {total} held-out images")
        right: dict[Arch, int] = {}
        for size in sorted({arch.resolution for arch in archs}):
            same = [arch for arch in archs if arch.resolution == size]
            right |= dict(zip(same, count_correct(net, same, images), strict=True))
        shares = [right[arch] / total for arch in archs]
        return [(round(100 * s, 4), round(196 * float(np.sqrt(s * (1 - s) / total)), 3)) for s in shares]

    return measured
