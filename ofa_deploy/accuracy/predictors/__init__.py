"""Accuracy predictors: fitted as scikit-learn estimators, evaluated with numpy alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ofa_deploy.costs import Floats, Genes
from ofa_deploy.space import SearchSpace

Features = npt.NDArray[np.float32]
CONTINUOUS = 4
"""Columns at the end of the features that are no one-hot code."""


class AccuracyPredictor(Protocol):
    """What the search needs of a predictor."""

    @property
    def space(self) -> SearchSpace:
        """The search space that it is fitted to."""

    def mean(self, genes: Genes) -> Floats:
        """Top-1 accuracy in percent, shape (n,): what `predict` gives, without the time for the deviation."""

    def predict(self, genes: Genes) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the top-1 accuracy in percent, shape (n,) each."""


def features(space: SearchSpace, genes: Genes) -> Features:
    """What estimators are fitted on, shape (n, f).

    One-hot active blocks and widths (see `SearchSpace.encode`), then `CONTINUOUS` columns: log2 of the resolution
    relative to the largest and its square (a curve, so that resolutions without samples are predicted from their
    neighbours), log10 multiply-accumulates, log10 parameters.
    """
    size = np.log2(np.array(space.resolutions) / space.resolutions[-1])[genes[:, 0]]
    logs = [size, size**2, np.log10(space.macs(genes)), np.log10(space.params(genes))]
    one_hot = space.encode(genes)[:, : -len(space.resolutions)]
    return np.concatenate([one_hot, np.stack(logs, axis=1)], axis=1, dtype=np.float32, casting="same_kind")


def groups(space: SearchSpace) -> tuple[int, ...]:
    """How many columns of the features are kernels, expansions, widths, resolution, and costs."""
    slots = len(space.slots)
    return slots * len(space.kernels), slots * len(space.expands), sum(map(len, space.widths)), 2, 2


def file_name(space: SearchSpace) -> str:
    """Name of a space's predictor inside `predictors/`."""
    return f"{space.name}.safetensors"
