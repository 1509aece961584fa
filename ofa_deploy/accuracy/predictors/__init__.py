"""Accuracy predictors: fitted as scikit-learn estimators, evaluated with numpy alone."""

from __future__ import annotations

from typing import Literal, Protocol, overload, runtime_checkable

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.space import SearchSpace

Features = npt.NDArray[np.float32]
CONTINUOUS = 4
"""Columns at the end of the features that are no one-hot code."""


class AccuracyPredictor(Protocol):
    """What the search needs of a predictor: `Predictor` has it, and so can any class of a user's."""

    @property
    def space(self) -> SearchSpace:
        """The search space that it is fitted to."""

    @overload
    def predict(self, genes: Genes, *, return_std: Literal[False] = False) -> Floats: ...
    @overload
    def predict(self, genes: Genes, *, return_std: Literal[True]) -> tuple[Floats, Floats]: ...
    def predict(self, genes: Genes, *, return_std: bool = False) -> Floats | tuple[Floats, Floats]:
        """Top-1 accuracy in percent, shape (n,), of genes of shape (n, columns).

        Args:
            genes: of the networks.
            return_std: give a pair of that and its standard deviation in points, shape (n,); NaN where that is not
                known.
        """


@runtime_checkable
class TellsGains(AccuracyPredictor, Protocol):
    """A predictor that estimates all single changes of a network at once, so that the search need not evaluate each."""

    def gains(self, genes: Genes) -> Floats:
        """Points that each of the m changes of `SearchSpace.changes` adds to the prediction, roughly, shape (n, m)."""


def features(space: SearchSpace, genes: Genes) -> Features:
    """What estimators are fitted on, shape (n, f).

    One-hot active blocks and widths (see `SearchSpace.encode`), then `CONTINUOUS` columns: log2 of the resolution
    relative to the largest and its square (a curve, so that resolutions without samples are predicted from their
    neighbours), log10 multiply-accumulates, log10 parameters.
    """
    one_hot = space.encode(genes)[:, : -len(space.resolutions)]
    continuous = _continuous(space, genes[:, 0], space.macs(genes), space.params(genes))
    return np.concatenate([one_hot, continuous], axis=1, dtype=np.float32, casting="same_kind")


def continuous_changed(space: SearchSpace, genes: Genes) -> Floats:
    """The continuous columns of the features after each of `SearchSpace.changes`, shape (n, m, `CONTINUOUS`)."""
    columns, values = space.changes
    macs, params = (cost.changed(genes, columns, values) for cost in (space.macs, space.params))
    return _continuous(space, np.where(columns == 0, values, genes[:, :1]), macs, params)


def _continuous(space: SearchSpace, resolution: npt.NDArray[np.integer], macs: Floats, params: Floats) -> Floats:
    """From the index of the resolution and the costs, of one shape, to a further axis of `CONTINUOUS`."""
    size = np.log2(np.array(space.resolutions) / space.resolutions[-1])[resolution]
    return np.stack([size, size**2, np.log10(macs), np.log10(params)], axis=-1)


def groups(space: SearchSpace) -> tuple[int, ...]:
    """How many columns of the features are kernels, expansions, widths, resolution, and costs."""
    slots = len(space.slots)
    return slots * len(space.kernels), slots * len(space.expands), sum(map(len, space.widths)), 2, 2


def file_name(space: SearchSpace) -> str:
    """Name of a space's predictor inside `predictors/`."""
    return f"{space.name}.safetensors"
