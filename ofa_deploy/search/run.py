"""One search, from a problem to its result.

    Problem: space, limits, predictor          problem
      |
      |  refused where it is proved that       feasibility
      |  nothing is within the limits
      v
    seeds: a random sample; a sum over         surrogates
      |    blocks, fitted to it; the best      knapsack
      |    networks of that sum
      v
    local search: the most promising changes   local_search
      |    of each, alone and in pairs, until
      |    none helps
      v
    recombination: children of local optima,   recombination
      |    improved by local search; then new
      |    seeds, so many times
      v
    evolution with DEAP: from the local        evolution, variation
      |    optima and random networks; then
      |    local search and recombination again
      v
    proof, if it is asked for: a bound of      certificates, milp, binaries
      |    what any network is predicted
      v
    the best few by prediction less some       exploration, result
    standard deviations: SearchResult

What is evaluated is in one `Archive`; every loop asks one `Clock` whether the search ends (`stopping`). For a front,
local search runs at 32 costs, and evolution is NSGA-II (`front`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ofa_deploy.search.archive import Archive
from ofa_deploy.search.certificates import certify, check_provable
from ofa_deploy.search.evolution import evolve, evolve_front
from ofa_deploy.search.exploration import (
    RISK,
    Exploration,
    candidates,
    check_risk,
    none_found,
    result_of,
    with_front,
)
from ofa_deploy.search.limits import excess_of
from ofa_deploy.search.local_search import LocalSearch
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.recombination import BROOD, Optima
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import Certificate
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Clock, Stopping
from ofa_deploy.search.surrogates import seeds
from ofa_deploy.spaces.costs import Genes
from ofa_deploy.spaces.extremes import extreme

SAMPLE = 600
"""Random networks that a surrogate is fitted to."""
CLIMBERS = 8
"""Networks of each restart that are improved by local search."""
LAST = 4
"""Networks that are improved by local search after evolution."""
FRONT_SHARES = tuple((np.arange(1, 33) / 32).tolist())
"""Of the range from the least cost to the most, where a front is improved by local search."""


def find_network(
    problem: Problem,
    settings: SearchSettings | None = None,
    *,
    stopping: Stopping | None = None,
    risk: float = RISK,
    inputs: Mapping[str, Any] | None = None,
    front: bool = False,
    prove_seconds: float | None = None,
    start: Genes | None = None,
) -> SearchResult:
    """The best architecture within limits.

    Args:
        problem: what is maximised, within which limits.
        settings: how the search runs; None takes `SearchSettings()`.
        stopping: when it ends; None takes `Stopping()`.
        risk: the best few architectures are compared by prediction minus this many of its standard deviations.
        inputs: to be recorded in the result.
        front: search the whole front of the objective against the first limit's cost; the answer is the best of it.
        prove_seconds: time for a proof of the best prediction after the search; None does without.
        start: architectures to begin with as well, shape (n, columns), for instance those of other searches.

    Raises:
        InfeasibleError: no network is within the limits; the message names the closest.
        OfaDeployError: nothing can be proved about the predictor, or `risk` is negative.
    """
    check_risk(risk)
    if prove_seconds is not None:
        check_provable(problem, prove_seconds)
    exploration = explore(problem, settings, stopping, front=front, start=start)
    proof = None if prove_seconds is None else _proof(exploration, prove_seconds)
    numbers = candidates(exploration, risk, 1)
    if not numbers:
        raise none_found(exploration)
    result = replace(result_of(exploration, numbers[0], risk, inputs or {}), certificate=proof)
    return with_front(result, exploration) if front else result


def _proof(exploration: Exploration, seconds: float) -> Certificate:
    """A certificate; a better network that the proof comes across is added to what was explored."""
    archive = exploration.archive
    incumbent = archive.genes[archive.best(1)] if archive.feasible else None
    certificate = certify(exploration.problem, seconds, incumbent)
    archive.add(exploration.problem.space.genes([certificate.arch]))
    return certificate.rounded()


def explore(
    problem: Problem,
    settings: SearchSettings | None = None,
    stopping: Stopping | None = None,
    *,
    front: bool = False,
    start: Genes | None = None,
) -> Exploration:
    """Evaluate architectures where the best ones are expected.

    Args:
        problem: what is maximised, within which limits.
        settings: how the search runs; None takes `SearchSettings()`.
        stopping: when it ends; None takes `Stopping()`.
        front: look for the front of the objective against the first limit's cost.
        start: architectures to begin with as well, shape (n, columns).

    Raises:
        InfeasibleError: it is proved that no network is within the limits.
    """
    settings, stopping, archive = settings or SearchSettings(), stopping or Stopping(), Archive(problem)
    clock = stopping.start(archive)
    problem.check_feasible()
    if start is not None:
        archive.add(start)
    with threadpool_limits(1, "blas"):  # the matrices are small: more threads only wait for each other
        history = (_front if front else _single)(archive, settings, clock)
    return Exploration(archive, settings, stopping, archive.size, tuple(history), clock.stopped_by)


def _single(archive: Archive, settings: SearchSettings, clock: Clock) -> list[float]:
    """Restarts of surrogate and local search, and children of their local optima; evolution from there; more children.

    Returns:
        the best score after each brood of children and each generation.
    """
    rng = np.random.default_rng(settings.seed)
    optima = Optima(archive, settings, clock, LocalSearch(archive.problem, archive, clock))
    optima.join(np.flatnonzero(np.isfinite(archive.excess)).tolist())
    early = settings.recombinations // 2
    history: list[float] = []
    crossed = 0
    for restart in range(settings.restarts):
        if clock.due():
            break
        optima.join(_climbers(archive, rng))
        due = early * (restart + 1) // settings.restarts
        if due - crossed >= BROOD or restart == settings.restarts - 1:
            history += optima.recombine(due - crossed)
            crossed = due
    history += evolve(archive, settings, clock, archive.genes[optima.numbers])
    optima.join(archive.best(LAST))
    history += optima.recombine(settings.recombinations - early)
    return history or [archive.reached]


def _climbers(archive: Archive, rng: np.random.Generator) -> list[int]:
    """Numbers of the best networks by a surrogate, which is fitted to a random sample; the sample's own without one."""
    problem = archive.problem
    sample = _sample(problem, rng)
    sampled, best = archive.add(sample), archive.add(seeds(problem, sample))
    numbers = np.unique(best if len(best) else sampled)
    order = np.lexsort((-archive.scores[numbers], archive.excess[numbers]))
    climbers: list[int] = numbers[order[:CLIMBERS]].tolist()
    return climbers


def _sample(problem: Problem, rng: np.random.Generator) -> Genes:
    """Random networks at the resolutions that all costs cover."""
    return problem.space.sample(rng, SAMPLE, [problem.space.resolutions[i] for i in problem.allowed_resolutions])


def _front(archive: Archive, settings: SearchSettings, clock: Clock) -> list[float]:
    """The best networks by a surrogate, improved for each of some costs; NSGA-II from there; improved again.

    Returns:
        the hypervolume after each generation; without any generation, that of the end.
    """
    problem, space = archive.problem, archive.problem.space
    first, rest = problem.limits[0], problem.limits[1:]
    sample = _sample(problem, np.random.default_rng(settings.seed))
    archive.add(sample)
    (_, least), worst = extreme(space, first.cost), problem.reference
    most = worst[1]
    steps = [replace(first, upper=least + share * (most - least), margin_percent=0.0) for share in FRONT_SHARES]
    searches = [LocalSearch(replace(problem, limits=[step, *rest]), archive, clock) for step in steps]
    whole = replace(problem, limits=[replace(first, upper=most, margin_percent=0.0)])
    archive.add(seeds(whole, sample, [step.upper / most for step in steps]))
    improved = sorted(set(_improved(archive, searches)))
    history = evolve_front(archive, settings, clock, archive.genes[improved], worst=worst)
    _improved(archive, searches)
    return history or [archive.hypervolume(worst)]


def _improved(archive: Archive, searches: Sequence[LocalSearch]) -> list[int]:
    """Numbers of what the best network within the limits of each local search becomes by it."""
    numbers: list[int] = []
    for search in searches:
        excess = excess_of(search.problem.limits, archive.costs)
        closest = np.flatnonzero(excess == excess.min())
        numbers += search.improve([int(closest[archive.scores[closest].argmax()])])
    return numbers
