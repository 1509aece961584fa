"""Recipes as scikit-learn's regressors: they work wherever scikit-learn takes one."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.accuracy.predictors.model import Labels, Recipe, fit_model
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.encoding import FeatureLayout, Features, layout_of
from ofa_deploy.spaces.space import SearchSpace

NUMBERS = [np.float64, np.float32]
"""Types of features that are fitted as they are; others become the first."""


class Estimator(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor from features to top-1 accuracy in percent; `model_` is what it fitted.

    Args:
        recipe: how it is fitted.
        layout: which columns of the features mean what; None takes all of them for numbers of one kind.
    """

    def __init__(self, recipe: Recipe, layout: FeatureLayout | None = None) -> None:
        self.recipe = recipe
        self.layout = layout

    def fit(self, X: Features, y: Floats, sample_weight: Floats | None = None) -> Self:  # noqa: N803
        """Fit.

        Args:
            X: features, shape (n, f), as `encoding.features` gives them, or any numbers.
            y: top-1 in percent, shape (n,).
            sample_weight: inverse variance of each label's noise, shape (n,); predicted standard deviations are those
                of labels of weight 1.
        """
        self.model_ = fit_model(self.recipe, self._labels(X, y, sample_weight))
        return self

    def predict(self, X: Features, *, return_std: bool = False) -> Any:  # noqa: N803
        """Top-1 in percent, shape (n,); with `return_std` a pair of that and its standard deviation in points."""
        check_is_fitted(self)
        mean, std = self.model_.predict(validate_data(self, X, dtype=NUMBERS, reset=False), spread=return_std)
        return (mean, std) if return_std else mean

    def tuned(self, X: Features, y: Floats, sample_weight: Floats | None = None) -> Self:  # noqa: N803
        """An unfitted copy whose open settings (None) are chosen on these samples."""
        recipe = self.recipe.tuned(self._labels(X, y, sample_weight))
        return clone(self).set_params(recipe=recipe)  # type: ignore[no-any-return]

    def _labels(self, features: Features, y: Floats, sample_weight: Floats | None) -> Labels:
        x, target = validate_data(self, features, y, dtype=NUMBERS, y_numeric=True, ensure_min_samples=2)
        weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        if weight.shape != (len(x),):
            raise ValueError(f"weights of shape {weight.shape} do not go with {len(x)} samples")
        if not weight.any():
            raise ValueError("all sample weights are zero, so there is nothing to fit")
        layout = self.layout or FeatureLayout.of_numbers(x.shape[1])
        return Labels(x, np.asarray(target, np.float64), weight, layout)


def make_estimator(name: str, space: SearchSpace, *, seed: int = 0) -> Estimator:
    """The regressor of a model by its name in `kinds.RECIPES`, for the features of a space."""
    return Estimator(RECIPES[name](seed=seed), layout_of(space))
