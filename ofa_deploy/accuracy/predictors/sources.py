"""Samples of one supernet from several pipelines: each has its own offset and its own noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from ofa_deploy.accuracy.predictors.model import scaling
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.encoding import Features, features, layout_of
from ofa_deploy.spaces.space import SearchSpace

_ROUNDS = 3
_FREE = 1e3
"""Scale of what a ridge must hardly shrink: the trend in resolution and costs, and the offsets of sources."""
_PENALTIES = np.logspace(-2, 3, 11)


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


def merge(sources: Sequence[Samples]) -> Merged:
    """Bring samples of several sources to the scale of the first.

    A ridge on one-hot choices, a free parabola in the logarithm of the resolution, a free trend in the logarithms of
    the costs (and penalised squares of these), and a free offset of each source is fitted, weights by each source's
    noise, until they settle. Where sources share no resolution, that parabola is all that tells an offset from the
    effect of the resolution: it is then uncertain by some tenths of a point.
    """
    space = sources[0].space
    genes = np.concatenate([s.genes for s in sources])
    y = np.concatenate([s.top1_percent for s in sources])
    source = np.repeat(np.arange(len(sources)), [len(s) for s in sources])
    x = features(space, genes)
    weight, offsets, noises = np.ones(len(y)), np.zeros(len(sources)), np.zeros(len(sources))
    if len(sources) > 1:
        layout, scales = layout_of(space), scaling(x, layout_of(space))
        z = (x - scales["shift"]) / scales["scale"]
        trend, costs = z[:, layout.numbers], z[:, layout.costs]
        indicator = source[:, None] == np.arange(1, len(sources))
        z = np.concatenate(
            [z[:, layout.codes], costs**2, costs[:, :1] * costs[:, 1:], _FREE * trend, _FREE * indicator], 1
        )
        for _ in range(_ROUNDS):
            penalty = RidgeCV(_PENALTIES).fit(z, y, sample_weight=weight).alpha_
            unseen = cross_val_predict(
                Ridge(penalty), z, y, cv=KFold(5, shuffle=True, random_state=0), params={"sample_weight": weight}
            )
            noises = np.array([np.sqrt(np.mean((y - unseen)[source == i] ** 2)) for i in range(len(sources))])
            weight = (noises[0] / noises[source]) ** 2
        offsets[1:] = _FREE * Ridge(penalty).fit(z, y, sample_weight=weight).coef_[-len(sources) + 1 :]
    return Merged(space, genes, x, y - offsets[source], weight, source, tuple(offsets.tolist()), tuple(noises.tolist()))


def check(samples: Samples, name: str) -> None:
    """Refuse samples that nothing can be fitted on.

    Raises:
        OfaDeployError: naming `name` and what is wrong.
    """
    if len(samples) < 20:
        raise OfaDeployError(f"{name}: {len(samples)} samples are too few to fit a predictor; measure at least 20")
    if samples.top1_percent.max() <= 1:
        raise OfaDeployError(f"{name}: accuracies of 1 % at most look like fractions; write percent: 89.5, not 0.895")
    if np.median(abs(samples.top1_percent - np.median(samples.top1_percent))) == 0:
        raise OfaDeployError(
            f"{name}: the measured accuracies are all equal, or nearly all: there is nothing to fit; "
            "measure more subnetworks, on more images, or check the supernet's weights"
        )
