"""An ensemble of multilayer perceptrons."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.accuracy.predictors.estimator import scaling, unexplained
from ofa_deploy.accuracy.predictors.inference import Array, scaled
from ofa_deploy.accuracy.predictors.members import Ensemble
from ofa_deploy.spaces.costs import Floats


class MLP(Ensemble):
    """Three hidden layers with SiLU, several members from their own initial weights, and their mean.

    Args:
        members: networks.
        hidden: width of the hidden layers.
        steps: of the optimiser.
        batch: samples a step.
        lr: highest learning rate.
        weight_decay: of AdamW; None chooses it on a fifth of the samples.
        seed: of initial weights and batches.
    """

    model = "mlp"

    def __init__(
        self,
        members: int = 5,
        hidden: int = 128,
        steps: int = 1000,
        batch: int = 128,
        lr: float = 3e-3,
        weight_decay: float | None = None,
        seed: int = 0,
    ) -> None:
        self.members = members
        self.hidden = hidden
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.seed = seed

    def _fit(self, x: Array, y: Floats, weight: Floats) -> dict[str, Array]:
        arrays = scaling(x)
        generator = torch.Generator().manual_seed(self.seed)
        weights, biases = [], []
        for fan_in, fan_out in itertools.pairwise([x.shape[1], *[self.hidden] * 3, 1]):
            uniform = torch.rand((self.members, fan_in, fan_out), generator=generator) * 2 - 1
            weights.append((uniform * (3 / fan_in) ** 0.5).requires_grad_())
            biases.append(torch.zeros(self.members, 1, fan_out, requires_grad=True))

        def forward(h: Tensor) -> Tensor:
            for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
                h = torch.baddbmm(b, h, w)
                if layer < len(weights) - 1:
                    h = F.silu(h)
            return h.squeeze(2)

        self._train(forward, [*weights, *biases], scaled(arrays, x), y, weight)
        for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
            arrays |= {f"weight{layer}": w.detach().numpy(), f"bias{layer}": b.detach().numpy()}
        return arrays | {"noise": unexplained(arrays, self.model, x, y, weight)}
