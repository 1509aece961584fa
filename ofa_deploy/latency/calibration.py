"""Calibrating a latency table by whole networks: what the latencies of its operators are worth inside of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np

from ofa_deploy.latency.table import LatencyTable, Numbers, compared, cross_validated, errors
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
NONE = math.inf
PENALTIES = (NONE, 3.0, 1.0, 0.3)
"""Of the ridge regression on traits, that cross-validation chooses from; `NONE` leaves them out."""
PAYS = 0.95
"""Traits are used where they bring the error (RMS) of networks not seen below its share of that without them."""
NEAREST_CACHE = 12_000
"""Parameters of float32 that fit into a first cache of 48 KB."""


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


def calibrated(table: LatencyTable, measured_ms: Mapping[str, float], seed: int = 0) -> LatencyTable:
    """A table with its scale, its terms for operators and parameters and its constant fitted to whole networks.

    The fit is of least squares of the relative error. Where it pays, see `PAYS`, what is left is fitted to `traits` of
    the operators by ridge regression, which gives each a correction. The error is that of cross-validation: each
    network is predicted by a calibration that had not seen it. Where terms below zero would leave the fastest network
    of the space no time at all, as on a machine so busy that measurements are of little use, none is negative.

    Args:
        table: not calibrated yet.
        measured_ms: latency by architecture text.
        seed: of the folds.
    """
    names = list(measured_ms)
    ops = [table.space.ops(table.space.check(Arch.parse(name))) for name in names]
    measured = np.array([measured_ms[name] for name in names])
    own = {op: _terms(table, op) for op in table.rows}
    terms = np.array([np.sum([own[op] for op in each], axis=0) for each in ops])
    constant = float(len(names) >= CONSTANT_FROM)
    fit = _Fit(np.column_stack([terms[:, :3], np.full(len(names), constant)]), terms[:, 3:], measured, seed)
    for least in (-np.inf, 0.0):
        unseen = cross_validated(len(names), seed, functools.partial(fit.predicted, least=least))
        base, weights, shared = fit.of(np.arange(len(names)), least)
        scale, per_op, per_million, _ = base.tolist()
        changes = np.concatenate([-shared[:3], weights])
        made = dataclasses.replace(
            table,
            scale=scale,
            per_op_ms=per_op,
            per_million_ms=per_million,
            constant_ms=constant * float(base[3] - shared[3]),
            corrections={op: float(row @ changes) for op, row in own.items()} if weights.any() else {},
            error=errors(unseen, measured),
            networks=compared(names, unseen, measured),
        )
        if extreme(table.space, made.cost)[1] > 0:
            break
    return made


def _terms(table: LatencyTable, op: Op) -> Floats:
    """Latency, one, millions of parameters, and the traits of an operator."""
    latency = table.rows[op].latency_ms
    return np.array([latency, 1.0, op.params / 1e6, *traits(op, latency)])


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Fits to some of the networks.

    Attributes:
        terms: sums over the networks' operators of latency, one and parameters, and the constant, shape (n, 4).
        traits: likewise of the traits, shape (n, traits).
        measured: latencies in ms, shape (n,).
        seed: of the folds.
    """

    terms: Floats
    traits: Floats
    measured: Floats
    seed: int

    def predicted(self, seen: Numbers, held: Numbers, least: float) -> Floats:
        """Latencies of the networks held out, by a fit to those seen."""
        return self._predict(held, *self.of(seen, least))

    def of(self, seen: Numbers, least: float) -> tuple[Floats, Floats, Floats]:
        """Factors of the terms, weights of the traits, and what of the traits the terms say already, times the weights.

        Args:
            seen: numbers of the networks.
            least: below which no factor is.
        """
        penalty = NONE
        if len(self.measured) >= TRAITS_FROM and least < 0:
            off = {one: self._off(seen, least, one) for one in PENALTIES}
            best = min(off, key=off.__getitem__)
            penalty = best if off[best] < PAYS * off[NONE] else NONE
        return self._with(seen, least, penalty)

    def _off(self, seen: Numbers, least: float, penalty: float) -> float:
        """Root mean square of the relative errors of networks not seen."""
        unseen = cross_validated(
            len(seen), self.seed, lambda a, b: self._predict(seen[b], *self._with(seen[a], least, penalty))
        )
        return float(np.sqrt(np.mean((unseen / self.measured[seen] - 1) ** 2)))

    def _with(self, seen: Numbers, least: float, penalty: float) -> tuple[Floats, Floats, Floats]:
        from scipy.optimize import lsq_linear

        relative = self.terms[seen] / self.measured[seen, None]
        bounds = ([1 / SCALE_LIMIT, least, 0.0, least], [SCALE_LIMIT, np.inf, np.inf, np.inf])
        base = np.asarray(lsq_linear(relative, np.ones(len(seen)), bounds).x)
        if penalty == NONE:
            return base, np.zeros(self.traits.shape[1]), np.zeros(len(base))
        traits = self.traits[seen] / self.measured[seen, None]
        size = np.linalg.norm(relative, axis=0) + 1e-12
        said = np.linalg.lstsq(relative / size, traits, rcond=1e-9)[0] / size[:, None]
        left = traits - relative @ said
        spread = left.std(axis=0) + 1e-12
        left = left / spread
        normal = left.T @ left + penalty * len(seen) * np.eye(left.shape[1])
        weights = np.linalg.solve(normal, left.T @ (1 - relative @ base)) / spread
        return base, weights, said @ weights

    def _predict(self, of: Numbers, base: Floats, weights: Floats, shared: Floats) -> Floats:
        return np.asarray(self.terms[of] @ (base - shared) + self.traits[of] @ weights)
