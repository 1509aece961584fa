"""Batch-norm recalibration: the statistics of a plain network's norms, set from images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.supernet.layers import Normalised
from ofa_deploy.supernet.network import Subnet

CHUNK_PIXELS = 4 * 224 * 224
"""Of a batch that is recalibrated on: what is larger goes through each layer in pieces that the caches hold."""


class BatchStatistics:
    """Makes a batch norm normalise with each batch's own mean and biased variance, and collects both.

    `freeze` sets their averages, weighted by the images of a batch (section 3 of arXiv 1908.09791's official code).
    """

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        self.bn, self.images = bn, 0
        self.momentum, bn.momentum = bn.momentum, 1.0  # the running statistics become those of the last batch
        self.mean = torch.zeros_like(bn.get_buffer("running_mean"))
        self.var = torch.zeros_like(self.mean)
        self.hook = bn.register_forward_hook(self._collect)
        bn.train()

    def _collect(self, bn: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        n, values = len(inputs[0]), inputs[0].numel() // inputs[0].shape[1]
        self._add(n, bn.get_buffer("running_mean"), (values - 1) / values * bn.get_buffer("running_var"))

    def _add(self, images: int, mean: Tensor, var: Tensor) -> None:
        self.mean += images * mean
        self.var += images * var
        self.images += images

    def normalise(self, pieces: Sequence[Tensor]) -> None:
        """What the norm does to a batch that is given in pieces, in place; collected as that of one batch."""
        each = [(x.numel() // x.shape[1], *_moments(x)) for x in pieces]
        values = sum(n for n, _, _ in each)
        mean = torch.stack([n / values * m for n, m, _ in each]).sum(0)
        var = torch.stack([n / values * (v + (m - mean) ** 2) for n, m, v in each]).sum(0)
        scale = self.bn.weight / torch.sqrt(var + self.bn.eps)
        shift = self.bn.bias - mean * scale
        for x in pieces:
            torch.addcmul(shift.float().view(1, -1, 1, 1), x, scale.float().view(1, -1, 1, 1), out=x)
        self._add(sum(map(len, pieces)), mean.float(), var.float())
        self.bn.get_buffer("num_batches_tracked").add_(1)

    def release(self) -> None:
        """Give the norm back in evaluation mode, with what it has."""
        self.hook.remove()
        self.bn.momentum = self.momentum
        self.bn.eval()

    def freeze(self) -> None:
        """Set the averages and give the norm back.

        Raises:
            ValueError: there was no image.
        """
        self.release()
        if not self.images:
            raise ValueError("recalibration needs at least one image")
        self.bn.get_buffer("running_mean").copy_(self.mean / self.images)
        self.bn.get_buffer("running_var").copy_(self.var / self.images)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, float64 each, shape (channels,)."""
    mean, var = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    F.batch_norm(x, mean, var, None, None, True, 1.0)  # on channels-last ten times as fast as torch.var_mean
    n = x.numel() // x.shape[1]
    return mean.double(), var.double() * ((n - 1) / n)  # PyTorch keeps the unbiased variance


def pieces_of(batch: Tensor) -> list[Tensor]:
    """A batch in pieces of `CHUNK_PIXELS`, for `collecting`."""
    number = max(1, CHUNK_PIXELS // (batch.shape[2] * batch.shape[3]))
    return [batch[i : i + number] for i in range(0, len(batch), number)]


def collecting(
    layer: nn.Module, pieces: Sequence[Tensor], statistics: Mapping[nn.Module, BatchStatistics]
) -> list[Tensor]:
    """Run a batch, given in pieces, through a plain layer whose norms take the statistics of the whole batch.

    Args:
        layer: from `layers.plain_layer`.
        pieces: of shape (n, channels, height, width) each.
        statistics: of the layer's norms.

    Returns:
        the layer's output for each piece.
    """
    if len(pieces) == 1 or not isinstance(layer, Normalised):
        return [layer(x) for x in pieces]
    passes = [layer.steps(x) for x in pieces]
    stops = [next(one) for one in passes]
    while True:
        statistics[stops[0][0]].normalise([x for _, x in stops])
        outputs, waiting, stops = [], stops, []
        for one, (_, x) in zip(passes, waiting, strict=True):
            try:
                stops.append(one.send(x))
            except StopIteration as end:
                outputs.append(end.value)
        if outputs:
            return outputs


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a plain network or layer."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def recalibrate(net: Subnet, batches: Iterable[Tensor]) -> None:
    """Set the batch-norm statistics of a plain network from images, in place (see `BatchStatistics`).

    The result depends on the images and how they are batched, not on the statistics before.

    Args:
        net: a network with `BatchNorm2d` layers; left in evaluation mode.
        batches: normalised images, shape (n, channels, resolution, resolution) each.

    Raises:
        ValueError: there is no image.
    """
    net.eval()
    collected: dict[nn.Module, BatchStatistics] = {bn: BatchStatistics(bn) for bn in norms(net)}
    try:
        for batch in batches:
            pieces = pieces_of(batch)
            for layer in net.in_order:
                pieces = collecting(layer, pieces, collected)
    finally:
        for statistics in collected.values():
            statistics.release()
    for statistics in collected.values():
        statistics.freeze()
