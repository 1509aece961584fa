"""Images, and their split into training, held-out and test images.

Subnetworks are measured on the held-out images (at most 10,000 of the training images); test images are touched only
to report a delivered model.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

HELD_OUT = 10_000
"""Most images that are held out of the training images."""
RECALIBRATION = 2_000
"""Training images that batch norms are recalibrated on."""
RECALIBRATION_BATCH = 200
"""Images a batch of recalibration."""
_CHUNK = 1_000
"""Images that are read at once where all of them are counted or hashed."""


@dataclass(frozen=True)
class Images:
    """Pixels and labels of images.

    Attributes:
        pixels: uint8 of shape (n, channels, height, width).
        labels: index of each image's class, int64 of shape (n,).
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> Images:
        return Images(self.pixels[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """Images with their split and what normalises them.

    Attributes:
        name: what it is called in reports.
        train: training images in an order shuffled by a fixed seed, so that any prefix is a fair sample.
        heldout: images that subnetworks are measured on.
        test: images for the final report; None where there are none.
        classes: names of the classes.
        mean: mean of each channel of the training images, of pixels in 0..1.
        std: standard deviation of each channel of the training images, of pixels in 0..1.
        complete: False where `train` is only the sample that ships for recalibration.
        source: where the images came from.
        licence: licence of the images.
    """

    name: str
    train: Images
    heldout: Images
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    complete: bool
    source: str
    licence: str

    def tensor(self, pixels: npt.NDArray[np.uint8] | Tensor, resolution: int) -> Tensor:
        """Network input from pixels: scaled to 0..1, resized (bilinear, antialiased), normalised.

        Args:
            pixels: uint8 of shape (n, channels, height, width).
            resolution: height and width of the network input, in pixels.

        Returns:
            float32 of shape (n, channels, resolution, resolution), channels last in memory, on the pixels' device.
        """
        import torch
        from torch.nn import functional as F

        x = torch.as_tensor(pixels).float().div_(255)
        if x.shape[2:] != (resolution, resolution):
            x = F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v, device=x.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return ((x - mean) / std).contiguous(memory_format=torch.channels_last)

    def sha256(self, train_images: int | None = None) -> str:
        """Checksum of the first training images (all by default) and the held-out ones, with their labels."""
        digest = hashlib.sha256()
        for images in (self.train[:train_images], self.heldout):
            for start in range(0, len(images), _CHUNK):
                digest.update(images.pixels[start : start + _CHUNK].tobytes())
            digest.update(images.labels.tobytes())
        return digest.hexdigest()

    def recalibration(self, resolution: int, images: int = RECALIBRATION) -> list[Tensor]:
        """Network inputs that batch norms are recalibrated on: the first training images, in batches.

        Args:
            resolution: height and width of the network inputs, in pixels.
            images: how many training images; fewer where there are fewer.

        Returns:
            float32 of shape (at most RECALIBRATION_BATCH, channels, resolution, resolution) each.
        """
        pixels = self.train.pixels[:images]
        size = RECALIBRATION_BATCH
        return [self.tensor(pixels[i : i + size], resolution) for i in range(0, len(pixels), size)]


def images_from_arrays(pixels: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], path: Path) -> Images:
    """Images from the arrays of a file.

    Args:
        pixels: uint8 of shape (n, height, width), (n, channels, height, width) or (n, height, width, channels).
        labels: whole numbers, shape (n,).
        path: the file, for messages.

    Raises:
        DataError: the arrays have another type or shape, or a label is negative.
    """
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[3] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = np.moveaxis(pixels, 3, 1)
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise DataError(f"{path}: images must be uint8 of 3 or 4 axes (n, [channels,] height, width)")
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be {len(pixels)} whole numbers, one an image")
    if len(labels) and labels.astype(np.int64).min() < 0:
        raise DataError(f"{path}: labels must not be negative")
    return Images(pixels.astype(np.uint8, copy=False), labels.astype(np.int64))


def split(
    train: Images, test: Images | None, *, name: str, classes: tuple[str, ...], source: str, licence: str
) -> Dataset:
    """Split training images by a fixed seed: a sixth of them, at most 10,000, are held out.

    Args:
        train: all training images.
        test: images for the final report; None where there are none.
        name: what the dataset is called in reports.
        classes: names of the classes.
        source: where the images came from.
        licence: licence of the images.
    """
    order = np.random.default_rng(0).permutation(len(train))
    held_out = min(HELD_OUT, len(train) // 6)
    kept, heldout = train[order[: len(order) - held_out]], train[order[len(order) - held_out :]]
    mean, std = _mean_and_std(kept.pixels)
    return Dataset(name, kept, heldout, test, classes, mean, std, complete=True, source=source, licence=licence)


def _mean_and_std(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in 0..1, from counts of the 256 values: no copy of the images."""
    counts = np.zeros((pixels.shape[1], 256))
    for start in range(0, len(pixels), _CHUNK):
        for count, channel in zip(counts, pixels[start : start + _CHUNK].swapaxes(0, 1), strict=True):
            count += np.bincount(channel.ravel(), minlength=256)
    values = np.arange(256)
    means = counts @ values / counts.sum(1)
    variances = (counts * (values - means[:, None]) ** 2).sum(1) / counts.sum(1)
    return (
        tuple(round(float(mean) / 255, 6) for mean in means),
        tuple(max(round(float(variance) ** 0.5 / 255, 6), 1e-6) for variance in variances),
    )
