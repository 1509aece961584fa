"""What the estimators share: scikit-learn's interface over arrays that numpy alone can evaluate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from ofa_deploy.accuracy.predictors import CONTINUOUS, Features
from ofa_deploy.accuracy.predictors.inference import Array, Arrays, predict
from ofa_deploy.spaces.costs import Floats


class Estimator(RegressorMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A regressor from `accuracy.predictors.features` to top-1 accuracy in percent.

    It works wherever scikit-learn takes a regressor. `arrays_` is what it fitted, see `inference`.
    """

    model: ClassVar[str]
    """Its name in `inference.MODELS`."""

    def fit(self, X: Features, y: Floats, sample_weight: Floats | None = None) -> Self:  # noqa: N803
        """Fit.

        Args:
            X: features, shape (n, f).
            y: top-1 in percent, shape (n,).
            sample_weight: inverse variance of each label's noise, shape (n,); predicted standard deviations are those
                of labels of weight 1.
        """
        x, y = np.asarray(X), np.asarray(y, np.float64)
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        target, mean, scale = standardised(y, weight)
        arrays = self.tuned(x, y, weight)._fit(x, target, weight)
        self.arrays_ = {**arrays, "target": np.array([mean, scale])}
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, X: Features, return_std: bool = False) -> Any:  # noqa: N803
        """Top-1 in percent, shape (n,); with `return_std` a pair of that and its standard deviation."""
        check_is_fitted(self)
        mean, std = predict(self.model, self.arrays_, np.asarray(X), return_std)
        return (mean, std) if return_std else mean

    def tuned(self, X: Features, y: Floats, sample_weight: Floats | None = None) -> Self:  # noqa: N803
        """An unfitted copy whose open settings (None) are chosen on these samples."""
        return clone(self)  # type: ignore[no-any-return]

    @abstractmethod
    def _fit(self, x: Array, y: Floats, weight: Floats) -> dict[str, Array]:
        """The arrays for a standardised target."""


def standardised(y: Floats, weight: Floats) -> tuple[Floats, float, float]:
    """Targets with weighted mean 0 and deviation 1, and what they were."""
    mean = float(np.average(y, weights=weight))
    scale = float(np.sqrt(np.average((y - mean) ** 2, weights=weight))) or 1.0
    return (y - mean) / scale, mean, scale


def scaling(x: Array) -> dict[str, Array]:
    """Shift and scale that standardise the continuous columns and leave the one-hot ones."""
    shift, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
    shift[-CONTINUOUS:] = x[:, -CONTINUOUS:].mean(axis=0, dtype=np.float64)
    deviation = x[:, -CONTINUOUS:].std(axis=0, dtype=np.float64)
    scale[-CONTINUOUS:] = np.where(deviation > 1e-6 * (1 + abs(shift[-CONTINUOUS:])), deviation, 1)
    return {"shift": shift, "scale": scale}


def unexplained(arrays: Arrays, model: str, x: Array, y: Floats, weight: Floats) -> Array:
    """Standard deviation of the residuals at weight 1, shape (1,), in units of the target."""
    mean, _ = predict(model, {**arrays, "target": np.array([0.0, 1.0]), "noise": np.zeros(1)}, x, False)
    return np.array([max(float(np.sqrt(np.mean(weight * (y - mean) ** 2))), 1e-4)])
