"""A concave function of an architecture: its maximum under a latency table can be proved."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.accuracy.predictors.estimator import scaling, unexplained
from ofa_deploy.accuracy.predictors.inference import Array, scaled, with_linear_costs
from ofa_deploy.accuracy.predictors.members import Ensemble
from ofa_deploy.spaces.costs import Floats


class Concave(Ensemble):
    """`w x + b - sum_j softplus(v_j) relu(A_j x + c_j)`, and the mean of several of them, which is concave as well.

    For a given resolution its inputs, one-hot blocks, multiply-accumulates and parameters (not their logarithms), are
    linear in the choices of an architecture. So maximising it under an additive latency is a mixed-integer linear
    program whose only binaries are those choices.

    Args:
        members: functions.
        units: of each function.
        steps: of the optimiser.
        batch: samples a step.
        lr: highest learning rate.
        weight_decay: of AdamW; None chooses it on a fifth of the samples.
        seed: of initial weights and batches.
    """

    model = "concave"

    def __init__(
        self,
        members: int = 8,
        units: int = 8,
        steps: int = 3000,
        batch: int = 128,
        lr: float = 1e-2,
        weight_decay: float | None = None,
        seed: int = 0,
    ) -> None:
        self.members = members
        self.units = units
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.seed = seed

    def _fit(self, x: Array, y: Floats, weight: Floats) -> dict[str, Array]:
        inputs = with_linear_costs(x)
        arrays = scaling(inputs)
        generator = torch.Generator().manual_seed(self.seed)
        n, f, u = self.members, x.shape[1], self.units
        slope, level = torch.zeros(n, f, 1, requires_grad=True), torch.zeros(n, 1, 1, requires_grad=True)
        units = (torch.randn((n, f, u), generator=generator) / f**0.5).requires_grad_()
        offsets = torch.zeros(n, 1, u, requires_grad=True)
        drop = torch.full((n, u, 1), -1.0, requires_grad=True)

        def forward(h: Tensor) -> Tensor:
            hidden = torch.relu(torch.baddbmm(offsets, h, units))
            return (torch.baddbmm(level, h, slope) - hidden @ F.softplus(drop)).squeeze(2)

        named = {"slope": slope, "level": level, "units": units, "offsets": offsets, "drop": drop}
        self._train(forward, list(named.values()), scaled(arrays, inputs), y, weight)
        arrays |= {name: value.detach().numpy() for name, value in named.items()}
        return arrays | {"noise": unexplained(arrays, self.model, x, y, weight)}
