"""Bayesian ridge regression: an effect of every choice, and a curved trend in resolution and costs.

Of scaled features z, with their numbers c (resolution and costs, see `FeatureLayout.numbers`):

    mean(x) = level + slope . phi(z)             phi(z) = z and all products c_i c_j, i <= j
    variance(x) = (phi - centre)' covariance (phi - centre) + noise^2

`slope`, `covariance` and `noise` are those of Bayesian linear regression whose two precisions maximise the evidence
(MacKay, "Bayesian Interpolation", 1992; scikit-learn's `BayesianRidge`).

Gains are exact. Codes move along the slope; a move d of the numbers adds, with P the upper triangle of the products'
slopes, so that mean holds c' P c:

    (c + d)' P (c + d) - c' P c = d . (P + P') c + d' P d
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_deploy.accuracy.predictors.gains import ChangeTable
from ofa_deploy.accuracy.predictors.model import Array, Gains, Labels, Model, Recipe
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.encoding import FeatureLayout
from ofa_deploy.spaces.space import SearchSpace


class RidgeModel(Model):
    """The mean and variance on top of this file."""

    def moments(self, x: Array, *, spread: bool) -> tuple[Floats, Floats]:
        """Mean and variance in units of the target, shape (n,) each, from features of shape (n, f)."""
        arrays, z = self.arrays, with_products(self.scaled(x), self.layout)
        mean = z @ arrays["slope"] + arrays["level"][0]
        if not spread:
            return mean, 0 * mean
        return mean, ((z - arrays["centre"]) @ arrays["covariance"] * (z - arrays["centre"])).sum(1)

    def gains(self, space: SearchSpace) -> Gains:
        """A function from genes to the gains of all single changes, exact."""
        table = ChangeTable.of_features(space)
        numbers = self.layout.numbers
        count = numbers.stop - numbers.start
        upper = np.triu_indices(count)
        products = np.zeros((count, count))  # P
        products[upper] = self.arrays["slope"][-len(upper[0]) :]

        def gained(genes: Genes) -> Floats:
            moves = table.of(genes)
            z, by = self.scaled(moves.x), moves.numbers / self.arrays["scale"][numbers]
            slopes = np.repeat(self.arrays["slope"][None, : z.shape[1]], len(z), axis=0)
            slopes[:, numbers] += z[:, numbers] @ (products + products.T)
            along = moves.along(slopes / self.arrays["scale"])
            return self.points(along + ((by @ products) * by).sum(axis=2))

        return gained


@dataclass(frozen=True, kw_only=True)
class Ridge(Recipe):
    """scikit-learn's `BayesianRidge` on the features and the products of their numbers; nothing in it is random."""

    def fit(self, labels: Labels) -> RidgeModel:
        """The model of standardised labels."""
        from sklearn.linear_model import BayesianRidge

        model = RidgeModel(labels.scaling(), labels.layout)
        z = with_products(model.scaled(labels.x), labels.layout)
        centre = np.average(z, axis=0, weights=labels.weight)
        _, axes = np.linalg.eigh(np.cov(z, rowvar=False, aweights=labels.weight))
        # Along these axes columns are orthogonal: the same regression, but LAPACK's SVD always converges, which on
        # dependent columns (one-hot ones are) it does not.
        regression = BayesianRidge().fit((z - centre) @ axes, labels.y, sample_weight=labels.weight)
        slope = axes @ regression.coef_
        return model.with_arrays(
            {
                "slope": slope,
                "level": np.array([regression.intercept_ - centre @ slope]),
                "centre": centre,
                "covariance": axes @ regression.sigma_ @ axes.T,
                "noise": np.array([regression.alpha_**-0.5]),
            }
        )


def with_products(z: Array, layout: FeatureLayout) -> Array:
    """Features, and all products of two of their numbers."""
    c = z[:, layout.numbers]
    return np.concatenate([z, *(c[:, i:] * c[:, i : i + 1] for i in range(c.shape[1]))], axis=1)
