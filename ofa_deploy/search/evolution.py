"""Evolutionary search with DEAP: one best network within limits, or the front of score against a cost.

Whole populations are varied and evaluated by one call on a genes matrix. Genes are canonical (inactive slots are 0),
each architecture is evaluated once, and those outside of the limits rank below all within by how far they are outside
(Deb's rules, doi 10.1016/S0045-7825(99)00389-8), so that good neighbours of the border stay useful.
"""

from __future__ import annotations

import logging
import operator
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
from deap import base, tools

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.search.front import front_of, hypervolume
from ofa_deploy.search.limits import Limit, outside
from ofa_deploy.search.variation import Variation
from ofa_deploy.spaces.costs import Floats, Genes, Ints
from ofa_deploy.spaces.space import SearchSpace

logger = logging.getLogger(__name__)

Score = Callable[[Genes], Floats]
"""From genes, shape (n, columns), to what is maximised, shape (n,)."""
SECONDS_BETWEEN_LINES = 2.0
FRONT_RATE = 0.1
"""Of the mutation probability, for fronts: what is close to them is good, and no local search improves the children."""
LEAST = 1e-6
"""Relative improvement that is worth waiting for more."""


@dataclass(frozen=True)
class SearchSettings:
    """How evolution runs.

    Attributes:
        population: architectures kept from one generation to the next.
        generations: at most.
        patience: generations without a better architecture before it ends.
        tournament: contestants for a place as a parent.
        mutate: probability that a stage's depth, a block's kernel or expansion, a width or the resolution of a child
            is drawn anew.
        restarts: of surrogate and local search, that evolution begins with; 0 begins with random networks.
        recombinations: children of local optima, half of them before evolution and half after, see `memetic`.
        seed: of everything random.
    """

    population: int = 128
    generations: int = 120
    patience: int = 20
    tournament: int = 3
    mutate: float = 0.2
    restarts: int = 10
    recombinations: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        for one in fields(self):  # numbers of numpy become Python's, which JSON has
            number = operator.index if isinstance(one.default, int) else float
            object.__setattr__(self, one.name, number(getattr(self, one.name)))
        least = {"population": 4, "generations": 1, "patience": 1, "tournament": 1, "restarts": 0, "recombinations": 0}
        if few := [f"{name} of at least {number}" for name, number in least.items() if getattr(self, name) < number]:
            raise OfaDeployError(f"a search needs {' and '.join(few)}")
        if not 0 < self.mutate <= 1:
            raise OfaDeployError(f"the mutation probability must be in (0, 1], not {self.mutate}")


class Archive:
    """Every architecture that a search has evaluated, each once.

    Args:
        score: what is maximised.
        limits: that a network must keep.
        columns: of the genes.
    """

    def __init__(self, score: Score, limits: Sequence[Limit], columns: int) -> None:
        self.score, self.limits = score, limits
        self._numbers: dict[bytes, int] = {}
        self._genes, self._scores, self._over = np.zeros((1024, columns), np.int16), np.zeros(1024), np.zeros(1024)
        self._costs = np.zeros((1024, len(limits)))
        self._front, self._fronted = np.zeros(0, np.intp), 0  # the front of so many
        self.size = 0

    def add(self, genes: Genes) -> Ints:
        """Evaluate those of the architectures that are new; returns the numbers of all, shape (n,).

        New ones have the next numbers, in order.
        """
        rows = np.ascontiguousarray(genes, np.int16)
        keys = rows.view(f"V{rows.itemsize * rows.shape[1]}")[:, 0].tolist()
        numbers: list[int] = []
        fresh: list[int] = []
        for i, key in enumerate(keys):
            number = self._numbers.setdefault(key, self.size)
            numbers.append(number)
            if number == self.size:
                fresh.append(i)
                self.size += 1
        while len(self._genes) < self.size:
            self._genes, self._scores, self._over, self._costs = (
                np.concatenate([a, np.zeros_like(a)]) for a in (self._genes, self._scores, self._over, self._costs)
            )
        if fresh:
            new = rows[fresh]
            start = self.size - len(fresh)
            self._genes[start : self.size] = new
            for i, limit in enumerate(self.limits):
                self._costs[start : self.size, i] = limit.cost(new)
            self._over[start : self.size] = outside(self.limits, self._costs[start : self.size])
            self._scores[start : self.size] = self.score(new)
        return np.array(numbers, np.intp)

    @property
    def genes(self) -> Genes:
        """Shape (size, columns)."""
        return self._genes[: self.size]

    @property
    def scores(self) -> Floats:
        """Shape (size,)."""
        return self._scores[: self.size]

    @property
    def over(self) -> Floats:
        """How far each is outside of the limits, shape (size,); 0 within."""
        return self._over[: self.size]

    @property
    def costs(self) -> Floats:
        """What each costs by each limit, shape (size, limits)."""
        return self._costs[: self.size]

    @property
    def reached(self) -> float:
        """The score of the best architecture, see `best`; without sorting."""
        return float(self.scores[self.over == self.over.min()].max())

    def front(self) -> Ints:
        """Numbers of the front of score against the first limit's cost, of those within the limits; cheapest first."""
        fresh = self._fronted + np.flatnonzero(self.over[self._fronted :] == 0)
        among = np.sort(np.concatenate([self._front, fresh]))
        self._front, self._fronted = among[front_of(self.scores[among], self.costs[among, 0])], self.size
        return self._front

    def best(self, number: int) -> list[int]:
        """Numbers of the best architectures, best first: those within the limits by score, then the closest ones."""
        among = np.flatnonzero(self.over == 0)
        if len(among) > number:
            least = np.partition(self.scores[among], -number)[-number]
            among = among[self.scores[among] >= least]
        else:
            among = np.arange(self.size)
        order = np.lexsort((-self.scores[among], self.over[among]))[:number]
        numbers: list[int] = among[order].tolist()
        return numbers


class _Fitness(base.Fitness):  # type: ignore[misc]
    """DEAP's, without what its comparisons and its checks of values take for each of some 100,000 individuals."""

    def __init__(self, values: Sequence[float] = ()) -> None:
        self.wvalues = tuple(map(operator.mul, values, self.weights))

    def __gt__(self, other: _Fitness) -> bool:
        return bool(self.wvalues > other.wvalues)


class Single(_Fitness):
    """Compared in order: first how little it is outside of the limits, then the score."""

    weights = (-1.0, 1.0)


class _Pair(_Fitness):
    """Score and cost, for fronts."""

    weights = (1.0, -1.0)


class Individual:
    """An evaluated architecture: its number in the archive, and its fitness."""

    __slots__ = ("fitness", "number")

    def __init__(self, number: int, fitness: base.Fitness) -> None:
        self.number = number
        self.fitness = fitness


def evolve(
    space: SearchSpace, archive: Archive, limits: Sequence[Limit], settings: SearchSettings, start: Genes
) -> list[float]:
    """Search for the architecture of the highest score within limits.

    Args:
        space: the search space.
        archive: receives all that is evaluated; the best of it is the answer.
        limits: those of the archive.
        settings: how.
        start: genes of the first generation, filled up with random networks.

    Returns:
        the best score after each generation.
    """

    def individuals(numbers: Sequence[int]) -> list[Individual]:
        pairs = zip(numbers, archive.over[numbers].tolist(), archive.scores[numbers].tolist(), strict=True)
        return [Individual(number, Single(values)) for number, *values in pairs]

    toolbox = base.Toolbox()
    variation = Variation(
        space, allowed_resolutions(space, limits), settings.mutate, np.random.default_rng(settings.seed)
    )
    toolbox.register("vary", variation.children)
    toolbox.register("select", tools.selTournament, tournsize=settings.tournament)
    toolbox.register("survive", tools.selBest)
    toolbox.register("individuals", individuals)
    toolbox.register("reached", lambda: archive.reached)
    return _generations(toolbox, variation, archive, settings, start)


def evolve_front(
    space: SearchSpace,
    archive: Archive,
    limits: Sequence[Limit],
    worst: tuple[float, float],
    settings: SearchSettings,
    start: Genes,
) -> list[float]:
    """NSGA-II (doi 10.1109/4235.996017): networks for which no other has a higher score and a lower cost, by the first
    limit.

    Args:
        space: the search space.
        archive: see `evolve`; its front is the answer, see `front.front_of`.
        limits: those of the archive.
        worst: score and cost of the hypervolume's reference point.
        settings: how.
        start: see `evolve`.

    Returns:
        the hypervolume after each generation.
    """

    def individuals(numbers: Sequence[int]) -> list[Individual]:
        over, costs = archive.over[numbers], archive.costs[numbers, 0]
        worst = 1e6 * (1 + over)  # dominated by everything within the limits, and by what is less outside
        scores = np.where(over > 0, -worst, archive.scores[numbers])
        pairs = zip(numbers, scores.tolist(), np.where(over > 0, worst, costs).tolist(), strict=True)
        return [Individual(number, _Pair(values)) for number, *values in pairs]

    def crowded(population: list[Individual], number: int) -> list[Individual]:
        fours = len(population) // 4 * 4  # what the operator wants
        out: list[Individual] = [] if fours else tools.selRandom(population, number)
        while len(out) < number:
            out += tools.selTournamentDCD(population, fours)
        return out[:number]

    toolbox = base.Toolbox()
    variation = Variation(
        space, allowed_resolutions(space, limits), FRONT_RATE * settings.mutate, np.random.default_rng(settings.seed)
    )
    toolbox.register("vary", variation.children)
    toolbox.register("select", crowded)

    def reached() -> float:
        front = archive.front()
        return hypervolume(archive.scores[front], archive.costs[front, 0], *worst)

    toolbox.register("survive", tools.selNSGA2, nd="log")
    toolbox.register("individuals", individuals)
    toolbox.register("reached", reached)
    return _generations(toolbox, variation, archive, settings, start)


def _generations(
    toolbox: base.Toolbox, variation: Variation, archive: Archive, settings: SearchSettings, start: Genes
) -> list[float]:
    """The loop of both: vary selected parents, evaluate, let the best survive."""
    history: list[float] = []
    random_ones = variation.random(max(settings.population - len(start), settings.population // 4))
    began = told = time.perf_counter()
    with fenced_random(settings.seed):
        first = np.unique(np.concatenate([start, random_ones]), axis=0)
        population = toolbox.survive(toolbox.individuals(archive.add(first).tolist()), settings.population)
        waited = 0
        for generation in range(settings.generations):
            children: list[Individual] = []
            for _ in range(10):  # where most children are known already, try a few more
                wanted = settings.population - len(children)
                parents = [p.number for p in toolbox.select(population, 2 * wanted)]
                genes, known = archive.genes[parents], archive.size
                archive.add(toolbox.vary(genes[::2], genes[1::2]))
                children += toolbox.individuals(list(range(known, archive.size)))
                if len(children) >= settings.population:
                    break
            population = toolbox.survive(population + children, settings.population)
            reached = toolbox.reached()
            waited = 0 if not history or reached > history[-1] * (1 + LEAST) else waited + 1
            history.append(reached)
            if waited >= settings.patience or not children:
                break
            if (now := time.perf_counter()) - told > SECONDS_BETWEEN_LINES:
                told = now
                logger.info(
                    f"generation {generation + 1} of at most {settings.generations}: reached {history[-1]:.5g}, "
                    f"{archive.size / (now - began):.0f} networks/s"
                )
    return history


def allowed_resolutions(space: SearchSpace, limits: Sequence[Limit]) -> list[int]:
    """Indices of the resolutions that every cost covers."""
    known = np.all([np.isfinite(limit.cost.fixed) for limit in limits], axis=0)
    return [i for i in range(len(space.resolutions)) if not limits or known[i]]


@contextmanager
def fenced_random(seed: int) -> Iterator[None]:
    """DEAP's operators draw from Python's global generator: seed it inside, give the caller's state back after."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
