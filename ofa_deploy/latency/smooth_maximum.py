"""Latency of asynchronous devices: the smooth maximum of a time for launching and a time for computing.

The host launches the operators of a network one after the other, the device computes them meanwhile. So a network
takes the longer of the two, or somewhat more where they are alike: `(launching^p + computing^p)^(1/p)`. Launching is a
sum of times for each operator and a constant; computing a sum of terms that grow with the operators' work, terms for
each call, and a constant. All are non-negative. What belongs to the shape of an operator is drawn by a penalty to the
mean over all shapes or, for launching, over those of its kind: kernels are launched, whatever their size.

Tables predict with numpy; only the fit needs torch, for its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ofa_deploy.latency.operator_features import OperatorFeatures
from ofa_deploy.spaces.costs import Floats, smooth_maximum

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 100
"""Networks below which launching and computing are not told apart."""
LAUNCH_PENALTIES = (1e-2, 1e-3)
"""Weights of the penalty on launching that cross-validation chooses from."""
WORK_PENALTY = 1e-4
"""Weight of the penalty on computing."""
OUTLIER = 3e-3
"""Relative errors above this share count by their amount, not squared."""
SCALE = 1e3
"""Of the loss, so that the solver's tolerances fit."""
STEPS = 800
"""Iterations of the solver at most."""
LEAST = 1e-6
"""Smallest factor, so that launching and computing stay positive."""
POWERS = (1.5, 64.0)
"""Between which the power is looked for."""
BEGIN = (0.7, 0.02, 0.6, 0.05, 0.05, 30.0)
"""Work, call, launch, two constants, power: where the fit begins, as shares of the mean latency."""


@dataclass(frozen=True)
class SmoothMaximumTerms:
    """A fitted smooth maximum.

    Attributes:
        computing: of each operator, in ms, shape (operators,).
        launching: of each operator, in ms, shape (operators,).
        computing_constant: of a network as such, in ms.
        launching_constant: of a network as such, in ms.
        power: of the smooth maximum.
    """

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
class _Loss:
    """The loss of the fit, as a function of its unknowns: factors of what follows, and the logarithm of the power.

    Attributes:
        work_ms: what the work of each shape takes in each network, if all take alike, shape (networks, shapes).
        call_ms: what the calls of each shape take in each network, if all take alike, shape (networks, shapes).
        latency_ms: as measured, shape (networks,).
        mean_of_kind: from the values of shapes to the mean over all shapes of their kinds, shape (shapes, shapes).
        launch_penalty: weight of the penalty on launching.
    """

    work_ms: Tensor
    call_ms: Tensor
    latency_ms: Tensor
    mean_of_kind: Tensor
    launch_penalty: float

    def __call__(self, unknowns: Tensor) -> Tensor:
        """The mean pseudo-Huber loss of the relative errors, and the penalties.

        The former is `d * (sqrt(1 + (e / d)^2) - 1)` for a relative error e and d = `OUTLIER`: about `e^2 / 2d` below
        it, about `e` above (Charbonnier et al., IEEE Transactions on Image Processing 6, 1997).

        Args:
            unknowns: factors of work, call and launch for each shape, of the two constants, and the logarithm of the
                power, shape (3 * shapes + 3,).
        """
        work, call, launch = unknowns[:-3].reshape(3, -1)
        computing_constant, launching_constant, log_power = unknowns[-3:]
        mean_ms, power = self.latency_ms.mean(), log_power.exp()
        computing = self.work_ms @ work + self.call_ms @ call + mean_ms * computing_constant
        launching = self.call_ms @ launch + mean_ms * launching_constant
        # the smooth maximum, by logarithms, so that no power overflows
        latency = ((power * computing.log()).logaddexp(power * launching.log()) / power).exp()
        errors = latency / self.latency_ms - 1
        huber = OUTLIER * ((1 + (errors / OUTLIER).square()).sqrt() - 1).mean()
        off_mean = (work - work.mean()).square().sum() + (call - call.mean()).square().sum()
        off_kind = (launch - self.mean_of_kind @ launch).square().sum()
        loss: Tensor = SCALE * (huber + WORK_PENALTY * off_mean + self.launch_penalty * off_kind)
        return loss

    def with_gradient(self, x: Floats) -> tuple[float, Floats]:
        """The loss and its gradient, shape (3 * shapes + 3,), at unknowns of that shape."""
        import torch

        unknowns = torch.tensor(x, requires_grad=True)
        loss = self(unknowns)
        (gradient,) = torch.autograd.grad(loss, unknowns)
        return loss.item(), gradient.numpy()


def fit_smooth_maximum(
    features: OperatorFeatures, counts: Floats, latency_ms: Floats, *, launch_penalty: float
) -> SmoothMaximumTerms:
    """The smooth maximum with the least relative errors on some networks.

    It is found by L-BFGS-B (Byrd, Lu, Nocedal and Zhu, SIAM Journal on Scientific Computing 16, 1995) with the gradient
    of torch's automatic differentiation.

    Args:
        features: of the operators; what several sources say of their work is averaged.
        counts: how often each network has each operator, shape (networks, operators).
        latency_ms: of the networks, shape (networks,).
        launch_penalty: weight of the penalty on launching.
    """
    import torch
    from scipy.optimize import minimize

    work = (features.work / features.work.mean(axis=1, keepdims=True)).mean(axis=0)
    calls, number = counts @ features.shapes, features.shapes.shape[1]
    mean_ms = float(latency_ms.mean())
    call_ms = mean_ms / calls.sum(axis=1).mean()
    work_ms = mean_ms / (counts @ work).mean()
    mean_of_kind = features.kinds / features.kinds.sum(axis=0) @ features.kinds.T
    loss = _Loss(
        torch.tensor(work_ms * ((counts * work) @ features.shapes)),
        torch.tensor(call_ms * calls),
        torch.tensor(latency_ms),
        torch.tensor(mean_of_kind),
        launch_penalty,
    )

    *factors, power = BEGIN
    start = np.concatenate([np.repeat(factors[:3], number), factors[3:], [np.log(power)]])
    bounds = [(LEAST, None)] * (len(start) - 1) + [(np.log(POWERS[0]), np.log(POWERS[1]))]
    solution = minimize(
        loss.with_gradient, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": STEPS}
    ).x
    work_factors, call_factors, launch_factors = solution[:-3].reshape(3, -1)
    return SmoothMaximumTerms(
        work_ms * work * (features.shapes @ work_factors) + call_ms * (features.shapes @ call_factors),
        call_ms * (features.shapes @ launch_factors),
        mean_ms * solution[-3],
        mean_ms * solution[-2],
        float(np.exp(solution[-1])),
    )
