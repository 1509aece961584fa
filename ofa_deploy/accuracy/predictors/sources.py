"""Samples of one supernet from several pipelines: each has its own offset and its own noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold

from ofa_deploy.accuracy.predictors import Features, features
from ofa_deploy.accuracy.predictors.estimator import scaling
from ofa_deploy.accuracy.predictors.inference import scaled, with_products
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.costs import Floats, Genes
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import SearchSpace

_ROUNDS = 3
_LARGE = 1e3
"""Scale of the indicators of sources, so that the ridge hardly shrinks their offsets."""


@dataclass(frozen=True)
class Merged:
    """Samples ready to be fitted.

    Attributes:
        space: their space.
        genes: shape (n, columns).
        x: features, shape (n, f).
        y: top-1 in percent, on the scale of the first source, shape (n,).
        weight: inverse variance of the noise relative to the first source, shape (n,).
        source: index of each sample's source, shape (n,).
        offsets: points that each source reads higher than the first.
        noises: standard deviation in points of each source around a smooth model.
    """

    space: SearchSpace
    genes: Genes
    x: Features
    y: Floats
    weight: Floats
    source: npt.NDArray[np.intp]
    offsets: tuple[float, ...]
    noises: tuple[float, ...]

    def noisier(self, std: Floats) -> Floats:
        """Standard deviations that hold for labels of the first source, for each sample's own label; shape (n,)."""
        more = np.square(self.noises)[self.source] - self.noises[0] ** 2
        return np.asarray(np.sqrt(np.maximum(std**2 + more * (std > 0), 0.01 * std**2)))


def merge(sources: Sequence[Samples]) -> Merged:
    """Bring samples of several sources to the scale of the first.

    A linear model of the features and of each source is fitted, weights by each source's noise, until they settle.
    Where sources share no resolution, offsets rest on accuracy being a parabola in the logarithm of the resolution.

    Raises:
        OfaDeployError: an architecture has two different accuracies in one source.
    """
    space = sources[0].space
    genes = np.concatenate([s.genes for s in sources])
    y = np.concatenate([s.top1_percent for s in sources])
    source = np.repeat(np.arange(len(sources)), [len(s) for s in sources])
    x = features(space, genes)
    weight, offsets, noises = np.ones(len(y)), np.zeros(len(sources)), np.zeros(len(sources))
    if len(sources) > 1:
        indicator = _LARGE * (source[:, None] == np.arange(1, len(sources)))
        z = np.concatenate([with_products(scaled(scaling(x), x)), indicator], axis=1)
        for _ in range(_ROUNDS):
            residual = np.zeros(len(y))
            for fitted, held in KFold(5, shuffle=True, random_state=0).split(z):
                model = BayesianRidge().fit(z[fitted], y[fitted], sample_weight=weight[fitted])
                residual[held] = y[held] - model.predict(z[held])
            noises = np.array([np.sqrt(np.mean(residual[source == i] ** 2)) for i in range(len(sources))])
            weight = (noises[0] / noises[source]) ** 2
        model = BayesianRidge().fit(z, y, sample_weight=weight)
        offsets[1:] = _LARGE * model.coef_[-len(sources) + 1 :]
    return Merged(space, genes, x, y - offsets[source], weight, source, tuple(offsets.tolist()), tuple(noises.tolist()))


def check(samples: Samples, name: str) -> None:
    """Refuse samples that nothing can be fitted on.

    Raises:
        OfaDeployError: naming `name` and what is wrong.
    """
    if len(samples) < 20:
        raise OfaDeployError(f"{name}: {len(samples)} samples are too few to fit a predictor; measure at least 20")
    if np.median(abs(samples.top1_percent - np.median(samples.top1_percent))) == 0:
        raise OfaDeployError(
            f"{name}: the measured accuracies are all equal, or nearly all: there is nothing to fit; "
            "measure more subnetworks, on more images, or check the supernet's weights"
        )
