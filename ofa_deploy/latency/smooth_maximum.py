"""Latency of asynchronous devices: the smooth maximum of a time for launching and a time for computing.

The host launches the operators of a network one after the other, the device computes them meanwhile. So a network
takes the longer of the two, or somewhat more where they are alike: `(launching^p + computing^p)^(1/p)`. Launching is a
sum of times for each operator and a constant; computing a sum of terms that grow with the operators' work, terms for
each call, and a constant. All are non-negative. What belongs to the shape of an operator is drawn by a penalty to the
mean over all shapes or, for launching, over those of its kind: kernels are launched, whatever their size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_deploy.spaces.costs import Floats, smooth_maximum

FEWEST = 100
"""Networks below which launching and computing are not told apart."""
PULLS = (1e-2, 1e-3)
"""Weights of the penalty on launching that cross-validation chooses from."""
WORK_PULL = 1e-4
"""Weight of the penalty on computing."""
OUTLIER = 3e-3
"""Relative errors above this count by their amount, not squared (pseudo-Huber loss)."""
SCALE = 1e3
"""Of the loss, so that the solver's tolerances fit."""
STEPS = 800
LEAST = 1e-6
POWERS = (1.5, 64.0)
"""Between which the power is looked for."""
BEGIN = (0.7, 0.02, 0.6, 0.05, 0.05, 30.0)
"""Work, call, launch, two constants, power: where the fit begins, as shares of the mean latency."""


@dataclass(frozen=True)
class Terms:
    """Milliseconds of each operator, shape (operators,), and of a network as such."""

    computing: Floats
    launching: Floats
    computing_constant: float
    launching_constant: float
    power: float

    def predict(self, counts: Floats) -> Floats:
        """Latency of networks in ms, from how often they have each operator, shape (networks, operators)."""
        computing = counts @ self.computing + self.computing_constant
        return smooth_maximum(computing, counts @ self.launching + self.launching_constant, self.power)


@dataclass(frozen=True)
class Model:
    """What is known of the operators.

    Attributes:
        work: of each operator, in any unit, shape (operators,).
        shapes: which shape each has: one-hot, shape (operators, shapes).
        kinds: which kind each shape is of: one-hot, shape (shapes, kinds).
    """

    work: Floats
    shapes: Floats
    kinds: Floats

    def fit(self, counts: Floats, latency_ms: Floats, pull: float) -> Terms:
        """Terms with the least relative errors, by L-BFGS-B.

        Args:
            counts: how often each network has each operator, shape (networks, operators).
            latency_ms: of the networks, shape (networks,).
            pull: weight of the penalty on launching.
        """
        from scipy.optimize import minimize

        number = self.shapes.shape[1]
        mean, calls = latency_ms.mean(), counts @ self.shapes
        per_call = mean / calls.sum(axis=1).mean()
        of_work = mean / (counts @ self.work).mean()
        worked = of_work * ((counts * self.work) @ self.shapes)
        to_kind = self.kinds / self.kinds.sum(axis=0) @ self.kinds.T

        def split(x: Floats) -> tuple[Floats, Floats, Floats]:
            return x[:number], x[number : 2 * number], x[2 * number : 3 * number]

        def loss(x: Floats) -> tuple[float, Floats]:
            work, call, launch = split(x)
            power = np.exp(x[-1])
            computing = worked @ work + per_call * (calls @ call) + mean * x[-3]
            launching = per_call * (calls @ launch) + mean * x[-2]
            latency = smooth_maximum(computing, launching, power)
            error = latency / latency_ms - 1
            root = np.sqrt(1 + (error / OUTLIER) ** 2)
            off = work - work.mean(), call - call.mean(), launch - to_kind @ launch
            pulls = WORK_PULL, WORK_PULL, pull
            value = OUTLIER * (root - 1).mean() + sum(w * (o**2).sum() for w, o in zip(pulls, off, strict=True))
            slope = error / root / OUTLIER / latency_ms / len(counts)
            shares = [(part / latency) ** power for part in (computing, launching)]
            by_computing, by_launching = (
                slope * share * latency / part for share, part in zip(shares, (computing, launching), strict=True)
            )
            logs = sum(s * np.log(part / latency) for s, part in zip(shares, (computing, launching), strict=True))
            by_power = (slope * latency * logs).sum()
            weights = (2 * weight * o for weight, o in zip(pulls, off, strict=True))
            by_call = per_call * (by_computing @ calls), per_call * (by_launching @ calls)
            parts = zip((by_computing @ worked, *by_call), weights, strict=True)
            rest = [mean * by_computing.sum(), mean * by_launching.sum(), by_power]
            gradient = np.concatenate([*(slopes + pulled for slopes, pulled in parts), rest])
            return SCALE * float(value), SCALE * gradient

        *begin, power = BEGIN
        start = np.concatenate([np.repeat(begin[:3], number), begin[3:], [np.log(power)]])
        bounds = [(LEAST, None)] * (len(start) - 1) + [(np.log(POWERS[0]), np.log(POWERS[1]))]
        found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": STEPS}).x
        work, call, launch = split(found)
        computing = of_work * self.work * (self.shapes @ work) + per_call * (self.shapes @ call)
        launching = per_call * (self.shapes @ launch)
        return Terms(computing, launching, mean * found[-3], mean * found[-2], float(np.exp(found[-1])))
