"""One search from its parts: limits, objective, predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors import AccuracyPredictor, TellsGains
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.certificates import certify, check_provable
from ofa_deploy.search.evolution import Archive, Score, SearchSettings, allowed_resolutions, evolve, evolve_front
from ofa_deploy.search.front import hypervolume
from ofa_deploy.search.limits import Limit, check_feasible, none_within, outside
from ofa_deploy.search.local_search import Gains, LocalSearch
from ofa_deploy.search.recombination import BROOD, Optima
from ofa_deploy.search.result import SearchResult, in_words
from ofa_deploy.search.surrogates import seeds
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace

RISK = 0.5
"""Standard deviations that are taken off predictions by default."""
MOST_RISK = 10
POOL = 256
"""The best networks, which are compared by what is left after that."""
SAMPLE = 600
"""Random networks that a surrogate is fitted to."""
BEGUN = 8
"""Networks of each restart that are improved by local search."""
LAST = 4
"""Networks that are improved by local search after evolution."""
FRONT_SHARES = tuple((np.arange(1, 33) / 32).tolist())
"""Of the range of costs, where a front is improved by local search."""


@dataclass(frozen=True)
class Explored:
    """What a search looked at.

    Attributes:
        archive: all architectures that it evaluated.
        limits: theirs.
        history: best score, or a front's hypervolume, after each generation.
    """

    archive: Archive
    limits: tuple[Limit, ...]
    history: tuple[float, ...]


def find_network(
    space: SearchSpace,
    predictor: AccuracyPredictor | None,
    limits: Sequence[Limit],
    settings: SearchSettings | None = None,
    risk: float = RISK,
    inputs: Mapping[str, Any] | None = None,
    front: bool = False,
    prove_seconds: float | None = None,
    start: Genes | None = None,
) -> SearchResult:
    """The best architecture within limits.

    Args:
        space: the search space.
        predictor: of accuracy, which is maximised; without one, the multiply-accumulates are.
        limits: that the architecture must keep.
        settings: of the search; None takes `SearchSettings()`.
        risk: the best few architectures are compared by prediction minus this many of its standard deviations.
        inputs: to be recorded in the result.
        front: search the whole front of the objective against the first limit's cost; the chosen architecture is then
            the best of it.
        prove_seconds: time for a proof of the best prediction, see `certify.certify`; None does without.
        start: architectures to begin with as well, shape (n, columns), for instance those of other searches.

    Raises:
        InfeasibleError: no network is within the limits; the message names the closest.
        OfaDeployError: the predictor is of another space, or cannot be proved about, or `risk` is negative.
    """
    settings = settings or SearchSettings()
    check_risk(risk)
    if prove_seconds is not None:
        check_provable(space, predictor, limits, prove_seconds)
    explored = explore(space, predictor, limits, settings, front, start)
    proof = None if prove_seconds is None else _proof(space, predictor, explored, prove_seconds)
    chosen = candidates(explored, predictor, risk, 1)
    if not chosen:
        raise none_found(space, explored)
    made = result_of(space, explored, chosen[0], predictor, settings, risk, inputs or {})
    made = replace(made, certificate=proof)
    return _with_front(made, space, explored) if front else made


def _proof(
    space: SearchSpace, predictor: AccuracyPredictor | None, explored: Explored, seconds: float
) -> dict[str, Any]:
    """A certificate as JSON values; a better network that the proof comes across is added to what was explored."""
    best = explored.archive.best(1)
    known = explored.archive.genes[best] if explored.archive.over[best[0]] == 0 else None
    found = certify(space, predictor, explored.limits, seconds, known)
    explored.archive.add(space.genes([found.arch]))
    about = {key: round(v, 5) if isinstance(v, float) else v for key, v in asdict(found).items()}
    return about | {"arch": str(found.arch)}


def explore(
    space: SearchSpace,
    predictor: AccuracyPredictor | None,
    limits: Sequence[Limit],
    settings: SearchSettings,
    front: bool = False,
    start: Genes | None = None,
) -> Explored:
    """Evaluate architectures where the best ones are expected; see `search`."""
    if predictor is not None and predictor.space != space:
        raise OfaDeployError(
            f"the search is in {space.name}, the predictor of {predictor.space.name}; choose one space"
        )
    check_feasible(space, limits)

    def score(genes: Genes) -> Floats:
        return space.macs(genes) / 1e6 if predictor is None else predictor.predict(genes)

    archive = Archive(score, limits, space.columns)
    gains = predictor.gains if isinstance(predictor, TellsGains) else None
    if start is not None:
        archive.add(start)
    with threadpool_limits(1, "blas"):  # the matrices are small: more threads only wait for each other
        history = (_front if front else _single)(space, archive, score, gains, limits, settings)
    return Explored(archive, tuple(limits), tuple(history))


def check_risk(risk: float) -> None:
    """Refuse a number of standard deviations that is none.

    Raises:
        OfaDeployError: naming what it may be.
    """
    if not 0 <= risk <= MOST_RISK:
        raise OfaDeployError(f"--risk must be between 0 and {MOST_RISK} standard deviations, not {risk}")


def none_found(space: SearchSpace, explored: Explored) -> InfeasibleError:
    """What to say where a search came across no network within the limits."""
    return none_within(space, explored.limits, explored.archive.genes[explored.archive.best(1)], "was found")


def candidates(explored: Explored, predictor: AccuracyPredictor | None, risk: float, number: int) -> list[int]:
    """Numbers of the best networks within the limits, by prediction less `risk` standard deviations."""
    archive = explored.archive
    pool = [i for i in archive.best(max(POOL, number)) if archive.over[i] == 0]
    if predictor is None or not risk or not pool:
        return pool[:number]
    mean, std = predictor.predict(archive.genes[pool], return_std=True)
    order = np.argsort(-(mean - risk * np.nan_to_num(std)), kind="stable")
    return [pool[i] for i in order[:number]]


def _single(
    space: SearchSpace,
    archive: Archive,
    score: Score,
    gains: Gains | None,
    limits: Sequence[Limit],
    settings: SearchSettings,
) -> list[float]:
    """Restarts of surrogate and local search, and children of what they find; evolution from there; more children."""
    rng = np.random.default_rng(settings.seed)
    allowed = [space.resolutions[i] for i in allowed_resolutions(space, limits)]
    optima = Optima(space, archive, limits, settings, LocalSearch(space, archive, limits, gains))
    optima.join(np.flatnonzero(np.isfinite(archive.over)).tolist())
    early = settings.recombinations // 2
    history: list[float] = []
    done = 0
    for restart in range(settings.restarts):
        known = space.sample(rng, SAMPLE, allowed)
        numbers, found = archive.add(known), archive.add(seeds(space, score, limits, known))
        numbers = np.unique(found if len(found) else numbers)
        order = np.lexsort((-archive.scores[numbers], archive.over[numbers]))
        optima.join(numbers[order[:BEGUN]].tolist())
        due = early * (restart + 1) // settings.restarts
        if due - done >= BROOD or restart == settings.restarts - 1:
            history += optima.recombine(due - done)
            done = due
    history += evolve(space, archive, limits, settings, archive.genes[optima.numbers])
    optima.join(archive.best(LAST))
    return history + optima.recombine(settings.recombinations - early)


def _front(
    space: SearchSpace,
    archive: Archive,
    score: Score,
    gains: Gains | None,
    limits: Sequence[Limit],
    settings: SearchSettings,
) -> list[float]:
    """The best networks by a surrogate, improved for each of some costs; NSGA-II from there; improved again."""
    rng = np.random.default_rng(settings.seed)
    allowed = [space.resolutions[i] for i in allowed_resolutions(space, limits)]
    known = space.sample(rng, SAMPLE, allowed)
    archive.add(known)
    first, rest = limits[0], limits[1:]
    least, most = extreme(space, first.cost)[1], min(first.allowed, extreme(space, first.cost, dearest=True)[1])
    steps = [replace(first, upper=least + share * (most - least), margin_percent=0.0) for share in FRONT_SHARES]
    closer = [LocalSearch(space, archive, [step, *rest], gains) for step in steps]

    def improve() -> list[int]:
        ends = []
        for local in closer:
            over = outside(local.limits, archive.costs)
            closest = np.flatnonzero(over == over.min())
            ends += local.improve([int(closest[archive.scores[closest].argmax()])])
        return ends

    shares = [step.upper / most for step in steps]
    archive.add(seeds(space, score, [replace(first, upper=most, margin_percent=0.0)], known, shares))
    begun = sorted(set(improve()))
    worst = float(score(extreme(space, first.cost)[0])[0]), most
    history = evolve_front(space, archive, limits, worst, settings, archive.genes[begun])
    improve()
    return history


def result_of(
    space: SearchSpace,
    explored: Explored,
    chosen: int,
    predictor: AccuracyPredictor | None,
    settings: SearchSettings,
    risk: float,
    inputs: Mapping[str, Any],
) -> SearchResult:
    """The result that one of the explored networks is."""
    archive = explored.archive
    genes, std = archive.genes[[chosen]], None
    if predictor is not None:
        deviation = float(predictor.predict(genes, return_std=True)[1][0])
        std = round(deviation, 4) if np.isfinite(deviation) else None
    outcomes = tuple(limit.outcome(genes) for limit in explored.limits)
    return SearchResult(
        space.name,
        space.archs(genes)[0],
        "macs" if predictor is None else "accuracy",
        round(float(archive.scores[chosen]), 4),
        std,
        risk,
        outcomes,
        int(space.macs(genes)[0]),
        int(space.params(genes)[0]),
        archive.size,
        tuple(round(s, 4) for s in explored.history),
        settings,
        dict(inputs),
        message="; ".join(f"{o['name']} {in_words(o)}" for o in outcomes),
    )


def _with_front(made: SearchResult, space: SearchSpace, explored: Explored) -> SearchResult:
    """The result with the front of its archive, against the first limit's cost."""
    archive, first = explored.archive, explored.limits[0]
    chosen = archive.front()
    genes = archive.genes[chosen]
    columns = {
        "arch": list(map(str, space.archs(genes))),
        "score": np.round(archive.scores[chosen], 4).tolist(),
        **{
            _column(explored.limits[: i + 1]): np.round(limit.cost(genes), 5).tolist()
            for i, limit in enumerate(explored.limits)
        },
        "macs": space.macs(genes).astype(int).tolist(),
        "params": space.params(genes).astype(int).tolist(),
    }
    rows = tuple(dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    worst = extreme(space, first.cost)[0]
    dearest = min(first.allowed, extreme(space, first.cost, dearest=True)[1])
    volume = hypervolume(archive.scores[chosen], first.cost(genes), float(archive.score(worst)[0]), dearest)
    return replace(made, front=rows, hypervolume=round(volume, 5))


def _column(limits: Sequence[Limit]) -> str:
    """Name of the last limit's column; those after the first of a kind are numbered."""
    limit = limits[-1]
    unit, same = {"ms": "ms", "M": "millions", "MB": "mb"}[limit.unit], sum(one.name == limit.name for one in limits)
    return f"{limit.name}_{unit}" + (f"_{same}" if same > 1 else "")
