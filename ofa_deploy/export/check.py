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


def parity(session: Session, net: Subnet, data: Dataset) -> dict[str, float]:
    """Compare a session with the torch network on real held-out images.

    Returns:
        images, max_difference of the logits (relative to the largest where that exceeds 1), and agreement_percent
        of the predicted classes.

    Raises:
        MeasureError: the difference exceeds 1e-4.
    """
    x = data.tensor(data.heldout.pixels[:PARITY_IMAGES], net.arch.resolution)
    with torch.inference_mode():
        expected = net.eval()(x).numpy()
    got = np.concatenate([session(np.ascontiguousarray(image[None])) for image in x.numpy()])
    difference = float(np.abs(got - expected).max() / max(1.0, float(np.abs(expected).max())))
    if not difference <= TOLERANCE:
        raise MeasureError(f"the exported graph differs from torch by {difference:.2g}, more than {TOLERANCE}")
    agreement = 100 * float((got.argmax(1) == expected.argmax(1)).mean())
    return {"images": len(x), "max_difference": difference, "agreement_percent": agreement}


def top1(session: Session, data: Dataset, images: Images, resolution: int) -> dict[str, float]:
    """Top-1 accuracy of a session of batch 1, with the half width of its 95 % interval (normal approximation)."""
    share = count_correct(session, data, images, resolution, 1) / len(images)
    half = 1.96 * float(np.sqrt(share * (1 - share) / len(images)))
    return {"top1_percent": 100 * share, "interval95_points": round(100 * half, 3), "images": len(images)}
