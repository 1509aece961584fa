"""A network's latency as a sum over its operators, fitted to measured networks.

An operator adds a term that grows with its work and a term for its call; the network as such adds a constant. All are
non-negative. Few measured networks determine how much the work and the calls of all operators take in common. Many
also determine what is particular to the shape of an operator: a penalty draws the two terms of each shape to the common
ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.operator_features import OperatorFeatures
from ofa_deploy.spaces.costs import Floats

PENALTIES = (1e2, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Weights of the penalty on what is particular to a shape, for each measured network; cross-validation chooses."""
OUTLIER = 3e-3
"""Relative errors above this share count less than squared."""
REWEIGHTINGS = 8
"""Solutions of the reweighted least squares."""
MANY = 100
"""Networks from which on each kind of operator has a common term for its call, and not all kinds together."""
TINY = 1e-3
"""The least share of a latency that the common terms of one kind are taken to have before shapes are looked at."""


@dataclass(frozen=True)
class SumTerms:
    """A fitted sum.

    Attributes:
        computing: of each operator, in ms, shape (operators,).
        computing_constant: of a network as such, in ms.
    """

    computing: Floats
    computing_constant: float

    def predict(self, counts: Floats) -> Floats:
        """Latency of networks in ms, from how often they have each operator, shape (networks, operators)."""
        return np.asarray(counts @ self.computing + self.computing_constant)


def fit_sum(features: OperatorFeatures, counts: Floats, latency_ms: Floats, *, penalty: float) -> SumTerms:
    """The sum with the least relative errors on some networks.

    Args:
        features: of the operators.
        counts: how often each network has each operator, shape (networks, operators).
        latency_ms: of the networks, shape (networks,).
        penalty: weight, for each network, of the squared distance between a shape's factors and the common ones.

    Raises:
        MeasureError: the least squares do not converge.
    """
    networks, sources = len(counts), len(features.work)
    calls = counts @ features.shapes
    kinds = features.kinds if networks >= MANY else np.ones((len(features.kinds), 1))
    common = np.concatenate([counts @ features.work.T, calls @ kinds, np.ones((networks, 1))], axis=1)
    size = common.mean(axis=0)
    coefficients = _least_squares(common / size, latency_ms) / size
    work_ms = coefficients[:sources] @ features.work  # of each operator
    least_ms = TINY * latency_ms.mean()
    common_call_ms = kinds @ coefficients[sources:-1]  # of each shape
    call_ms = np.maximum(common_call_ms, least_ms / calls.sum(axis=1).mean())
    constant_ms = max(coefficients[-1], least_ms)

    constants = np.full((networks, 1), constant_ms)
    columns = np.concatenate([(counts * work_ms) @ features.shapes, calls * call_ms, constants], axis=1)
    number = len(call_ms)
    target = np.concatenate([np.ones(number), common_call_ms / call_ms, [coefficients[-1] / constant_ms]])
    pull = math.sqrt(penalty * networks)
    factors = _least_squares(columns, latency_ms, pull * np.eye(len(target)), pull * target)
    calls_ms = features.shapes @ (call_ms * factors[number:-1])
    return SumTerms(work_ms * (features.shapes @ factors[:number]) + calls_ms, constant_ms * factors[-1])


def _least_squares(
    columns: Floats, latency_ms: Floats, penalty_rows: Floats | None = None, penalty_target: Floats | None = None
) -> Floats:
    """Non-negative coefficients with the least relative errors, outliers damped.

    They minimise the pseudo-Huber loss, the sum over networks of `sqrt(1 + (e / OUTLIER)^2)` for the relative error e,
    by iteratively reweighted least squares: each squared error is weighted by `(1 + (e / OUTLIER)^2)^(-1/2)` of the
    solution before (Holland and Welsch, Communications in Statistics A6, 1977). Each is solved by active sets (Lawson
    and Hanson, Solving Least Squares Problems, 1974, chapter 23).

    Args:
        columns: of the networks, shape (networks, coefficients).
        latency_ms: shape (networks,).
        penalty_rows: more rows, which are not reweighted, shape (rows, coefficients).
        penalty_target: what those rows aim at, shape (rows,).
    """
    from scipy.optimize import nnls

    root_weight = np.ones(len(latency_ms))
    coefficients = np.zeros(columns.shape[1])
    for _ in range(REWEIGHTINGS):
        left, right = columns * (root_weight / latency_ms)[:, None], root_weight
        if penalty_rows is not None and penalty_target is not None:
            left, right = np.concatenate([left, penalty_rows]), np.concatenate([right, penalty_target])
        try:
            coefficients, _ = nnls(left, right, maxiter=50 * columns.shape[1])
        except RuntimeError as error:
            raise MeasureError("these latencies cannot be fitted: the least squares do not converge") from error
        root_weight = (1 + ((columns @ coefficients / latency_ms - 1) / OUTLIER) ** 2) ** -0.25
    return coefficients
