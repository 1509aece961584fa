"""Training batches: shuffled, augmented on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.supernet.processes import Processes


def batches(
    data: Dataset, batch: int, erase: float, seed: tuple[int, ...], processes: Processes
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the training images; what a last incomplete batch would hold is left out.

    Every image is shifted by up to 2 pixels in 28 and flipped half the time.

    Args:
        data: whose training images.
        batch: images a step over all processes; each process gets its share.
        erase: probability that a rectangle of an image (a quarter to a half of it a side) takes the mean colour.
        seed: of the order, the same in all processes, and of the augmentation.
        processes: who trains.

    Returns:
        pixels, uint8 of shape (share, channels, height, width), and labels, int64 of shape (share,), on the device.
    """
    order = np.random.default_rng(seed).permutation(len(data.train))
    rng = np.random.default_rng([*seed, 1 + processes.rank])
    for i in range(0, len(order) - batch + 1, batch):
        images = data.train[order[i : i + batch][processes.rank :: processes.number]]
        pixels = torch.from_numpy(images.pixels).to(processes.device)
        yield augment(pixels, data.mean, erase, rng), torch.from_numpy(images.labels).to(processes.device)


def augment(pixels: Tensor, mean: tuple[float, ...], erase: float, rng: np.random.Generator) -> Tensor:
    """Randomly shift, flip and blank images: uint8 of shape (n, channels, height, width), in and out."""
    n, channels, height, width = pixels.shape
    reach = max(1, round(height / 14))

    def draw(low: int, high: int, shape: tuple[int, ...] = (n, 1)) -> Tensor:
        return torch.from_numpy(rng.integers(low, high + 1, shape)).to(pixels.device)

    y, x = (torch.arange(size, device=pixels.device) for size in (height, width))
    rows, columns = y + draw(0, 2 * reach), x + draw(0, 2 * reach)
    columns = torch.where(draw(0, 1).bool(), columns, columns.flip(1))
    padded = torch.nn.functional.pad(pixels, (reach,) * 4)
    which = [torch.arange(size, device=pixels.device) for size in (n, channels)]
    out = padded[which[0][:, None, None, None], which[1][:, None, None], rows[:, None, :, None], columns[:, None, None]]
    if erase:
        hit = torch.from_numpy(rng.random((n, 1, 1)) < erase).to(pixels.device)
        for positions, size in ((y[:, None], height), (x, width)):
            length = draw(max(1, size // 4), max(1, size // 2), (n, 1, 1))
            start = (draw(0, 2**16 - 1, (n, 1, 1)) * (size - length + 1)) >> 16
            hit = hit & (positions >= start) & (positions < start + length)
        colour = torch.tensor([round(255 * m) for m in mean], dtype=torch.uint8, device=pixels.device)
        out = torch.where(hit[:, None], colour.view(1, -1, 1, 1), out)
    return out
