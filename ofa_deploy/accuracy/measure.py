"""The accuracy of subnetworks on the held-out images, batch norms recalibrated on 2,000 training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ofa_deploy.accuracy import prefixes
from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet.network import Supernet

BATCH_PIXELS = 100 * 28 * 28
"""Pixels a batch: more leave the cache, fewer pay for calls."""


def count_correct(net: Supernet, archs: Sequence[Arch], *, data: Dataset, batch: int | None = None) -> list[int]:
    """How many held-out images each of several subnetworks, all of one resolution, classifies correctly.

    They are run `batch` at a time, by default as many as have `BATCH_PIXELS`.
    """
    hits: list[int] = classified(net, archs, data, batch).sum(axis=1).tolist()
    return hits


def classified(
    net: Supernet, archs: Sequence[Arch], data: Dataset, batch: int | None = None, redrawn: int | None = None
) -> npt.NDArray[np.bool_]:
    """Which held-out images each subnetwork classifies correctly, shape (networks, images); see `count_correct`.

    With `redrawn`, a seed, recalibration is on a bootstrap sample of its images.
    """
    resolution, images = archs[0].resolution, data.heldout
    if redrawn is not None:
        number = min(RECALIBRATION, len(data.train))
        some = np.random.default_rng(redrawn).integers(0, number, number)
        data = replace(data, train=data.train[some])
    batch = batch or max(16, BATCH_PIXELS // resolution**2)
    batches = (
        (data.tensor(images.pixels[i : i + batch], resolution), torch.from_numpy(images.labels[i : i + batch]))
        for i in range(0, len(images), batch)
    )
    return prefixes.classified(net, archs, data.recalibration(resolution), batches)
