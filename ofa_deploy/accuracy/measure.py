"""The accuracy of subnetworks on the held-out images, batch norms recalibrated on 2,000 training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ofa_deploy.accuracy import prefixes
from ofa_deploy.arch import Arch
from ofa_deploy.data import RECALIBRATION, Dataset, Images
from ofa_deploy.latency.device.timing import Session
from ofa_deploy.supernet.network import Subnet, Supernet
from ofa_deploy.supernet.recalibration import recalibrate

BATCH_PIXELS = 100 * 28 * 28
"""Pixels a batch: more leave the cache, fewer pay for calls."""


def specialise(net: Supernet, arch: Arch, data: Dataset, images: int = RECALIBRATION) -> Subnet:
    """A subnetwork whose batch norms are recalibrated on the first training images at its resolution."""
    plain = net.subnet(arch)
    with torch.inference_mode():
        recalibrate(plain, data.recalibration(arch.resolution, images))
    return plain


def count_correct(session: Session, data: Dataset, images: Images, resolution: int, batch: int) -> int:
    """How many images a session classifies correctly.

    Args:
        session: takes (batch, channels, resolution, resolution), gives logits (batch, classes).
        data: what normalises the images.
        images: which ones.
        resolution: in pixels.
        batch: that the session is fixed to; the last one is filled up with zeros.
    """
    correct = 0
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        x = np.zeros((batch, part.pixels.shape[1], resolution, resolution), np.float32)
        x[: len(part)] = data.tensor(part.pixels, resolution).numpy()
        correct += int((session(x)[: len(part)].argmax(1) == part.labels).sum())
    return correct


def measure(net: Supernet, archs: Sequence[Arch], data: Dataset, batch: int | None = None) -> list[int]:
    """How many held-out images each of several subnetworks, all of one resolution, classifies correctly.

    They are run `batch` at a time, by default as many as have `BATCH_PIXELS`.
    """
    hits: list[int] = classified(net, archs, data, batch).sum(axis=1).tolist()
    return hits


def classified(
    net: Supernet, archs: Sequence[Arch], data: Dataset, batch: int | None = None, redrawn: int | None = None
) -> npt.NDArray[np.bool_]:
    """Which held-out images each subnetwork classifies correctly, shape (networks, images); see `measure`.

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
