"""The best prediction of a `concave` predictor within additive limits, as a mixed-integer linear program.

At one resolution every input of the predictor, and every additive cost, is a sum over the choices of an architecture.
With a binary for each choice, the predictor is a linear function of the binaries minus its units, each the least number
that is neither below 0 nor below another linear function. HiGHS solves it (Huangfu and Hall,
doi 10.1007/s12532-017-0130-5), by way of scipy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.accuracy.predictors.concave import ConcaveModel
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.search.problem import Problem
from ofa_deploy.spaces.costs import AdditiveCost, Floats, Genes, Ints
from ofa_deploy.spaces.encoding import code_columns, features, layout_of
from ofa_deploy.spaces.extremes import extreme, parts_of
from ofa_deploy.spaces.space import SearchSpace

_SOLVER = 1e-4
"""Points that the solver's tolerances may be worth: 1e-6 a row, 1e-7 a reduced cost."""
_ROUNDING = 1.5e-6
"""Largest relative error of a cost that the predictor reads as a logarithm of 32 bits."""
_STEP = 0.05
"""Points below its bound in which the best network of a resolution is looked for at first."""

_Row = dict[int, float]


@dataclass(frozen=True)
class Binaries:
    """The binaries of a space: a choice at a place, or a part's depth and widths.

    Attributes:
        place: index of the cost's place, -1 for a part's depth and widths; shape (n,), as the following.
        context: of the cost.
        choice: of the cost.
        gene: column of the genes that it sets, -1 for none.
        one_hot: its codes among the features, shape (n, codes).
        equal: coefficients of the equations that make them an architecture, shape (rows, n).
        right: the equations' right-hand sides, shape (rows,).
    """

    place: Ints
    context: Ints
    choice: Ints
    gene: Ints
    one_hot: Floats
    equal: Floats
    right: Floats

    def costs(self, cost: AdditiveCost, resolution: int) -> Floats:
        """What each binary costs, shape (n,)."""
        return np.where(self.place < 0, 0.0, cost.blocks[resolution, self.place, self.context, self.choice])


def binaries(space: SearchSpace) -> Binaries:
    """The binaries of a space.

    One unit flows from width to width through the parts, by one of the depths of each; where it passes a place, it
    takes one of the choices. These equations alone have integer vertices.
    """
    about: list[tuple[int, int, int, int]] = []
    ones: list[list[int]] = []
    rows: list[tuple[_Row, float]] = []
    arriving: list[_Row] = [{}]
    for part in parts_of(space, space.macs):
        at, widths = part.places.start, len(part.ways)
        column, width_in, width_out, _ = space.macs.places[at]
        ways = sorted((i, o) for o, followed in enumerate(part.ways) for i, _, _ in followed)
        leaving: list[_Row] = [{} for _ in arriving]
        after: list[_Row] = [{} for _ in range(widths)]
        passing: dict[tuple[int, int], _Row] = {}
        for (way_in, way_out), depth in ((way, depth) for way in ways for depth in part.depths):
            n, sets = len(about), width_out >= 0 and width_in != width_out
            about.append((-1, 0, way_out, width_out if sets else -1))
            ones.append(code_columns(space, width_out)[way_out] if sets else [])
            leaving[way_in][n], after[way_out][n] = 1.0, -1.0
            for position in range(depth):
                context = (way_out if position else way_in) * widths + way_out
                passing.setdefault((position, context), {})[n] = -1.0
        rows += [(came | go, 0.0 if came else 1.0) for came, go in zip(arriving, leaving, strict=True)]
        for (position, context), row in passing.items():
            gene = column + position if column >= 0 else -1
            for choice, codes in enumerate(code_columns(space, gene)[1:] if gene >= 0 else [[]], 1):
                row[len(about)] = 1.0
                about.append((at + position, context, choice, gene))
                ones.append(codes)
            rows.append((row, 0.0))
        arriving = after
    one_hot = np.zeros((len(about), layout_of(space).codes.stop))
    equal = np.zeros((len(rows), len(about)))
    for i, columns in enumerate(ones):
        one_hot[i, columns] = 1
    for i, (row, _) in enumerate(rows):
        equal[i, list(row)] = list(row.values())
    place, context_, choice_, gene_ = np.array(about, np.intp).T
    return Binaries(place, context_, choice_, gene_, one_hot, equal, np.array([right for _, right in rows]))


class Model:
    """A concave predictor as `level + slope x - drop relu(units x + offsets)`, in percent of unscaled features x.

    Attributes:
        margin: points that a bound must be raised by, for the rounding of features and the solver's tolerances.
    """

    def __init__(self, predictor: Predictor) -> None:
        (concave,) = predictor.models
        assert isinstance(concave, ConcaveModel)
        pieces = concave.pieces
        self.level, self.slope, self.units = pieces.level, pieces.slope, pieces.units
        self.offsets, self.drop = pieces.offsets, pieces.drop
        space = predictor.space
        steepest = (np.abs(self.slope) + np.abs(self.units) @ self.drop)[layout_of(space).costs]
        largest = [extreme(space, cost, dearest=True)[1] for cost in (space.macs, space.params)]
        self.margin = _SOLVER + _ROUNDING * float(steepest @ largest)


class Program:
    """The program of one resolution: minimise `cost y` for binaries and units y, `most` being the limits of `rows y`.

    Attributes:
        relaxation: prediction that its linear relaxation allows, in percent; -inf where nothing is within the limits.
        best: prediction that may still be reached there, in percent.
        solvable: False once the solver has given up for another reason than time, so that `best` stays.
    """

    def __init__(self, problem: Problem, of: Binaries, model: Model, resolution: int) -> None:
        space = problem.space
        self.space, self.of, self.resolution = space, of, resolution
        fixed = features(space, space.genes([space.extreme(True, space.resolutions[resolution])]))[0].astype(np.float64)
        layout = layout_of(space)
        fixed[layout.codes] = 0
        fixed[layout.costs] = space.macs.fixed[resolution], space.params.fixed[resolution]
        zeros = np.zeros((len(of.place), 2))
        costs = np.stack([of.costs(cost, resolution) for cost in (space.macs, space.params)], axis=1)
        x = np.concatenate([of.one_hot, zeros, costs], axis=1)
        units = len(model.drop)
        rows, most = [], []
        for limit in problem.limits:
            (cost,) = limit.cost.sums  # `certify` refuses others
            each, rest = of.costs(cost, resolution), cost.fixed[resolution]
            scale = np.abs(each).max() or 1.0
            for sign, end in ((1, limit.allowed), (-1, -limit.required)):
                if end < np.inf:
                    rows.append(np.append(sign * each / scale, np.zeros(units)))
                    most.append((end + 1e-9 * abs(end) - sign * rest) / scale)
        self.level = model.level + float(fixed @ model.slope)
        self.cost = np.append(-x @ model.slope, model.drop)
        self.rows = np.array([*np.append((x @ model.units).T, -np.eye(units), axis=1), *rows])
        self.most = np.append(-model.offsets - fixed @ model.units, most)
        self.equal = np.append(of.equal, np.zeros((len(of.equal), units)), axis=1)
        self.margin, self.step = model.margin, _STEP
        self.relaxation, self.reduced = self._relax()
        self.best, self.solvable = self.relaxation, True

    def _relax(self) -> tuple[float, Floats]:
        """The linear relaxation's bound, and how much of it each binary costs at least."""
        from scipy.optimize import linprog

        done = linprog(self.cost, self.rows, self.most, self.equal, self.of.right, method="highs")
        if done.status == 2:
            return -math.inf, np.zeros(len(self.of.place))
        if done.status != 0 or done.fun is None:
            where = f"{self.space.name} at {self.space.resolutions[self.resolution]} pixels"
            raise OfaDeployError(
                f"HiGHS could not solve the linear relaxation of {where} ({done.message}); search without a proof"
            )
        return self.level - done.fun, done.lower.marginals[: len(self.of.place)]

    def improve(self, found: float, seconds: float) -> Genes | None:
        """Look for a network that is predicted better than `found`, and lower `best` to what is left.

        Where nothing near the bound is known yet, only networks within a step of it are looked for, a larger step the
        next time: binaries that cost more of the bound than that are left out.

        Args:
            found: prediction already reached, in percent; below `best`.
            seconds: of wall time, at most.

        Returns:
            genes of the network, shape (1, columns), which is not found again; it may overstep a limit by a rounding
            error. None where there is none, the time ran out, or the solver gave up.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        target = max(found, self.best - self.step if self.step < 100 else -math.inf)
        n = len(self.of.place)
        kept = np.append(self.reduced <= self.relaxation - target + self.margin, np.ones(len(self.cost) - n, bool))
        constraints = [
            LinearConstraint(self.rows[:, kept], -np.inf, self.most),
            LinearConstraint(self.equal[:, kept], self.of.right, self.of.right),
            LinearConstraint(self.cost[None, kept], -np.inf, self.level - target),
        ]
        done = milp(
            self.cost[kept],
            integrality=(np.arange(len(self.cost)) < n)[kept],
            bounds=Bounds(0, np.where(np.arange(len(self.cost)) < n, 1, np.inf)[kept]),
            constraints=constraints,
            options={"time_limit": seconds, "mip_rel_gap": 1e-6},
        )
        if done.status == 2:
            self.best, self.step = target, 4 * self.step
            return None
        if done.mip_dual_bound is not None and math.isfinite(done.mip_dual_bound):
            self.best = min(self.best, max(target, self.level - done.mip_dual_bound))
        if done.x is None:
            self.solvable = done.status == 1
            return None
        chosen = np.zeros(len(self.cost), bool)
        chosen[kept] = done.x > 0.5
        self._leave_out(chosen[:n])
        return self._genes(chosen[:n])

    def _leave_out(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Forbid these binaries together."""
        row = np.zeros(len(self.cost))
        row[: len(chosen)] = chosen
        self.rows, self.most = np.append(self.rows, row[None], axis=0), np.append(self.most, chosen.sum() - 1)

    def _genes(self, chosen: npt.NDArray[np.bool_]) -> Genes:
        genes = np.zeros((1, self.space.columns), np.int16)
        genes[0, 0] = self.resolution
        sets = chosen & (self.of.gene >= 0)
        genes[0, self.of.gene[sets]] = self.of.choice[sets]
        return genes
