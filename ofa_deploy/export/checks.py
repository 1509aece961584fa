"""Checks of an exported file: whether it computes what torch computes, and how accurate it is."""

from __future__ import annotations

import numpy as np

from ofa_deploy.accuracy.intervals import mean_interval95, share_interval95
from ofa_deploy.data.dataset import Dataset, Images
from ofa_deploy.device.timing import Array, Run
from ofa_deploy.errors import MeasureError
from ofa_deploy.export.subject import Subject
from ofa_deploy.supernet.evaluation import count_correct_by_session

PARITY_IMAGES = 256
"""Held-out images on which logits are compared with torch's."""
TOLERANCE = 1e-4
"""Difference of logits that is let pass, in the share of the largest where that exceeds 1."""
DROP_IMAGES = 2_000
"""Held-out images on which the loss of int8 is measured."""
TOGETHER = 100
"""Images that are resized at once."""


def parity(run: Run, subject: Subject, *, tolerance: float | None = TOLERANCE) -> dict[str, float]:
    """Compare a session with the torch network on real held-out images.

    Args:
        run: takes (1, channels, resolution, resolution).
        subject: what it must compute, and the images.
        tolerance: of the difference; None only measures it.

    Returns:
        images, max_difference of the logits (relative to the largest where that exceeds 1), and agreement_percent
        of the predicted classes.

    Raises:
        MeasureError: the difference exceeds the tolerance.
    """
    expected = subject.logits(PARITY_IMAGES)
    got = _one_by_one(run, subject, PARITY_IMAGES)
    difference = float(np.abs(got - expected).max() / max(1.0, float(np.abs(expected).max())))
    if tolerance is not None and not difference <= tolerance:
        raise MeasureError(f"the exported graph differs from torch by {difference:.2g}, more than {tolerance}")
    agreement = 100 * float((got.argmax(1) == expected.argmax(1)).mean())
    return {"images": len(got), "max_difference": difference, "agreement_percent": agreement}


def accuracy_drop(run: Run, subject: Subject) -> dict[str, float]:
    """How much less accurate a session is than the torch network, on the same held-out images.

    Returns:
        images, torch_top1_percent, top1_percent, drop_points, and interval95_points: half the width of the drop's 95 %
        interval (normal approximation, paired).
    """
    labels = subject.data.heldout[:DROP_IMAGES].labels
    logits = subject.logits(DROP_IMAGES), _one_by_one(run, subject, DROP_IMAGES)
    before, after = ((values.argmax(1) == labels).astype(float) for values in logits)
    return {
        "images": len(labels),
        "torch_top1_percent": 100 * float(before.mean()),
        "top1_percent": 100 * float(after.mean()),
        "drop_points": 100 * float((before - after).mean()),
        "interval95_points": round(100 * mean_interval95(float((before - after).std()), len(labels)), 3),
    }


def _one_by_one(run: Run, subject: Subject, number: int) -> Array:
    """Logits of a session of batch 1 for the first held-out images."""
    pixels, size = subject.data.heldout.pixels[:number], subject.net.arch.resolution
    batches = (subject.data.tensor(pixels[i : i + TOGETHER], size).numpy() for i in range(0, len(pixels), TOGETHER))
    return np.concatenate([run(np.ascontiguousarray(image[None])) for batch in batches for image in batch])


def top1(run: Run, data: Dataset, images: Images, resolution: int) -> dict[str, float]:
    """Top-1 accuracy of a session of batch 1, with the half width of its 95 % interval (normal approximation)."""
    share = count_correct_by_session(run, data, images=images, resolution=resolution, batch=1) / len(images)
    half = share_interval95(share, len(images))
    return {"top1_percent": 100 * share, "interval95_points": round(half, 3), "images": len(images)}
