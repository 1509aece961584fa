"""The once-for-all project's own accuracy predictors: one network of dense layers with ReLU, without a deviation.

    mean(x) = W3' relu(W2' relu(W1' relu(W0' x + b0) + b1) + b2) + b3        x one-hot

x are a network's choices, as its family's codec gives them (`Codec.predictor_inputs`), and its resolution among those
that the predictor knows (Cai et al., arXiv 1908.09791). Files are read by `official_files`.

Gains: the first layer is exact, ReLU included; what follows is linearised at the network (first order).
"""

from __future__ import annotations

import numpy as np

from ofa_deploy.accuracy.predictors.dense import number_of_layers, slopes_behind
from ofa_deploy.accuracy.predictors.gains import ChangeTable, RectifiedUnits
from ofa_deploy.accuracy.predictors.model import Array, Gains, Model
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.official import codec_of
from ofa_deploy.spaces.space import SearchSpace


class OfficialModel(Model):
    """The mean on top of this file; its arrays have `resolutions` beside those of every model."""

    def inputs(self, space: SearchSpace, genes: Genes) -> Array:
        """One-hot choices and resolution, shape (n, f)."""
        return official_inputs(space, genes, self.arrays["resolutions"].tolist())

    def moments(self, x: Array, *, spread: bool) -> tuple[Floats, Floats]:
        """Mean and variance in units of the target, shape (n,) each, from features of shape (n, f)."""
        h = np.asarray(x, np.float32)
        for layer in range(number_of_layers(self.arrays)):
            weight = self.arrays[f"weight{layer}"][0]
            if layer:  # of the units behind the first layer, one in three or four is on at all
                np.maximum(h, 0, out=h)
                on = (h > 0).any(axis=0)
                h, weight = h[:, on], weight[on]
            h = h @ weight
            h += self.arrays[f"bias{layer}"][0]
        return h[:, 0].astype(np.float64), np.zeros(len(h))

    def gains(self, space: SearchSpace) -> Gains:
        """A function from genes to the gains of all single changes, exact in the first layer."""
        table = ChangeTable(space, lambda genes: self.inputs(space, genes))
        units = RectifiedUnits(table, self.arrays["weight0"][0], self.arrays["bias0"][0])

        def gained(genes: Genes) -> Floats:
            moves = table.of(genes)
            received = units.received(moves.x)
            return self.points(units.gains(moves, received, slopes_behind(self.arrays, 0, received, smooth=False)))

        return gained


def official_inputs(space: SearchSpace, genes: Genes, resolutions: list[int]) -> Array:
    """One-hot choices, then the resolution among those that a predictor knows, ascending: shape (n, inputs).

    A resolution in between counts as the next smaller.
    """
    sizes = np.array(space.resolutions)[genes[:, 0]]
    index = np.maximum(np.searchsorted(resolutions, sizes, side="right") - 1, 0)
    one_hot_resolution = np.eye(len(resolutions), dtype=np.float32)[index]
    return np.concatenate([codec_of(space).predictor_inputs(space, genes), one_hot_resolution], axis=1)
