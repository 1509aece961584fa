"""Subnetworks that are ready to be used, and the share of images that they, or sessions, classify correctly."""

from __future__ import annotations

import numpy as np
import torch

from ofa_deploy.data.dataset import RECALIBRATION, Dataset, Images
from ofa_deploy.device.timing import Run
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet.network import Subnet, Supernet
from ofa_deploy.supernet.recalibration import recalibrate

BATCH = 200
"""Images that are classified at once."""


def specialise(net: Supernet, arch: Arch, *, data: Dataset, images: int = RECALIBRATION) -> Subnet:
    """A subnetwork with recalibrated batch norms.

    Args:
        net: the supernet, which stays as it is.
        arch: the subnetwork's architecture; its resolution is that of the images.
        data: whose training images.
        images: how many training images the batch norms are recalibrated on.
    """
    subnet = net.subnet(arch)
    with torch.inference_mode():
        recalibrate(subnet, data.recalibration(arch.resolution, images))
    return subnet


def top1_percent(net: Subnet, data: Dataset, images: Images) -> float:
    """Share of images that a subnetwork classifies correctly, in percent; it is left in evaluation mode.

    Args:
        net: the subnetwork, on any device.
        data: what normalises the images.
        images: the images.
    """
    device, resolution, correct = next(net.parameters()).device, net.arch.resolution, 0
    net.eval()
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            classes = net(data.tensor(batch.pixels, resolution).to(device)).argmax(1).cpu()
            correct += int((classes == torch.from_numpy(batch.labels)).sum())
    return 100 * correct / len(images)


def count_correct_by_session(run: Run, data: Dataset, *, images: Images, resolution: int, batch: int) -> int:
    """How many images a session, or another function, classifies correctly.

    Args:
        run: takes (batch, channels, resolution, resolution), gives logits (batch, classes).
        data: what normalises the images.
        images: the images.
        resolution: height and width of the network inputs, in pixels.
        batch: images a call, which `run` is fixed to; the last batch is filled up with zeros.
    """
    correct = 0
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        x = np.zeros((batch, chunk.pixels.shape[1], resolution, resolution), np.float32)
        x[: len(chunk)] = data.tensor(chunk.pixels, resolution).numpy()
        correct += int((run(x)[: len(chunk)].argmax(1) == chunk.labels).sum())
    return correct
