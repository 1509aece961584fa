"""Evolution with DEAP: towards one best network within limits, or the front of score against a cost.

Whole populations are varied and evaluated by one call on a genes matrix. Genes are canonical (inactive slots are 0),
each architecture is evaluated once, and those outside of the limits rank below all within by how far they are outside
(Deb's rules, doi 10.1016/S0045-7825(99)00389-8), so that good neighbours of the border stay useful.
"""

from __future__ import annotations

import logging
import operator
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from deap import base, tools

from ofa_deploy.search.archive import Archive
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Clock
from ofa_deploy.search.variation import Variation
from ofa_deploy.spaces.costs import Genes

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 2.0
"""Of progress that is logged."""
ATTEMPTS = 10
"""To make as many new children as the population holds."""
FRONT_RATE = 0.1
"""Share of the mutation probability that a front is searched with: what is close to it is good, and no local search
improves the children."""


class _Fitness(base.Fitness):  # type: ignore[misc]
    """DEAP's fitness, without the time that its comparisons and checks take for each of some 100,000 individuals."""

    def __init__(self, values: Sequence[float] = ()) -> None:
        self.wvalues = tuple(map(operator.mul, values, self.weights))

    def __gt__(self, other: _Fitness) -> bool:
        return bool(self.wvalues > other.wvalues)


class Single(_Fitness):
    """How little an individual is outside of the limits, then its score: the first that differs decides."""

    weights = (-1.0, 1.0)


class _Pair(_Fitness):
    """Score and cost of an individual of a front, neither of which comes first."""

    weights = (1.0, -1.0)


class Individual:
    """An evaluated architecture: its number in the archive, and its fitness."""

    __slots__ = ("fitness", "number")

    def __init__(self, number: int, fitness: base.Fitness) -> None:
        self.number = number
        self.fitness = fitness


def evolve(archive: Archive, settings: SearchSettings, clock: Clock, start: Genes) -> list[float]:
    """Search for the architecture of the highest score within limits.

    Args:
        archive: receives all that is evaluated; the best of it is the answer.
        settings: of the search.
        clock: tells when to stop.
        start: genes of the first generation, shape (n, columns), filled up with random networks.

    Returns:
        the best score after each generation.
    """

    def individuals(numbers: Sequence[int]) -> list[Individual]:
        rows = zip(numbers, archive.excess[numbers].tolist(), archive.scores[numbers].tolist(), strict=True)
        return [Individual(number, Single(values)) for number, *values in rows]

    toolbox = _toolbox(archive, settings.seed, settings.mutate)
    toolbox.register("select", tools.selTournament, tournsize=settings.tournament)
    toolbox.register("survive", tools.selBest)
    toolbox.register("individuals", individuals)
    toolbox.register("reached", lambda: archive.reached)
    return _generations(toolbox, archive, settings, clock, start)


def evolve_front(
    archive: Archive, settings: SearchSettings, clock: Clock, start: Genes, *, worst: tuple[float, float]
) -> list[float]:
    """NSGA-II (doi 10.1109/4235.996017): networks for which no other has a higher score and a lower cost, by the first
    limit.

    Args:
        archive: receives all that is evaluated; its front is the answer.
        settings: of the search.
        clock: tells when to stop.
        start: genes of the first generation, shape (n, columns), filled up with random networks.
        worst: score and cost of the hypervolume's reference point.

    Returns:
        the hypervolume after each generation.
    """

    def individuals(numbers: Sequence[int]) -> list[Individual]:
        excess, costs = archive.excess[numbers], archive.costs[numbers, 0]
        worse = 1e6 * (1 + excess)  # dominated by everything within the limits, and by what is less outside
        scores = np.where(excess > 0, -worse, archive.scores[numbers])
        rows = zip(numbers, scores.tolist(), np.where(excess > 0, worse, costs).tolist(), strict=True)
        return [Individual(number, _Pair(values)) for number, *values in rows]

    toolbox = _toolbox(archive, settings.seed, FRONT_RATE * settings.mutate)
    toolbox.register("select", _crowded)
    toolbox.register("survive", tools.selNSGA2, nd="log")
    toolbox.register("individuals", individuals)
    toolbox.register("reached", lambda: archive.hypervolume(worst))
    return _generations(toolbox, archive, settings, clock, start)


def _toolbox(archive: Archive, seed: int, rate: float) -> base.Toolbox:
    """DEAP's box with what both ways have in common: random networks, and children with this rate of mutations."""
    problem = archive.problem
    variation = Variation(problem.space, problem.allowed_resolutions, rate, np.random.default_rng(seed))
    toolbox = base.Toolbox()
    toolbox.register("random", variation.random)
    toolbox.register("vary", variation.children)
    return toolbox


def _crowded(population: list[Individual], number: int) -> list[Individual]:
    """Parents by NSGA-II's tournament of rank and crowding, which takes individuals by fours."""
    fours = len(population) // 4 * 4
    parents: list[Individual] = [] if fours else tools.selRandom(population, number)
    while len(parents) < number:
        parents += tools.selTournamentDCD(population, fours)
    return parents[:number]


def _generations(
    toolbox: base.Toolbox, archive: Archive, settings: SearchSettings, clock: Clock, start: Genes
) -> list[float]:
    """The loop of both: vary selected parents, evaluate, let the best survive."""
    history: list[float] = []
    if clock.due():
        return history
    newcomers = toolbox.random(max(settings.population - len(start), settings.population // 4))
    began = logged = time.perf_counter()
    with fenced_random(settings.seed):
        first = np.unique(np.concatenate([start, newcomers]), axis=0)
        population = toolbox.survive(toolbox.individuals(archive.add(first).tolist()), settings.population)
        while True:
            children = _children(toolbox, archive, clock, population, settings.population)
            population = toolbox.survive(population + children, settings.population)
            history.append(toolbox.reached())
            if clock.due_after(history[-1], fresh=bool(children)):
                return history
            if (now := time.perf_counter()) - logged > SECONDS_BETWEEN_LINES:
                logged = now
                at_most = f" of at most {most}" if (most := clock.stopping.generations) is not None else ""
                logger.info(
                    f"generation {len(history)}{at_most}: reached {history[-1]:.5g}, "
                    f"{archive.size / (now - began):.0f} networks/s"
                )


def _children(
    toolbox: base.Toolbox, archive: Archive, clock: Clock, population: list[Individual], number: int
) -> list[Individual]:
    """About so many new networks; where most children are no news, a few attempts more are made."""
    children: list[Individual] = []
    for _ in range(ATTEMPTS):
        parents = [parent.number for parent in toolbox.select(population, 2 * (number - len(children)))]
        genes, size = archive.genes[parents], archive.size
        archive.add(toolbox.vary(genes[::2], genes[1::2]))
        children += toolbox.individuals(list(range(size, archive.size)))
        if len(children) >= number or clock.due():
            break
    return children


@contextmanager
def fenced_random(seed: int) -> Iterator[None]:
    """DEAP's operators draw from Python's global generator: seed it inside, give the caller's state back after."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
