"""Evolutionary search with DEAP: the best architecture whose latency is within a budget.

Whole populations are evaluated by one call on a genes matrix. Genes are canonical (inactive slots are 0), each
architecture is evaluated once, and infeasible ones rank below feasible ones by how far they overshoot (Deb's rules,
doi 10.1016/S0045-7825(99)00389-8), so that good neighbours of the border stay useful.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from deap import base, tools

from ofa_deploy import artifacts
from ofa_deploy.arch import Arch
from ofa_deploy.costs import AdditiveCost, Floats, Genes
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.knapsack import extreme
from ofa_deploy.space import SearchSpace

Score = Callable[[Genes], Floats]
"""From genes, shape (n, columns), to what is maximised, shape (n,)."""


@dataclass(frozen=True)
class Settings:
    """How evolution runs.

    Attributes:
        population: architectures kept from one generation to the next.
        generations: at most.
        patience: generations without a better architecture before it ends.
        tournament: contestants for a place as a parent.
        mutate: probability that a stage's depth, a block or the resolution of a child is drawn anew.
        seed: of everything random.
    """

    population: int = 128
    generations: int = 120
    patience: int = 40
    tournament: int = 3
    mutate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.population < 4 or self.generations < 1 or self.patience < 1 or self.tournament < 1:
            raise OfaDeployError(
                "a search needs a population of at least 4, one generation, patience and tournament of 1"
            )
        if not 0 < self.mutate <= 1:
            raise OfaDeployError(f"the mutation probability must be in (0, 1], not {self.mutate}")


@dataclass(frozen=True)
class SearchResult:
    """The architecture that a search chose, and what it takes to run the search again.

    Attributes:
        space: name of the search space.
        arch: the chosen architecture.
        objective: what was maximised.
        score: its predicted value (`top1_percent` where the objective is accuracy, otherwise millions of MACs).
        score_std: standard deviation of the prediction; None where there is none.
        latency_ms: its predicted latency.
        budget_ms: the budget.
        margin_percent: by how much predictions were raised for the comparison with the budget.
        macs: its multiply-accumulates.
        params: its learned numbers.
        evaluations: distinct architectures evaluated.
        history: for each generation: best score and its latency so far.
        settings: of the evolution, the seed included.
        inputs: checksums and labels of table and predictor.
        message: the outcome in words.
    """

    space: str
    arch: Arch
    objective: str
    score: float
    score_std: float | None
    latency_ms: float
    budget_ms: float
    margin_percent: float
    macs: int
    params: int
    evaluations: int
    history: tuple[tuple[float, float], ...]
    settings: Settings
    inputs: dict[str, Any]
    message: str = ""

    def predicted(self) -> dict[str, Any]:
        """What a model card says was predicted."""
        accuracy = {"top1_percent": self.score, "top1_std": self.score_std} if self.objective == "accuracy" else {}
        return {**accuracy, "latency_ms": self.latency_ms, "budget_ms": self.budget_ms, "table": self.inputs["table"]}

    def to_json(self) -> str:
        """The result as JSON text."""
        about = {"schema": artifacts.SCHEMA, "kind": "search-result", **asdict(self), "arch": str(self.arch)}
        return artifacts.dumps(about | {"made_with": artifacts.made_with()})


def evolve(
    space: SearchSpace, score: Score, latency: AdditiveCost, budget_ms: float, settings: Settings
) -> tuple[Genes, list[tuple[float, float]], int]:
    """Search for the architecture of the highest score within a latency budget.

    Args:
        space: the search space.
        score: what is maximised.
        latency: cost of architectures in ms; resolutions that cost NaN are not searched.
        budget_ms: the limit.
        settings: how.

    Returns:
        genes of the best feasible architecture, shape (1, columns); (best score, its latency) after each
        generation; how many distinct architectures were evaluated.

    Raises:
        InfeasibleError: even the fastest network is over the budget; the message names it.
    """
    fastest, fastest_ms = extreme(space, latency)
    budget_ms *= 1 + 1e-9  # sums of one network's costs in another order differ in their last digits
    if fastest_ms > budget_ms:
        unit = 10 ** (math.floor(math.log10(fastest_ms)) - 3)
        raise InfeasibleError(
            f"no network of {space.name} fits {budget_ms:.4g} ms: the fastest, {space.archs(fastest)[0]}, "
            f"needs {math.ceil(fastest_ms / unit) * unit:.4g} ms; allow at least that"
        )
    rng = np.random.default_rng(settings.seed)
    allowed = [space.resolutions[i] for i in np.flatnonzero(np.isfinite(latency.fixed))]
    seen: set[tuple[int, ...]] = set()

    def evaluate(rows: list[_Individual]) -> list[_Individual]:
        if rows:
            genes = np.array(rows, np.int16)
            over = np.maximum(latency(genes) / budget_ms - 1, 0)
            for row, value, excess in zip(rows, score(genes).tolist(), over.tolist(), strict=True):
                row.fitness.values = (0.0, value) if excess == 0 else (-excess, value)
        return rows

    toolbox = base.Toolbox()
    toolbox.register("mate", _mate, space=space, rng=rng)
    toolbox.register("mutate", _mutate, space=space, rng=rng, rate=settings.mutate, allowed=allowed)
    toolbox.register("select", tools.selTournament, tournsize=settings.tournament)

    start = [fastest, space.sample(rng, settings.population - 1, allowed)]
    history: list[tuple[float, float]] = []
    with _fenced_random(settings.seed):
        population = evaluate([_Individual(row) for row in _new(np.concatenate(start).tolist(), seen)])
        waited = 0
        for _ in range(settings.generations):
            children: list[list[int]] = []
            for _ in range(10):  # where most children are known already, try a few more
                parents = toolbox.select(population, 2 * (settings.population - len(children)))
                pairs = zip(parents[::2], parents[1::2], strict=True)
                children += _new([toolbox.mutate(toolbox.mate(a, b)) for a, b in pairs], seen)
                if len(children) >= settings.population:
                    break
            population = tools.selBest(population + evaluate([_Individual(c) for c in children]), settings.population)
            best = population[0]
            history.append((best.fitness.values[1], float(latency(np.array([best], np.int16))[0])))
            waited = 0 if len(history) < 2 or history[-1][0] > history[-2][0] else waited + 1
            if waited >= settings.patience or not children:
                break
    return np.array([population[0]], np.int16), history, len(seen)


class _Fitness(base.Fitness):  # type: ignore[misc]
    """Compared in order: no overshoot of the budget first, then the score."""

    weights = (1.0, 1.0)


class _Individual(list[int]):
    """Genes of one architecture with their fitness."""

    def __init__(self, genes: list[int]) -> None:
        super().__init__(genes)
        self.fitness = _Fitness()


def _new(rows: list[list[int]], seen: set[tuple[int, ...]]) -> list[list[int]]:
    """The rows not seen before, each once; they are seen from now on."""
    found = []
    for row in rows:
        key = tuple(row)
        if key not in seen:
            seen.add(key)
            found.append(row)
    return found


def _mate(a: list[int], b: list[int], space: SearchSpace, rng: np.random.Generator) -> list[int]:
    """A child: resolution, each stage's depth, each block and each width from either parent."""
    pick = rng.random(2 * len(a)) < 0.5
    child = [x if first else y for x, y, first in zip(a, b, pick, strict=False)]
    for stage, columns in enumerate(space.stage_columns):
        shape = a if pick[len(a) + stage] else b
        for i in range(columns.start, columns.stop):
            child[i] = (child[i] or a[i] or b[i]) if shape[i] else 0
    return child


def _mutate(
    child: list[int], space: SearchSpace, rng: np.random.Generator, rate: float, allowed: list[int]
) -> list[int]:
    """Draw the resolution, stages' depths, blocks and widths anew, each with probability `rate`."""
    hit = rng.random(len(child) + len(space.stages)) < rate
    fresh = rng.random(len(child)).tolist()
    if hit[0]:
        child[0] = space.resolutions.index(int(rng.choice(allowed)))
    for number, (stage, columns) in enumerate(zip(space.stages, space.stage_columns, strict=True)):
        depth = sum(1 for g in child[columns] if g)
        if hit[len(child) + number]:
            depth = int(rng.choice(stage.depths))
        for i in range(columns.start, columns.stop):
            if i - columns.start >= depth:
                child[i] = 0
            elif hit[i] or not child[i]:
                child[i] = 1 + int(fresh[i] * len(stage.choices))
    for i, choices in enumerate(space.widths, 1 + len(space.slots)):
        if hit[i]:
            child[i] = int(fresh[i] * len(choices))
    return child


@contextmanager
def _fenced_random(seed: int) -> Iterator[None]:
    """DEAP's operators draw from Python's global generator: seed it inside, give the caller's state back after."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
