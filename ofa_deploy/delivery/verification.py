"""Searches whose latency is kept: candidates are timed, the table is corrected by them, until the budget is kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ofa_deploy.delivery.loop import SearchPlan, search_again
from ofa_deploy.delivery.measurements import Measured, Measurements
from ofa_deploy.delivery.measuring import Accuracies, Bench, accuracies_at_hand
from ofa_deploy.delivery.requests import Prepared, Request, of_this_machine, plan_of, prepare
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.files import journals
from ofa_deploy.files.journals import Journal
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import build_command
from ofa_deploy.search.exploration import Exploration, candidates, none_found, result_of
from ofa_deploy.search.limits import Limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, write_results
from ofa_deploy.search.result_records import Verified
from ofa_deploy.search.run import explore
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.version import __version__

logger = logging.getLogger(__name__)

ROUNDS = 4
"""Searches at most, where a network stays within the budget."""
RESCUES = 2
"""Further searches, where none does."""
GUARD_PERCENT = 2.0
"""Kept below the budget in a search."""
CONFIRMED = 2
"""Times that a network must be measured within the budget; its latency is the largest of them."""
CONFIRMED_WITH = 3
"""The best networks, which are measured together when the first of them is measured again."""


def find_verified_network(
    problem: Problem,
    table: LatencyTable,
    *,
    budget: str,
    plan: SearchPlan | None = None,
    number: int = 3,
    accuracies: Accuracies | None = None,
    journal: Journal | None = None,
) -> SearchResult:
    """Search, measure the best candidates on this machine, correct the table by them, and repeat.

    Args:
        problem: what is searched; its limits are those beside the latency.
        table: of this machine.
        budget: the latency as users type it.
        plan: how each search runs; None takes `SearchPlan()`.
        number: of candidates that are measured after each search.
        accuracies: measures candidates' accuracy; None goes by the prediction.
        journal: keeps measured latencies, or has them from a run that was killed.

    Returns:
        the best network whose measured latency is within the budget, with all that was measured in `verified`; where
        none is, the closest of those measured, and `verified` says so.

    Raises:
        InfeasibleError: by the table no network is within the limits, or the search finds none.
        OfaDeployError: the table is not this machine's, or the budget has no upper end.
    """
    check_table(table)
    check_number(number)
    limit = latency_limit(table, budget, margin_percent=0.0)
    if not np.isfinite(limit.upper):
        raise OfaDeployError(f"--verify keeps a budget: --latency {budget} has no upper end")
    bench = Bench(table, accuracies, journal or Journal())
    loop = _Verification(problem, limit, bench, plan or SearchPlan(), number)
    rounds = search_again(loop, ROUNDS + RESCUES)
    return loop.result(rounds)


def check_number(number: int) -> None:
    """Refuse a number of candidates that is none.

    Raises:
        OfaDeployError: naming what it may be.
    """
    if number < 1:
        raise OfaDeployError(f"--verify needs at least 1 candidate, not {number}")


def check_table(table: LatencyTable) -> None:
    """Refuse a table of another machine.

    Raises:
        OfaDeployError: saying how to build this one's.
    """
    if not of_this_machine(table):
        measured = table.conditions if table.conditions["device"] in DEVICES else conditions("cpu", 1)
        command = build_command(table.space, measured)
        raise OfaDeployError(f"--verify measures this machine, the table is of {table.label}; run: {command}")


class _Verification:
    """The loop: candidates are networks, and the table is corrected by a factor.

    Args:
        problem: what is searched beside the latency.
        limit: the budget.
        bench: what measures candidates.
        plan: how each search runs.
        number: of candidates a round.
    """

    def __init__(self, problem: Problem, limit: Limit, bench: Bench, plan: SearchPlan, number: int) -> None:
        self._problem, self._limit, self._bench = problem, limit, bench
        self._plan, self._number = plan, number
        self._slowest_ms = extreme(problem.space, limit.cost, dearest=True)[1]
        self._measurements = Measurements(limit)
        self._factor, self._slower_percent = 1.0, 0.0
        self._exploration: Exploration | None = None
        self._nothing_new = False

    def search(self) -> list[Arch]:
        """The best networks by the corrected table; none where there is none within the limits any more."""
        corrected = replace(self._limit, cost=self._limit.cost.scaled(self._factor))
        try:
            self._exploration, archs = self._best(replace(self._problem, limits=[corrected, *self._problem.limits]))
        except InfeasibleError:
            if self._exploration is None:
                raise
            return []
        return archs

    def _best(self, problem: Problem) -> tuple[Exploration, list[Arch]]:
        """A search and its best networks: a little below the first limit, or, where there are none, up to all of it.

        Raises:
            InfeasibleError: there are none either.
        """
        limit, *others = problem.limits
        guard = min(limit.upper * GUARD_PERCENT / 100, (limit.upper - limit.lower) / 2)
        numbers: list[int] = []
        for first in (replace(limit, upper=limit.upper - guard), limit):
            try:
                exploration = self._explored(replace(problem, limits=[first, *others]))
            except InfeasibleError:
                if first is limit:
                    raise
                continue
            if numbers := candidates(exploration, self._plan.risk, self._number):
                break
        if not numbers:
            raise none_found(exploration)
        return exploration, problem.space.archs(exploration.archive.genes[numbers])

    def _explored(self, problem: Problem) -> Exploration:
        """A search; one that time ends is on record, so that a run that goes on comes to the same networks.

        Raises:
            InfeasibleError: it is proved that no network is within the limits.
        """
        settings, stopping = self._plan.settings, self._plan.stopping
        if stopping.seconds is None:
            return explore(problem, settings, stopping)
        explorations: list[Exploration] = []

        def search() -> tuple[str, int]:
            explorations.append(explore(problem, settings, stopping))
            return explorations[0].stopped_by, explorations[0].evaluations

        stopped_by, evaluations = self._bench.journal.step(["search"], search)
        if explorations:
            return explorations[0]
        repeated = explore(problem, settings, stopping.repeatable(stopped_by, evaluations))
        return replace(repeated, stopping=stopping, stopped_by=stopped_by)

    def measure(self, candidates: Sequence[Arch], number: int) -> None:
        """Measure the networks that were not measured yet, and the best so far again."""
        fresh = [arch for arch in candidates if arch not in self._measurements]
        self._nothing_new = not fresh
        if self._nothing_new:
            self._confirm()
        else:
            best = self._measurements.within[:CONFIRMED]
            self._time([*self._predicted(fresh), *best])
        if self._measurements.used or number >= ROUNDS:
            self._confirm()

    def correct(self, candidates: Sequence[Arch], number: int) -> bool:
        """Correct the table; search again unless the budget is kept, and used or no further search would use more."""
        measurements, limit = self._measurements, self._limit
        self._factor = measurements.factor(candidates, self._factor)
        logger.info(f"round {number}: {measurements.in_words}; the table is corrected by {self._correction:+.1f} %")
        excludes_nothing = self._slowest_ms * self._factor < limit.upper * (1 - GUARD_PERCENT / 100)
        last = self._nothing_new or excludes_nothing or number >= ROUNDS
        return not (measurements.used or (measurements.within and last))

    def result(self, rounds: int) -> SearchResult:
        """The result that the best network is, by the last correction of the table; its limit is the whole budget."""
        self._confirm()
        assert self._exploration is not None
        measurements, best = self._measurements, self._measurements.best
        (number,) = self._exploration.archive.add(self._problem.space.genes([best.arch]))
        result = result_of(self._exploration, int(number), self._plan.risk, self._plan.inputs)
        budget_ms = round(measurements.budget_ms, 5)
        verified = Verified(
            budget_ms=budget_ms,
            within_budget=best in measurements.within,
            measured_ms=best.latency_ms,
            rounds=rounds,
            table_correction_percent=round(self._correction, 2),
            machine_slower_percent=self._slower_percent,
            conditions=dict(self._bench.table.conditions),
            candidates=measurements.candidates(),
        )
        limits = (replace(result.limits[0], upper=budget_ms), *result.limits[1:])
        return replace(result, limits=limits, verified=verified)

    @property
    def _correction(self) -> float:
        """By how many percent the table's latencies are raised."""
        return 100 * (self._factor - 1)

    def _predicted(self, archs: Sequence[Arch]) -> list[Measured]:
        """Networks with what is predicted of them, and with their measured accuracy where it can be measured."""
        space, predictor = self._problem.space, self._problem.predictor
        genes = space.genes(archs)
        top1_percent: list[float | None] = [None] * len(archs)
        scores = space.macs(genes)
        if predictor is not None:
            means, deviations = predictor.predict(genes, return_std=True)
            top1_percent, scores = means.round(4).tolist(), means - self._plan.risk * np.nan_to_num(deviations)
        table_ms, accuracies = self._bench.table.latency_ms(genes), self._bench.accuracies
        measured = [(None, None)] * len(archs) if accuracies is None else accuracies(archs)
        return [
            Measured(arch, float(ms), round(float(ms) * self._factor, 5), float(score), top1, accuracy)
            for arch, ms, score, top1, accuracy in zip(archs, table_ms, scores, top1_percent, measured, strict=True)
        ]

    def _confirm(self) -> None:
        """Measure the best again until one has been within the budget `CONFIRMED` times."""
        while (best := self._measurements.within) and len(best[0].latencies_ms) < CONFIRMED:
            self._time(best[:CONFIRMED_WITH])

    def _time(self, networks: Sequence[Measured]) -> None:
        """Measure the latency of networks."""
        timings, self._slower_percent = self._bench.latencies([network.arch for network in networks])
        self._measurements.add([network.timed(timings[str(network.arch)]) for network in networks])


def verify_files(
    requests: Sequence[Request], number: int, *, weights: Path | None, data: str | None, out: Path | None
) -> list[SearchResult]:
    """Search for networks whose measured latency is kept, with files, one request after the other.

    Where accuracy is the objective and the weights of the supernet and its images are at hand, the candidates' accuracy
    is measured as well.

    Args:
        requests: each with one latency, of this machine.
        number: of candidates that are measured after each search.
        weights: of the supernet; None finds the space's own.
        data: name of the images; None finds the space's own.
        out: file to write the results to; what a run that was killed has measured for it is not measured again.

    Raises:
        OfaDeployError: a request asks for what cannot be measured, or a file is missing or unusable.
        InfeasibleError: no network is within the limits of a request.
    """
    check_number(number)
    for request in requests:
        _check_request(request)
    searches = [prepare(replace(request, margin_percent=0.0)) for request in requests]
    for prepared in searches:
        prepared.problem.check_feasible()
        check_table(prepared.tables[0])
    results = []
    with journals.journal(out, _header(requests, searches, number)) as journal:
        if journal.recorded:
            timed = any(request.stopping.seconds is not None for request in requests)  # whose searches count as well
            logger.info(f"resuming: {journal.recorded} {'steps' if timed else 'measurements'} are there")
        for request, prepared in zip(requests, searches, strict=True):
            accuracies = accuracies_at_hand(prepared, weights, data, journal) if prepared.predictor else None
            problem, plan = replace(prepared.problem, limits=prepared.limits[1:]), plan_of(request, prepared)
            (budget,), table = request.latency, prepared.tables[0]
            result = find_verified_network(
                problem, table, budget=budget, plan=plan, number=number, accuracies=accuracies, journal=journal
            )
            results.append(result)
        if out is not None:
            write_results(results, out)
    return results


def _check_request(request: Request) -> None:
    """Refuse a request whose latency cannot be measured and kept.

    Raises:
        OfaDeployError: naming the options that do not go together.
    """
    if len(request.latency) != 1 or len(request.luts) > 1 or request.front or request.prove_seconds is not None:
        raise OfaDeployError("--verify goes with one --latency of this machine, without --front and --certify")
    if request.margin_percent is not None:
        raise OfaDeployError("--verify measures instead of keeping a margin; leave out --margin")


def _header(requests: Sequence[Request], searches: Sequence[Prepared], number: int) -> dict[str, object]:
    """What a journal is about: a run with other options or files does not go on from it."""
    return {
        "release": __version__,
        "requests": [asdict(request) for request in requests],
        "number": number,
        "inputs": [[prepared.limits[0].sha256, prepared.inputs.get("predictor_sha256")] for prepared in searches],
    }
