"""Bayesian ridge regression: a curved trend in resolution and costs, and an effect of every choice."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import BayesianRidge

from ofa_deploy.accuracy.predictors.estimator import Estimator, scaling
from ofa_deploy.accuracy.predictors.inference import Array, scaled, with_products
from ofa_deploy.costs import Floats


class Ridge(Estimator):
    """Linear in the features and in the products of the continuous ones (scikit-learn's `BayesianRidge`)."""

    model = "ridge"

    def _fit(self, x: Array, y: Floats, weight: Floats) -> dict[str, Array]:
        arrays = scaling(x)
        z = with_products(scaled(arrays, x))
        found = BayesianRidge().fit(z, y, sample_weight=weight)
        return arrays | {
            "slope": found.coef_, "level": np.array([found.intercept_]),
            "centre": np.average(z, axis=0, weights=weight),
            "covariance": found.sigma_, "noise": np.array([found.alpha_**-0.5]),
        }  # fmt: skip
