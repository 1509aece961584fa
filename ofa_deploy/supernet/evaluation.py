"""A subnetwork that is ready to be used, and how many images whatever runs it classifies correctly."""

from __future__ import annotations

import numpy as np
import torch

from ofa_deploy.data.dataset import RECALIBRATION, Dataset, Images
from ofa_deploy.device.timing import Run
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet.network import Subnet, Supernet
from ofa_deploy.supernet.recalibration import recalibrate


def specialise(net: Supernet, arch: Arch, data: Dataset, images: int = RECALIBRATION) -> Subnet:
    """A subnetwork whose batch norms are recalibrated on the first training images at its resolution."""
    plain = net.subnet(arch)
    with torch.inference_mode():
        recalibrate(plain, data.recalibration(arch.resolution, images))
    return plain


def count_correct_by_session(run: Run, data: Dataset, images: Images, resolution: int, batch: int) -> int:
    """How many images a session, or another function, classifies correctly.

    Args:
        run: takes (batch, channels, resolution, resolution), gives logits (batch, classes).
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
        correct += int((run(x)[: len(part)].argmax(1) == part.labels).sum())
    return correct
