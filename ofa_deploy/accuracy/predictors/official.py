"""What the once-for-all project's own accuracy predictors take as input."""

from __future__ import annotations

import numpy as np

from ofa_deploy.accuracy.predictors.inference import Array, Arrays
from ofa_deploy.spaces.costs import Genes
from ofa_deploy.spaces.official import official_widths
from ofa_deploy.spaces.space import SearchSpace


def features(space: SearchSpace, genes: Genes, arrays: Arrays) -> Array:
    """What an official predictor takes, shape (n, f): one-hot choices, then the resolution of `arrays["resolutions"]`.

    For spaces without elastic widths the choices are kernel and expansion of each slot; for ResNet50D whether the stem
    has its middle layer (no, yes), each width, and the expansion of each slot.
    """
    one_hot = space.encode(genes)[:, : -len(space.resolutions)]
    if space.widths:
        one_hot = _resnet(space, genes, one_hot)
    listed = arrays["resolutions"].tolist()
    sizes = np.array(space.resolutions)[genes[:, 0]]
    index = np.maximum(np.searchsorted(listed, sizes, side="right") - 1, 0)
    return np.concatenate([one_hot, np.eye(len(listed), dtype=np.float32)[index]], axis=1)


def _resnet(space: SearchSpace, genes: Genes, one_hot: Array) -> Array:
    slots = [place.stage for place in space.slots]
    stem = next(i for i, stage in enumerate(space.stages) if stage.depths == (0, 1))
    has_stem = np.eye(2)[(genes[:, 1 + slots.index(stem)] > 0).astype(int)]
    widths = []
    for column, (choices, padded) in enumerate(zip(space.widths, official_widths(space), strict=True)):
        index = np.array([padded.index(c) for c in choices])
        widths.append(np.eye(len(padded))[index[genes[:, 1 + len(slots) + column]]])
    ratios = sorted({e for stage in space.stages if stage.depths != (0, 1) for e in stage.expands})
    start = len(slots) * len(space.kernels)
    expands = one_hot[:, start : start + len(slots) * len(space.expands)].reshape(len(genes), len(slots), -1)
    kept = expands[:, [s != stem for s in slots]][:, :, [space.expands.index(e) for e in ratios]]
    return np.concatenate([has_stem, *widths, kept.reshape(len(genes), -1)], axis=1, dtype=np.float32)
