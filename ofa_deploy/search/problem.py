"""What a search is about: what is maximised, over which space, within which limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ofa_deploy.accuracy.predictors import AccuracyPredictor, TellsGains
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.search.feasibility import check_feasible
from ofa_deploy.search.limits import Limit, excess
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace

Gains = Callable[[Genes], Floats]
"""From n networks to what each of the m changes of `SearchSpace.changes` is expected to gain, shape (n, m); the numbers
of changes that a network cannot have are not looked at."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a search maximises, over which space, within which limits.

    Attributes:
        space: the search space.
        limits: that a network must keep; a front is against the cost of the first.
        predictor: of accuracy, which is maximised; without one, the multiply-accumulates are.

    Raises:
        OfaDeployError: the predictor is of another space.
    """

    space: SearchSpace
    limits: Sequence[Limit] = ()
    predictor: AccuracyPredictor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(self.limits))
        if self.predictor is not None and self.predictor.space != self.space:
            raise OfaDeployError(
                f"the search is in {self.space.name}, the predictor of {self.predictor.space.name}; choose one space"
            )

    @property
    def objective(self) -> str:
        """What is maximised: `accuracy` or `macs`."""
        return "macs" if self.predictor is None else "accuracy"

    def score(self, genes: Genes) -> Floats:
        """What is maximised: top-1 in percent, or millions of multiply-accumulates, shape (n,)."""
        return self.space.macs(genes) / 1e6 if self.predictor is None else self.predictor.predict(genes)

    @property
    def gains(self) -> Gains | None:
        """What tells which changes of a network are worth evaluating; None where the predictor tells none."""
        return self.predictor.gains if isinstance(self.predictor, TellsGains) else None

    def excess(self, genes: Genes) -> Floats:
        """By what share of its limits each network is outside of them, added up, shape (n,); 0 within all."""
        return excess(self.limits, genes)

    @cached_property
    def allowed_resolutions(self) -> tuple[int, ...]:
        """Indices of the resolutions that the costs of all limits cover."""
        covered = [np.isfinite(limit.cost.fixed) for limit in self.limits]
        return tuple(i for i in range(len(self.space.resolutions)) if all(finite[i] for finite in covered))

    @property
    def reference(self) -> tuple[float, float]:
        """Reference point of a front's hypervolume.

        The score of the cheapest network by the first limit's cost, and the most that a network within that limit can
        cost by it.
        """
        first = self.limits[0]
        cheapest, _ = extreme(self.space, first.cost)
        _, most = extreme(self.space, first.cost, dearest=True)
        return float(self.score(cheapest)[0]), min(first.allowed, most)

    def check_feasible(self) -> None:
        """Refuse limits that no network keeps, as far as that can be proved before a search.

        Raises:
            InfeasibleError: naming the network that comes closest, and what to allow.
        """
        check_feasible(self.space, self.limits)
