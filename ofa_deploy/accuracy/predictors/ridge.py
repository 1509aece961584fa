"""Bayesian ridge regression: a curved trend in resolution and costs, and an effect of every choice."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import BayesianRidge

from ofa_deploy.accuracy.predictors.estimator import Estimator, scaling
from ofa_deploy.accuracy.predictors.inference import Array, scaled, with_products
from ofa_deploy.spaces.costs import Floats


class Ridge(Estimator):
    """Linear in the features and in the products of the continuous ones (scikit-learn's `BayesianRidge`)."""

    model = "ridge"

    def _fit(self, x: Array, y: Floats, weight: Floats) -> dict[str, Array]:
        arrays = scaling(x)
        z = with_products(scaled(arrays, x))
        centre = np.average(z, axis=0, weights=weight)
        _, axes = np.linalg.eigh(np.cov(z, rowvar=False, aweights=weight))
        # Along these axes columns are orthogonal: the same regression, but LAPACK's SVD always converges, which on
        # dependent columns (one-hot ones are) it does not.
        found = BayesianRidge().fit((z - centre) @ axes, y, sample_weight=weight)
        slope = axes @ found.coef_
        return arrays | {
            "slope": slope,
            "level": np.array([found.intercept_ - centre @ slope]),
            "centre": centre,
            "covariance": axes @ found.sigma_ @ axes.T,
            "noise": np.array([found.alpha_**-0.5]),
        }
