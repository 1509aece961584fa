"""One search, from a problem to its result.

    Problem: space, limits, predictor
       |
       |  check_feasible: refused, if it is proved that nothing is within the limits
       v
    a random sample -> surrogate, a sum over blocks -> knapsack: the best networks of that sum    (surrogates, knapsack)
       |                                                                                                  restarts
       v
    local search: the most promising changes of each, alone and in pairs, until none helps            (local_search)
       |
       v
    recombination: children of local optima, improved by local search                                (recombination)
       |
       v
    evolution with DEAP: from the local optima and random networks                                       (evolution)
       |                                                      once more: local search and recombination
       v
    the best few by prediction less `risk` standard deviations -> SearchResult                              (result)
       |
       v
    the proof, if asked for: a bound of what any network of the space is predicted             (certificates, milp)

All that is evaluated is in one `Archive`; every loop asks one `Clock` whether the search ends (stopping). For a front,
local search runs at 32 costs, and evolution is NSGA-II (front).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.archive import Archive
from ofa_deploy.search.certificates import certify, check_provable
from ofa_deploy.search.evolution import evolve, evolve_front
from ofa_deploy.search.front import hypervolume
from ofa_deploy.search.limits import Limit, excess_of, none_within
from ofa_deploy.search.local_search import LocalSearch
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.recombination import BROOD, Optima
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_parts import Certificate, FrontPoint
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Clock, Stopping
from ofa_deploy.search.surrogates import seeds
from ofa_deploy.spaces.costs import Genes
from ofa_deploy.spaces.extremes import extreme

RISK = 0.5
"""Standard deviations that are taken off predictions by default."""
MOST_RISK = 10
"""Standard deviations that can be taken off at most."""
POOL = 256
"""Networks of the highest predictions, which are compared by prediction less standard deviations."""
SAMPLE = 600
"""Random networks that a surrogate is fitted to."""
CLIMBERS = 8
"""Networks of each restart that are improved by local search."""
LAST = 4
"""Networks that are improved by local search after evolution."""
FRONT_SHARES = tuple((np.arange(1, 33) / 32).tolist())
"""Of the range from the least cost to the most, where a front is improved by local search."""


@dataclass(frozen=True)
class Explored:
    """What a search looked at.

    Attributes:
        archive: all architectures that it evaluated, and the problem.
        settings: of the search.
        stopping: when it was to end.
        history: best score, or a front's hypervolume, after each generation.
        stopped_by: what ended it, see `Stopping.ending`.
    """

    archive: Archive
    settings: SearchSettings
    stopping: Stopping
    history: tuple[float, ...]
    stopped_by: str

    @property
    def problem(self) -> Problem:
        """Of the search."""
        return self.archive.problem


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
    explored = explore(problem, settings, stopping, front=front, start=start)
    proof = None if prove_seconds is None else _proof(explored, prove_seconds)
    numbers = candidates(explored, risk, 1)
    if not numbers:
        raise none_found(explored)
    result = replace(result_of(explored, numbers[0], risk, inputs or {}), certificate=proof)
    return _with_front(result, explored) if front else result


def _proof(explored: Explored, seconds: float) -> Certificate:
    """A certificate; a better network that the proof comes across is added to what was explored."""
    archive = explored.archive
    incumbent = archive.genes[archive.best(1)] if archive.feasible else None
    certificate = certify(explored.problem, seconds, incumbent)
    archive.add(explored.problem.space.genes([certificate.arch]))
    return certificate.rounded()


def explore(
    problem: Problem,
    settings: SearchSettings | None = None,
    stopping: Stopping | None = None,
    *,
    front: bool = False,
    start: Genes | None = None,
) -> Explored:
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
    return Explored(archive, settings, stopping, tuple(history), clock.stopped_by)


def check_risk(risk: float) -> None:
    """Refuse a number of standard deviations that is none.

    Raises:
        OfaDeployError: naming what it may be.
    """
    if not 0 <= risk <= MOST_RISK:
        raise OfaDeployError(f"--risk must be between 0 and {MOST_RISK} standard deviations, not {risk}")


def none_found(explored: Explored) -> InfeasibleError:
    """What to say where a search came across no network within the limits."""
    problem, archive = explored.problem, explored.archive
    return none_within(problem.space, problem.limits, archive.genes[archive.best(1)], "was found")


def candidates(explored: Explored, risk: float, number: int) -> list[int]:
    """Numbers of the best networks within the limits, by prediction less `risk` standard deviations."""
    archive, predictor = explored.archive, explored.problem.predictor
    pool = [i for i in archive.best(max(POOL, number)) if archive.excess[i] == 0]
    if predictor is None or not risk or not pool:
        return pool[:number]
    mean, std = predictor.predict(archive.genes[pool], return_std=True)
    order = np.argsort(-(mean - risk * np.nan_to_num(std)), kind="stable")
    return [pool[i] for i in order[:number]]


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
        the hypervolume after each generation.
    """
    problem, space = archive.problem, archive.problem.space
    first, rest = problem.limits[0], problem.limits[1:]
    sample = _sample(problem, np.random.default_rng(settings.seed))
    archive.add(sample)
    (cheapest, least), most = extreme(space, first.cost), _dearest(problem)
    steps = [replace(first, upper=least + share * (most - least), margin_percent=0.0) for share in FRONT_SHARES]
    searches = [LocalSearch(replace(problem, limits=[step, *rest]), archive, clock) for step in steps]
    whole = replace(problem, limits=[replace(first, upper=most, margin_percent=0.0)])
    archive.add(seeds(whole, sample, [step.upper / most for step in steps]))
    improved = sorted(set(_improved(archive, searches)))
    worst = float(problem.score(cheapest)[0]), most
    history = evolve_front(archive, settings, clock, archive.genes[improved], worst=worst)
    _improved(archive, searches)
    return history or [archive.reached]


def _improved(archive: Archive, searches: Sequence[LocalSearch]) -> list[int]:
    """Numbers of what the best network within the limits of each local search becomes by it."""
    numbers: list[int] = []
    for search in searches:
        excess = excess_of(search.problem.limits, archive.costs)
        closest = np.flatnonzero(excess == excess.min())
        numbers += search.improve([int(closest[archive.scores[closest].argmax()])])
    return numbers


def _dearest(problem: Problem) -> float:
    """The most that a network within the first limit can cost by it."""
    first = problem.limits[0]
    return min(first.allowed, extreme(problem.space, first.cost, dearest=True)[1])


def result_of(explored: Explored, number: int, risk: float, inputs: Mapping[str, Any]) -> SearchResult:
    """The result that one of the explored networks is.

    Args:
        explored: by a search.
        number: of the network in the archive.
        risk: standard deviations that were taken off predictions.
        inputs: to be recorded in the result.
    """
    archive, problem = explored.archive, explored.problem
    genes, std = archive.genes[[number]], None
    if problem.predictor is not None:
        deviation = float(problem.predictor.predict(genes, return_std=True)[1][0])
        std = round(deviation, 4) if np.isfinite(deviation) else None
    outcomes = tuple(limit.outcome(genes) for limit in problem.limits)
    return SearchResult(
        space=problem.space.name,
        arch=problem.space.archs(genes)[0],
        objective=problem.objective,
        score=round(float(archive.scores[number]), 4),
        score_std=std,
        risk=risk,
        limits=outcomes,
        macs=int(problem.space.macs(genes)[0]),
        params=int(problem.space.params(genes)[0]),
        evaluations=archive.size,
        history=tuple(round(reached, 4) for reached in explored.history),
        settings=explored.settings,
        inputs=dict(inputs),
        stopping=explored.stopping,
        stopped_by=explored.stopped_by,
        message="; ".join(f"{limit.name} {limit.in_words}" for limit in outcomes),
    )


def _with_front(result: SearchResult, explored: Explored) -> SearchResult:
    """The result with the front of its archive, against the first limit's cost."""
    archive, problem, first = explored.archive, explored.problem, explored.problem.limits[0]
    numbers = archive.front()
    genes = archive.genes[numbers]
    costs = {
        _column(problem.limits[: i + 1]): np.round(limit.cost(genes), 5).tolist()
        for i, limit in enumerate(problem.limits)
    }
    columns = {
        "arch": problem.space.archs(genes),
        "score": np.round(archive.scores[numbers], 4).tolist(),
        "costs": [dict(zip(costs, row, strict=True)) for row in zip(*costs.values(), strict=True)],
        "macs": problem.space.macs(genes).astype(int).tolist(),
        "params": problem.space.params(genes).astype(int).tolist(),
    }
    points = tuple(FrontPoint(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
    worst = float(problem.score(extreme(problem.space, first.cost)[0])[0])
    volume = hypervolume(archive.scores[numbers], first.cost(genes), worst, _dearest(problem))
    return replace(result, front=points, hypervolume=round(volume, 5))


def _column(limits: Sequence[Limit]) -> str:
    """Name of the last limit's column; those after the first of a kind are numbered."""
    limit = limits[-1]
    unit = {"ms": "ms", "M": "millions", "MB": "mb"}[limit.unit]
    same = sum(other.name == limit.name for other in limits)
    return f"{limit.name}_{unit}" + (f"_{same}" if same > 1 else "")
