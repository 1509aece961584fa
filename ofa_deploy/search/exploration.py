"""What a search looked at, and what is made of it: the best candidates, a result, the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.archive import Archive
from ofa_deploy.search.feasibility import none_within
from ofa_deploy.search.front import hypervolume
from ofa_deploy.search.limits import Limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import FrontPoint
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping

RISK = 0.5
"""Standard deviations that are taken off predictions by default."""
MOST_RISK = 10
"""Standard deviations that can be taken off at most."""
POOL = 256
"""Networks of the highest predictions, which are compared by prediction less standard deviations."""


@dataclass(frozen=True)
class Exploration:
    """What a search looked at.

    Attributes:
        archive: all architectures that it evaluated, and the problem.
        settings: of the search.
        stopping: when it was to end.
        evaluations: architectures that it evaluated; others may be added to the archive afterwards.
        history: best score, or a front's hypervolume, after each generation.
        stopped_by: what ended it: a key of `stopping.RULES`, or `EXHAUSTED`.
    """

    archive: Archive
    settings: SearchSettings
    stopping: Stopping
    evaluations: int
    history: tuple[float, ...]
    stopped_by: str

    @property
    def problem(self) -> Problem:
        """Of the search."""
        return self.archive.problem


def check_risk(risk: float) -> None:
    """Refuse a number of standard deviations that is none.

    Raises:
        OfaDeployError: naming what it may be.
    """
    if not 0 <= risk <= MOST_RISK:
        raise OfaDeployError(f"--risk must be between 0 and {MOST_RISK} standard deviations, not {risk}")


def none_found(exploration: Exploration) -> InfeasibleError:
    """What to say where a search came across no network within the limits."""
    problem, archive = exploration.problem, exploration.archive
    return none_within(problem.space, problem.limits, archive.genes[archive.best(1)], "was found")


def candidates(exploration: Exploration, risk: float, number: int) -> list[int]:
    """Numbers of the best networks within the limits, by prediction less `risk` standard deviations."""
    archive, predictor = exploration.archive, exploration.problem.predictor
    pool = [i for i in archive.best(max(POOL, number)) if archive.excess[i] == 0]
    if predictor is None or not risk or not pool:
        return pool[:number]
    mean, std = predictor.predict(archive.genes[pool], return_std=True)
    order = np.argsort(-(mean - risk * np.nan_to_num(std)), kind="stable")
    return [pool[i] for i in order[:number]]


def result_of(exploration: Exploration, number: int, risk: float, inputs: Mapping[str, Any]) -> SearchResult:
    """The result that a network is.

    Args:
        exploration: that came across the network.
        number: of the network in the archive.
        risk: standard deviations that were taken off predictions.
        inputs: to be recorded in the result.
    """
    archive, problem = exploration.archive, exploration.problem
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
        evaluations=exploration.evaluations,
        history=tuple(round(reached, 4) for reached in exploration.history),
        settings=exploration.settings,
        inputs=dict(inputs),
        stopping=exploration.stopping,
        stopped_by=exploration.stopped_by,
        message="; ".join(f"{limit.name} {limit.in_words}" for limit in outcomes),
    )


def with_front(result: SearchResult, exploration: Exploration) -> SearchResult:
    """The result with the front of its archive, against the first limit's cost."""
    archive, problem = exploration.archive, exploration.problem
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
    volume = hypervolume(archive.scores[numbers], problem.limits[0].cost(genes), *problem.reference)
    return replace(result, front=points, hypervolume=round(volume, 5))


def _column(limits: Sequence[Limit]) -> str:
    """Name of the last limit's column; those after the first of a kind are numbered."""
    limit = limits[-1]
    unit = {"ms": "ms", "M": "millions", "MB": "mb"}[limit.unit]
    same = sum(other.name == limit.name for other in limits)
    return f"{limit.name}_{unit}" + (f"_{same}" if same > 1 else "")
