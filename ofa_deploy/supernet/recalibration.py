"""Batch-norm recalibration: the statistics of a plain network's batch norms, set from images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.supernet.layers import Normalised
from ofa_deploy.supernet.network import Subnet

PIECE_PIXELS = 4 * 224 * 224
"""Most pixels of a batch that go through a layer at once: a larger batch goes in pieces, which the caches hold."""


class BatchStatistics:
    """Makes a batch norm normalise with each batch's own mean and biased variance, and collects both.

    `freeze` sets their averages, weighted by the images of a batch, as the official code of arXiv 1908.09791 does.
    """

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        self.bn, self.images = bn, 0
        self.momentum, bn.momentum = bn.momentum, 1.0  # the running statistics become those of the last batch
        self.mean = torch.zeros_like(bn.get_buffer("running_mean"))
        self.var = torch.zeros_like(self.mean)
        self.hook = bn.register_forward_hook(self._collect)
        bn.train()

    def _collect(self, bn: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        images, values = len(inputs[0]), inputs[0].numel() // inputs[0].shape[1]
        biased = (values - 1) / values * bn.get_buffer("running_var")
        self._add(images, bn.get_buffer("running_mean"), biased)

    def _add(self, images: int, mean: Tensor, var: Tensor) -> None:
        self.mean += images * mean
        self.var += images * var
        self.images += images

    def normalise(self, pieces: Sequence[Tensor]) -> None:
        """Normalise a batch in place, and collect its statistics.

        The mean of the batch is that of the pieces' means; its variance is that of the pieces' variances plus the
        variance of their means, all weighted by the values of a piece.

        Args:
            pieces: the batch in pieces, of shape (n, channels, height, width) each.
        """
        moments = [(x.numel() // x.shape[1], *_moments(x)) for x in pieces]
        values = sum(n for n, _, _ in moments)
        mean = torch.stack([n / values * m for n, m, _ in moments]).sum(0)
        var = torch.stack([n / values * (v + (m - mean) ** 2) for n, m, v in moments]).sum(0)
        scale = self.bn.weight / torch.sqrt(var + self.bn.eps)
        shift = self.bn.bias - mean * scale
        for x in pieces:
            torch.addcmul(shift.float().view(1, -1, 1, 1), x, scale.float().view(1, -1, 1, 1), out=x)
        self._add(sum(map(len, pieces)), mean.float(), var.float())
        self.bn.get_buffer("num_batches_tracked").add_(1)

    def release(self) -> None:
        """Give the norm back in evaluation mode, with the statistics that it has now."""
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
    F.batch_norm(x, mean, var, training=True, momentum=1.0)  # on channels-last ten times as fast as torch.var_mean
    n = x.numel() // x.shape[1]
    return mean.double(), var.double() * ((n - 1) / n)  # PyTorch keeps the unbiased variance


def pieces_of(batch: Tensor, pixels: int = PIECE_PIXELS) -> list[Tensor]:
    """A batch of shape (n, channels, height, width) in pieces of at most so many pixels, but at least one image."""
    number = max(1, pixels // (batch.shape[2] * batch.shape[3]))
    return [batch[i : i + number] for i in range(0, len(batch), number)]


def collect_statistics(
    layer: nn.Module, pieces: Sequence[Tensor], statistics: Mapping[nn.Module, BatchStatistics]
) -> list[Tensor]:
    """Run a batch in pieces through a plain layer whose norms take the statistics of the whole batch.

    Args:
        layer: from `layers.plain_layer`.
        pieces: the batch in pieces, of shape (n, channels, height, width) each.
        statistics: what collects, by the norms of the layer.

    Returns:
        the layer's output for each piece.
    """
    if len(pieces) == 1 or not isinstance(layer, Normalised):
        return [layer(x) for x in pieces]
    passes = [layer.steps(x) for x in pieces]
    stops = [next(steps) for steps in passes]
    while True:
        norm, inputs = stops[0][0], [x for _, x in stops]
        statistics[norm].normalise(inputs)
        outputs, stops = [], []
        for steps, x in zip(passes, inputs, strict=True):
            try:
                stops.append(steps.send(x))
            except StopIteration as end:
                outputs.append(end.value)
        if outputs:
            return outputs


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a plain network or layer."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def recalibrate(net: Subnet, batches: Iterable[Tensor], *, piece_pixels: int = PIECE_PIXELS) -> None:
    """Set the batch-norm statistics of a plain network from images, in place: averages over the batches.

    The result depends on the images and how they are batched, not on the statistics before.

    Args:
        net: the network; it is left in evaluation mode.
        batches: normalised images, shape (n, channels, resolution, resolution) each.
        piece_pixels: most pixels of a batch that go through a layer at once.

    Raises:
        ValueError: there is no image.
    """
    net.eval()
    collected: dict[nn.Module, BatchStatistics] = {bn: BatchStatistics(bn) for bn in norms(net)}
    try:
        for batch in batches:
            pieces = pieces_of(batch, piece_pixels)
            for layer in net.in_order:
                pieces = collect_statistics(layer, pieces, collected)
    finally:
        for statistics in collected.values():
            statistics.release()
    for statistics in collected.values():
        statistics.freeze()
