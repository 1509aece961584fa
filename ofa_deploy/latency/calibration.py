"""Calibrating a latency table by whole networks: what the latencies of its operators are worth inside of them.

A network's latency is modelled as

    scale * (sum of its operators' latencies) + per_op * (their number) + per_million * (their parameters) + constant
    + sum over its operators of a correction

The first line are the terms, fitted by least squares of the relative errors within bounds. The corrections are weighted
sums of the operators' traits, fitted by ridge regression to what the terms leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ofa_deploy.latency.cross_validation import Numbers, compared, cross_validated, errors
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.ops import Op

SCALE_LIMIT = 4.0
"""A table's scale is kept between 1/4 and 4: beyond, noise of very small networks was fitted."""
CONSTANT_FROM = 12
"""Whole networks from which on a calibration has a constant."""
TRAITS_FROM = 40
"""Whole networks from which on it may have corrections by traits."""
NO_TRAITS = math.inf
"""Penalty that leaves no weight to any trait."""
PENALTIES = (NO_TRAITS, 3.0, 1.0, 0.3)
"""Of the ridge regression on traits, for each network; cross-validation chooses from them."""
PAYS = 0.95
"""Traits are used where the error (RMS) of networks not seen is below this share of the error without them."""
NEAREST_CACHE = 12_000
"""Parameters of float32 that fit into a first cache of 48 KB."""
TERMS = 4
"""Scale, operators, parameters, constant."""


@dataclass(frozen=True)
class NetworkSums:
    """What some measured networks are, for a fit.

    Attributes:
        terms: sums over each network's operators of their latency in ms, of one, and of their parameters in millions;
            and whether there is a constant, as 1 or 0; shape (networks, 4).
        traits: sums over each network's operators of their traits, shape (networks, traits).
        measured_ms: latencies, shape (networks,).
    """

    terms: Floats
    traits: Floats
    measured_ms: Floats

    def subset(self, numbers: Numbers) -> NetworkSums:
        """Some of the networks, by their numbers, counted from 0."""
        return NetworkSums(self.terms[numbers], self.traits[numbers], self.measured_ms[numbers])


@dataclass(frozen=True)
class Calibration:
    """A fit to networks.

    Attributes:
        factors: of the terms, if there were no traits, shape (4,).
        shared: what of those factors the weights of the traits say as well, shape (4,): zeros without traits.
        weights: of the traits, shape (traits,).
    """

    factors: Floats
    shared: Floats
    weights: Floats

    def predict(self, sums: NetworkSums) -> Floats:
        """Latency of networks in ms, shape (networks,)."""
        return np.asarray(sums.terms @ (self.factors - self.shared) + sums.traits @ self.weights)


def calibrated(table: LatencyTable, measured_ms: Mapping[str, float], *, seed: int = 0) -> LatencyTable:
    """A table with its terms, and its corrections where they pay, fitted to whole networks.

    Its error is that of cross-validation: each network is predicted by a calibration that had not seen it. Where terms
    below zero would leave the fastest network of the space no time at all, as on a machine so busy that measurements
    are of little use, none is negative.

    Args:
        table: not calibrated yet.
        measured_ms: latency by architecture text.
        seed: of the folds.
    """
    sums = _network_sums(table, measured_ms)
    for least in (-np.inf, 0.0):
        fit_best = partial(_best_fit, least=least, seed=seed)
        unseen = _unseen(sums, fit_best, seed)
        candidate = replace(
            _with_calibration(table, fit_best(sums), constant=bool(sums.terms[:, -1].any())),
            error=errors(unseen, sums.measured_ms),
            networks=compared(measured_ms, unseen, sums.measured_ms),
        )
        if extreme(table.space, candidate.cost)[1] > 0:
            break
    return candidate


def _network_sums(table: LatencyTable, measured_ms: Mapping[str, float]) -> NetworkSums:
    """The sums of a table over some networks, by the latency of each, in ms, by its architecture text."""
    terms = {op: _terms(op, row.latency_ms) for op, row in table.rows.items()}
    traits_of = {op: traits(op, row.latency_ms) for op, row in table.rows.items()}
    networks = [table.space.ops(table.space.check(Arch.parse(name))) for name in measured_ms]
    constant = float(len(networks) >= CONSTANT_FROM)
    return NetworkSums(
        np.array([[*np.sum([terms[op] for op in ops], axis=0), constant] for ops in networks]),
        np.array([np.sum([traits_of[op] for op in ops], axis=0) for ops in networks]),
        np.array(list(measured_ms.values())),
    )


def _with_calibration(table: LatencyTable, fit: Calibration, *, constant: bool) -> LatencyTable:
    """A table with the terms of a fit, and corrections of its operators where traits have weights."""
    scale, per_op_ms, per_million_ms, constant_ms = fit.factors.tolist()
    corrections = {
        op: float(np.dot(traits(op, row.latency_ms), fit.weights) - _terms(op, row.latency_ms) @ fit.shared[:-1])
        for op, row in table.rows.items()
    }
    return replace(
        table,
        scale=scale,
        per_op_ms=per_op_ms,
        per_million_ms=per_million_ms,
        constant_ms=constant_ms - float(fit.shared[-1]) if constant else 0.0,
        corrections=corrections if fit.weights.any() else {},
    )


def traits(op: Op, latency_ms: float) -> list[float]:
    """What may make an operator cheaper or dearer in a network than its latency says.

    That is: the root of its latency, for small operators; weights that do not fit into the nearest cache, and those of
    blocks with squeeze-and-excitation, in millions; its latency where the kernel is 5x5, and 7x7; values of its input,
    of the expanded maps, and multiply-accumulates of a depthwise convolution, in millions.
    """
    inside = op.c_mid * op.size**2
    return [
        latency_ms**0.5,
        max(0, op.params - NEAREST_CACHE) / 1e6,
        op.params / 1e6 if op.se else 0.0,
        latency_ms if op.kernel == 5 else 0.0,
        latency_ms if op.kernel == 7 else 0.0,
        op.c_in * op.size**2 / 1e6,
        inside / 1e6,
        inside * op.kernel**2 / 1e6,
    ]


def fit_calibration(sums: NetworkSums, *, least: float, penalty: float) -> Calibration:
    """The calibration with the least squares of the relative errors on some networks.

    All columns are divided by the measured latencies, so that errors are relative. Of the traits, only what no
    combination of the terms gives (the residual T - R S of their least squares on the terms) is offered to the ridge
    regression, in units of its spread: so its penalty draws to the calibration without traits (the theorem of Frisch,
    Waugh and Lovell: Econometrica 1, 1933; Journal of the American Statistical Association 58, 1963).

    Args:
        sums: of the networks.
        least: below which no factor is.
        penalty: for each network, on the squared weights; `NO_TRAITS` leaves the traits out.
    """
    from scipy.optimize import lsq_linear
    from sklearn.linear_model import Ridge

    networks = len(sums.measured_ms)
    terms = sums.terms / sums.measured_ms[:, None]  # R
    bounds = ([1 / SCALE_LIMIT, least, 0.0, least], [SCALE_LIMIT, np.inf, np.inf, np.inf])
    factors = np.asarray(lsq_linear(terms, np.ones(networks), bounds).x)
    if penalty == NO_TRAITS:
        return Calibration(factors, np.zeros(TERMS), np.zeros(sums.traits.shape[1]))
    scaled_traits = sums.traits / sums.measured_ms[:, None]  # T
    size = np.linalg.norm(terms, axis=0) + 1e-12
    explained = np.linalg.lstsq(terms / size, scaled_traits, rcond=1e-9)[0] / size[:, None]  # S
    residual = scaled_traits - terms @ explained
    spread = residual.std(axis=0) + 1e-12
    ridge = Ridge(alpha=penalty * networks, fit_intercept=False).fit(residual / spread, 1 - terms @ factors)
    weights = ridge.coef_ / spread
    return Calibration(factors, explained @ weights, weights)


def _best_fit(sums: NetworkSums, *, least: float, seed: int) -> Calibration:
    """The calibration with the penalty that does best in cross-validation; without traits where they do not pay.

    Args:
        sums: of the networks.
        least: below which no factor is.
        seed: of the folds.
    """
    penalty = NO_TRAITS
    if len(sums.measured_ms) >= TRAITS_FROM and least < 0:
        rms = {}
        for option in PENALTIES:
            unseen = _unseen(sums, partial(fit_calibration, least=least, penalty=option), seed)
            rms[option] = float(np.sqrt(np.mean((unseen / sums.measured_ms - 1) ** 2)))
        best = min(rms, key=rms.__getitem__)
        penalty = best if rms[best] < PAYS * rms[NO_TRAITS] else NO_TRAITS
    return fit_calibration(sums, least=least, penalty=penalty)


def _unseen(sums: NetworkSums, fit: Callable[[NetworkSums], Calibration], seed: int) -> Floats:
    """What calibrations predict for networks that they had not seen, in ms, shape (networks,)."""
    return cross_validated(
        len(sums.measured_ms), seed, lambda seen, held: fit(sums.subset(seen)).predict(sums.subset(held))
    )


def _terms(op: Op, latency_ms: float) -> Floats:
    """Latency in ms, one, and millions of parameters of an operator."""
    return np.array([latency_ms, 1.0, op.params / 1e6])
