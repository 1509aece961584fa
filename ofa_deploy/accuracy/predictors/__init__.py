"""Accuracy predictors behind one interface: fit on samples, predict mean and standard deviation from genes."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ofa_deploy.costs import Floats, Genes
from ofa_deploy.space import SearchSpace

Features = npt.NDArray[np.float32]


class AccuracyPredictor(Protocol):
    """What every predictor offers."""

    @property
    def space(self) -> SearchSpace:
        """The search space that it is fitted to."""

    def predict(self, genes: Genes) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the top-1 accuracy in percent, shape (n,) each."""


def features(space: SearchSpace, genes: Genes) -> Features:
    """One-hot blocks and resolution (see `SearchSpace.encode`), log10 MACs, log10 parameters: shape (n, f)."""
    logs = [np.log10(cost(genes)).astype(np.float32)[:, None] for cost in (space.macs, space.params)]
    return np.concatenate([space.encode(genes), *logs], axis=1)


def file_name(space: SearchSpace) -> str:
    """Name of a space's predictor inside `predictors/`."""
    return f"{space.name}.safetensors"
