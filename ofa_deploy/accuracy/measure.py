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
"""Pixels of a batch: more do not fit into the cache, fewer spend their time on calls."""


def count_correct(net: Supernet, archs: Sequence[Arch], *, data: Dataset, batch: int | None = None) -> list[int]:
    """How many held-out images each of several subnetworks classifies correctly.

    Args:
        net: the supernet.
        archs: its subnetworks, all of one resolution.
        data: the images.
        batch: images that are run at once; None for as many as have `BATCH_PIXELS` pixels.
    """
    counts: list[int] = classified(net, archs, data=data, batch=batch).sum(axis=1).tolist()
    return counts


def classified(
    net: Supernet, archs: Sequence[Arch], *, data: Dataset, batch: int | None = None, bootstrap_seed: int | None = None
) -> npt.NDArray[np.bool_]:
    """Which held-out images each of several subnetworks classifies correctly.

    Args:
        net: the supernet.
        archs: its subnetworks, all of one resolution.
        data: the images.
        batch: images that are run at once; None for as many as have `BATCH_PIXELS` pixels.
        bootstrap_seed: recalibrate on a bootstrap sample, drawn with this seed, of the images for recalibration.

    Returns:
        shape (networks, images).
    """
    resolution, images = archs[0].resolution, data.heldout
    if bootstrap_seed is not None:
        number = min(RECALIBRATION, len(data.train))
        rows = np.random.default_rng(bootstrap_seed).integers(0, number, number)
        data = replace(data, train=data.train[rows])
    batch = batch or max(16, BATCH_PIXELS // resolution**2)
    batches = (
        (data.tensor(images.pixels[i : i + batch], resolution), torch.from_numpy(images.labels[i : i + batch]))
        for i in range(0, len(images), batch)
    )
    return prefixes.classified(net, archs, recalibration=data.recalibration(resolution), images=batches)
