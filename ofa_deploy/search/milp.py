"""The best prediction of a `concave` predictor within additive limits, as a mixed-integer linear program.

At one resolution every feature, with the costs themselves instead of their logarithms, and every additive cost is a sum
over the choices of a network. With a binary variable for each choice, the predictor is a linear function of the
binaries minus its units, and each unit is the least number that is neither below 0 nor below another linear function.
HiGHS solves it (Huangfu and Hall, doi 10.1007/s12532-017-0130-5), by way of scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ofa_deploy.accuracy.predictors.concave import ConcaveModel, ConcavePieces
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.search.binaries import Binaries
from ofa_deploy.search.limits import Limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.encoding import features, layout_of
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

SOLVER_POINTS = 1e-4
"""Points that the solver's tolerances may be worth: 1e-6 a row, 1e-7 a reduced cost."""
ROUNDING = 1.5e-6
"""Largest relative error of a cost that the predictor reads as a logarithm of 32 bits."""
STEP_POINTS = 0.05
"""Below its bound, where the best network of a resolution is looked for at first."""
WIDEST_STEP_POINTS = 100
"""From which on no network is left out for being below the bound."""
INFEASIBLE, OUT_OF_TIME = 2, 1
"""Status numbers of scipy's solvers."""


@dataclass(frozen=True)
class Objective:
    """What programs maximise.

    Attributes:
        pieces: of the predictor.
        margin: points that a bound must be raised by, for the rounding of features and the solver's tolerances.
    """

    pieces: ConcavePieces
    margin: float

    @classmethod
    def of_predictor(cls, predictor: Predictor) -> Objective:
        """The objective that the mean of a concave predictor is."""
        (model,) = predictor.models
        assert isinstance(model, ConcaveModel)
        pieces, space = model.pieces, predictor.space
        steepest = (np.abs(pieces.slope) + np.abs(pieces.units) @ pieces.drop)[layout_of(space).costs]
        largest = [extreme(space, cost, dearest=True)[1] for cost in (space.macs, space.params)]
        return cls(pieces, SOLVER_POINTS + ROUNDING * float(steepest @ largest))


class Program:
    """The program of one resolution: minimise `cost y` over binaries and units y, with `rows y` at most `most`.

    Args:
        problem: whose limits a network must keep.
        variables: the binaries of its space.
        objective: of its predictor.
        resolution: index of the resolution.

    Attributes:
        relaxation: prediction that the linear relaxation allows, in percent; -inf where nothing is within the limits.
        best: prediction that may still be reached there, in percent.
        solvable: False once the solver has given up for another reason than time, so that `best` stays.
    """

    def __init__(self, problem: Problem, variables: Binaries, objective: Objective, resolution: int) -> None:
        self._space, self._variables, self._resolution = problem.space, variables, resolution
        self.margin, self._step = objective.margin, STEP_POINTS
        pieces, same = objective.pieces, _common_features(problem.space, resolution)
        x, units = _features(problem.space, variables, resolution), len(pieces.drop)
        limit_rows, limit_most = _limit_rows(problem.limits, variables, resolution, units)
        self._level = pieces.level + float(same @ pieces.slope)
        self._cost = np.append(-x @ pieces.slope, pieces.drop)
        self._rows = np.array([*np.append((x @ pieces.units).T, -np.eye(units), axis=1), *limit_rows])
        self._most = np.append(-pieces.offsets - same @ pieces.units, limit_most)
        equations = variables.equations
        self._equations = np.append(equations, np.zeros((len(equations), units)), axis=1)
        self._binary = np.arange(len(self._cost)) < len(variables.place)
        self.relaxation, self._reduced = self._relax()
        self.best, self.solvable = self.relaxation, True

    def _relax(self) -> tuple[float, Floats]:
        """The linear relaxation's bound, and how much of it each variable costs at least."""
        from scipy.optimize import linprog

        result = linprog(self._cost, self._rows, self._most, self._equations, self._variables.totals, method="highs")
        if result.status == INFEASIBLE:
            return -math.inf, np.zeros(len(self._cost))
        if result.status != 0 or result.fun is None:
            place = f"{self._space.name} at {self._space.resolutions[self._resolution]} pixels"
            raise OfaDeployError(
                f"HiGHS could not solve the linear relaxation of {place} ({result.message}); search without a proof"
            )
        return self._level - result.fun, np.where(self._binary, result.lower.marginals, -math.inf)

    def improve(self, reached: float, seconds: float) -> Genes | None:
        """Look for a network of a higher prediction than is reached, and lower `best` to what remains possible.

        While no network is near the bound, only networks within a step of it are looked for, and within a larger step
        the next time: variables that cost more of the bound than that are left out.

        Args:
            reached: prediction in percent, below `best`.
            seconds: of wall time, at most.

        Returns:
            genes of the network, shape (1, columns), which is not returned again; it may overstep a limit by a rounding
            error. None where there is none, the time ran out, or the solver gave up.
        """
        target = max(reached, self.best - self._step if self._step < WIDEST_STEP_POINTS else -math.inf)
        kept = self._reduced <= self.relaxation - target + self.margin
        result = self._solve(kept, target, seconds)
        if result.status == INFEASIBLE:
            self.best, self._step = target, 4 * self._step
            return None
        if result.mip_dual_bound is not None and math.isfinite(result.mip_dual_bound):
            self.best = min(self.best, max(target, self._level - result.mip_dual_bound))
        if result.x is None:
            self.solvable = result.status == OUT_OF_TIME
            return None
        ones = np.zeros(len(self._cost), bool)
        ones[kept] = result.x > 0.5
        ones &= self._binary
        self._rows = np.append(self._rows, ones[None].astype(float), axis=0)  # these are not all 1 once more
        self._most = np.append(self._most, ones.sum() - 1)
        return self._variables.genes(self._space, self._resolution, ones[self._binary])

    def _solve(self, kept: npt.NDArray[np.bool_], target: float, seconds: float) -> OptimizeResult:
        """The program with some of its variables, the others being 0, for predictions of at least `target`."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        totals = self._variables.totals
        return milp(
            self._cost[kept],
            integrality=self._binary[kept].astype(np.intp),
            bounds=Bounds(0, np.where(self._binary, 1, np.inf)[kept]),
            constraints=[
                LinearConstraint(self._rows[:, kept], -np.inf, self._most),
                LinearConstraint(self._equations[:, kept], totals, totals),
                LinearConstraint(self._cost[None, kept], -np.inf, self._level - target),
            ],
            options={"time_limit": seconds, "mip_rel_gap": 1e-6},
        )


def _common_features(space: SearchSpace, resolution: int) -> Floats:
    """What all networks of a resolution have in common of the features with linear costs, shape (f,)."""
    largest = space.genes([space.extreme(largest=True, resolution=space.resolutions[resolution])])
    layout = layout_of(space)
    common: Floats = features(space, largest)[0].astype(np.float64)
    common[layout.codes] = 0
    common[layout.costs] = space.macs.fixed[resolution], space.params.fixed[resolution]
    return common


def _features(space: SearchSpace, variables: Binaries, resolution: int) -> Floats:
    """What each variable adds to the features with linear costs, shape (n, f)."""
    costs = np.stack([variables.costs(cost, resolution) for cost in (space.macs, space.params)], axis=1)
    layout = layout_of(space)
    x = np.zeros((len(variables.place), layout.columns))
    x[:, layout.codes], x[:, layout.costs] = variables.one_hot, costs
    return x


def _limit_rows(
    limits: Sequence[Limit], variables: Binaries, resolution: int, units: int
) -> tuple[list[Floats], list[float]]:
    """Coefficients of variables and units for each end of a limit, shape (n + units,), and their largest sums."""
    rows, most = [], []
    for limit in limits:
        (cost,) = limit.cost.sums  # `certificates.check_provable` refuses others
        each, fixed = variables.costs(cost, resolution), cost.fixed[resolution]
        scale = np.abs(each).max() or 1.0
        for sign, end in ((1, limit.allowed), (-1, -limit.required)):
            if end < np.inf:
                rows.append(np.append(sign * each / scale, np.zeros(units)))
                most.append((end + 1e-9 * abs(end) - sign * fixed) / scale)
    return rows, most
