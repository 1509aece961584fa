"""Training batches: images in random order, augmented on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.supernet.processes import Processes


def batches(
    data: Dataset, *, batch: int, erase: float, seed: tuple[int, ...], processes: Processes
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the training images; what a last incomplete batch would hold is left out.

    Every image is shifted by up to 2 pixels in 28 and flipped half the time.

    Args:
        data: whose training images.
        batch: images a step over all processes; each process gets its share.
        erase: probability that a rectangle of an image (a quarter to a half of it a side) takes the mean colour.
        seed: seed of the order, the same in all processes, and of the augmentation.
        processes: who trains.

    Returns:
        pixels, uint8 of shape (share, channels, height, width), and labels, int64 of shape (share,), on the device.
    """
    order = np.random.default_rng(seed).permutation(len(data.train))
    rng = np.random.default_rng([*seed, 1 + processes.rank])
    for start in range(0, len(order) - batch + 1, batch):
        images = data.train[order[start : start + batch][processes.rank :: processes.number]]
        pixels = torch.from_numpy(images.pixels).to(processes.device)
        labels = torch.from_numpy(images.labels).to(processes.device)
        yield augment(pixels, data.mean, erase=erase, rng=rng), labels


def augment(pixels: Tensor, mean: tuple[float, ...], *, erase: float, rng: np.random.Generator) -> Tensor:
    """Randomly shift, flip and blank images.

    Args:
        pixels: uint8 of shape (n, channels, height, width).
        mean: mean of each channel, in 0..1: the colour of blanked rectangles.
        erase: probability that a rectangle of an image is blanked.
        rng: draws what is random.

    Returns:
        uint8 of the same shape, on the same device.
    """
    height, width = pixels.shape[2:]
    reach = max(1, round(height / 14))
    rows = torch.arange(height, device=pixels.device) + _draw(rng, pixels, 0, 2 * reach)
    columns = torch.arange(width, device=pixels.device) + _draw(rng, pixels, 0, 2 * reach)
    columns = torch.where(_draw(rng, pixels, 0, 1).bool(), columns, columns.flip(1))
    padded = torch.nn.functional.pad(pixels, (reach,) * 4)
    n, channels = (torch.arange(size, device=pixels.device) for size in pixels.shape[:2])
    moved = padded[n[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]]
    return _blank(moved, mean, erase, rng) if erase else moved


def _blank(pixels: Tensor, mean: tuple[float, ...], erase: float, rng: np.random.Generator) -> Tensor:
    """Give a rectangle of some images, a quarter to a half of the image a side, the mean colour."""
    n, _, height, width = pixels.shape
    blank = torch.from_numpy(rng.random((n, 1, 1)) < erase).to(pixels.device)
    rows, columns = (torch.arange(size, device=pixels.device) for size in (height, width))
    for positions, size in ((rows[:, None], height), (columns, width)):
        length = _draw(rng, pixels, max(1, size // 4), max(1, size // 2))[:, None]
        start = (_draw(rng, pixels, 0, 2**16 - 1)[:, None] * (size - length + 1)) >> 16
        blank = blank & (positions >= start) & (positions < start + length)
    colour = torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8, device=pixels.device)
    return torch.where(blank[:, None], colour.view(1, -1, 1, 1), pixels)


def _draw(rng: np.random.Generator, pixels: Tensor, low: int, high: int) -> Tensor:
    """A whole number from `low` to `high` for each image, shape (n, 1), on the images' device."""
    return torch.from_numpy(rng.integers(low, high + 1, (len(pixels), 1))).to(pixels.device)
