"""An ensemble of multilayer perceptrons, and its mean.

Of scaled features z, with SiLU s(h) = h / (1 + exp(-h)) and three hidden layers,

    member(z) = W3' s(W2' s(W1' s(W0' z + b0) + b1) + b2) + b3
    mean(z) = mean of the members          variance(z) = their variance + noise^2

Fitted by AdamW on the squared error of standardised labels, all members at once, each from its own initial weights.

Gains: what follows the first layer is linearised at the network (first order), with slopes g of its units by the chain
rule; the units themselves are taken to second order. A unit that receives h and then h + e, e = a - b + n as in
`gains`, a and b being codes times weights, gains

    g (s'(h) e + s''(h) e^2 / 2)    s' = p (1 + h (1 - p))    s'' = p (1 - p) (2 + h (1 - 2 p))    p = 1 / (1 + exp(-h))

and e^2 = a^2 + b^2 - 2 a b + 2 (a - b) n + n^2 splits into sums that are computed once for all values of all genes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ofa_deploy.accuracy.predictors.dense import logistic, number_of_layers, side_by_side, silu, slopes_behind
from ofa_deploy.accuracy.predictors.ensembles import Ensemble
from ofa_deploy.accuracy.predictors.gains import ChangeTable, Moves
from ofa_deploy.accuracy.predictors.model import Array, Gains, Labels, Model, unexplained
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.space import SearchSpace


class MLPModel(Model):
    """The mean and variance on top of this file."""

    def moments(self, x: Array, *, spread: bool) -> tuple[Floats, Floats]:
        """Mean and variance in units of the target, shape (n,) each, from features of shape (n, f)."""
        arrays = self.arrays
        h = self.scaled(x).astype(arrays["weight0"].dtype)
        each = np.empty((len(arrays["weight0"]), len(x)))
        layers = number_of_layers(arrays)
        for member, out in enumerate(each):
            y = h
            for layer in range(layers):
                y = y @ arrays[f"weight{layer}"][member]
                y += arrays[f"bias{layer}"][member]
                if layer < layers - 1:
                    silu(y)
            out[:] = y[:, 0]
        return each.mean(axis=0), each.var(axis=0) if spread else 0 * each[0]

    def gains(self, space: SearchSpace) -> Gains:
        """A function from genes to the gains of all single changes, to second order in the first layer."""
        table, arrays = ChangeTable.of_features(space), self.arrays
        weights, biases = side_by_side(arrays, "weight0", "bias0")
        units = _SmoothUnits(table, weights)

        def gained(genes: Genes) -> Floats:
            moves = table.of(genes)
            received = moves.x @ weights + biases
            members = np.split(received, len(arrays["weight0"]), axis=1)
            each = [slopes_behind(arrays, i, h, smooth=True) for i, h in enumerate(members)]
            slopes = np.concatenate(each, axis=1)
            slopes /= len(members)
            return self.points(units.gains(moves, received, slopes))

        return gained


class _SmoothUnits:
    """SiLU units that receive `x weights + biases`, to second order."""

    def __init__(self, table: ChangeTable, weights: Array) -> None:
        self._table, self._costs = table, weights[-table.numbers :]
        self._codes = table.codes @ weights
        self._squares = np.square(self._codes)

    def gains(self, moves: Moves, received: Array, slopes: Array) -> Array:
        """What the changes add to the units' outputs times slopes, shape (n, m)."""
        share = logistic(received)
        steep = slopes * share * (1 + received * (1 - share))
        curved = slopes * share * (1 - share) * (2 + received * (1 - 2 * share)) / 2
        out = moves.less_present(steep @ self._codes.T)
        square = curved @ self._squares.T  # a^2 + b^2
        out += square + np.take_along_axis(square, moves.present, axis=1)[:, self._table.columns]
        for column, values in enumerate(np.split(self._codes, self._table.starts[1:])):  # - 2 a b
            start = self._table.starts[column]
            out[:, start : start + len(values)] -= 2 * (self._codes[moves.present[:, column]] * curved) @ values.T
        for cost, by in zip(self._costs, moves.numbers.transpose(2, 0, 1), strict=True):  # n, 2 (a - b) n, n^2
            with_codes = moves.less_present((curved * cost) @ self._codes.T)
            with_costs = (moves.numbers @ ((curved * cost) @ self._costs.T)[:, :, None])[..., 0]
            out += by * ((steep @ cost)[:, None] + 2 * with_codes + with_costs)
        return np.asarray(out)


@dataclass(frozen=True, kw_only=True)
class MLP(Ensemble):
    """Three hidden layers with SiLU, several members from their own initial weights, and their mean.

    Attributes:
        members: networks.
        hidden: width of the hidden layers.
        steps: of the optimiser.
        lr: highest learning rate.
    """

    members: int = 5
    hidden: int = 128
    steps: int = 1000
    lr: float = 3e-3

    def fit(self, labels: Labels) -> MLPModel:
        """The model of standardised labels."""
        import torch
        from torch import Tensor
        from torch.nn import functional as F

        model = MLPModel(labels.scaling(), labels.layout)
        generator = torch.Generator().manual_seed(self.seed)
        weights, biases = [], []
        for fan_in, fan_out in itertools.pairwise([labels.x.shape[1], *[self.hidden] * 3, 1]):
            uniform = torch.rand((self.members, fan_in, fan_out), generator=generator) * 2 - 1
            weights.append((uniform * (3 / fan_in) ** 0.5).requires_grad_())
            biases.append(torch.zeros(self.members, 1, fan_out, requires_grad=True))

        def forward(h: Tensor) -> Tensor:
            for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
                h = torch.baddbmm(b, h, w)
                if layer < len(weights) - 1:
                    h = F.silu(h)
            return h.squeeze(2)

        self.train(forward, [*weights, *biases], model.scaled(labels.x), labels)
        arrays: dict[str, Array] = {}
        for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
            arrays |= {f"weight{layer}": w.detach().numpy(), f"bias{layer}": b.detach().numpy()}
        model = model.with_arrays(arrays)
        return model.with_arrays({"noise": unexplained(model, labels)})
