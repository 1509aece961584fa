"""Checks of an exported file: does it compute what torch computes, how fast, how accurate."""

from __future__ import annotations

import numpy as np
import torch

from ofa_deploy.accuracy.measure import count_correct
from ofa_deploy.data import Dataset, Images
from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.device.timing import Session
from ofa_deploy.supernet.network import Subnet

PARITY_IMAGES = 256
TOLERANCE = 1e-4
DROP_IMAGES, DROP_BATCH = 2_000, 100


def parity(session: Session, net: Subnet, data: Dataset, tolerance: float | None = TOLERANCE) -> dict[str, float]:
    """Compare a session with the torch network on real held-out images.

    Args:
        session: takes (1, channels, resolution, resolution).
        net: what it must compute.
        data: the images.
        tolerance: of the difference; None only measures it.

    Returns:
        images, max_difference of the logits (relative to the largest where that exceeds 1), and agreement_percent
        of the predicted classes.

    Raises:
        MeasureError: the difference exceeds the tolerance.
    """
    x = data.tensor(data.heldout.pixels[:PARITY_IMAGES], net.arch.resolution)
    with torch.inference_mode():
        expected = net.eval()(x).numpy()
    got = np.concatenate([session(np.ascontiguousarray(image[None])) for image in x.numpy()])
    difference = float(np.abs(got - expected).max() / max(1.0, float(np.abs(expected).max())))
    if tolerance is not None and not difference <= tolerance:
        raise MeasureError(f"the exported graph differs from torch by {difference:.2g}, more than {tolerance}")
    agreement = 100 * float((got.argmax(1) == expected.argmax(1)).mean())
    return {"images": len(x), "max_difference": difference, "agreement_percent": agreement}


def accuracy_drop(session: Session, net: Subnet, data: Dataset) -> dict[str, float]:
    """How much less accurate a session is than the torch network, on the same held-out images.

    Returns:
        images, torch_top1_percent, top1_percent, drop_points, and interval95_points: half the width of the drop's 95 %
        interval (normal approximation, paired).
    """
    images = data.heldout[:DROP_IMAGES]
    lost = []
    for start in range(0, len(images), DROP_BATCH):
        part = images[start : start + DROP_BATCH]
        x = data.tensor(part.pixels, net.arch.resolution)
        with torch.inference_mode():
            before = net.eval()(x).argmax(1).numpy() == part.labels
        got = np.concatenate([session(np.ascontiguousarray(image[None])) for image in x.numpy()])
        lost.append(np.stack([before, got.argmax(1) == part.labels]))
    before, after = np.concatenate(lost, axis=1).astype(float)
    return {
        "images": len(images), "torch_top1_percent": 100 * float(before.mean()),
        "top1_percent": 100 * float(after.mean()), "drop_points": 100 * float((before - after).mean()),
        "interval95_points": round(196 * float((before - after).std()) / float(np.sqrt(len(images))), 3),
    }  # fmt: skip


def top1(session: Session, data: Dataset, images: Images, resolution: int) -> dict[str, float]:
    """Top-1 accuracy of a session of batch 1, with the half width of its 95 % interval (normal approximation)."""
    share = count_correct(session, data, images, resolution, 1) / len(images)
    half = 1.96 * float(np.sqrt(share * (1 - share) / len(images)))
    return {"top1_percent": 100 * share, "interval95_points": round(100 * half, 3), "images": len(images)}
