"""Weights of elastic layers, of which slices are used: of convolutions, depthwise kernels and batch norms.

Module names are those of the official once-for-all networks, so that state dicts have the same keys and shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def first_entries(value: Tensor, number: int) -> Tensor:
    """The first entries of the first axis; all of them without slicing, whose microseconds small networks feel."""
    return value if len(value) == number else value[:number]


class KernelWeights(nn.Module):
    """Depthwise weights of the largest kernel, and learned matrices that turn its centre into each smaller one.

    Args:
        channels: most channels.
        kernels: edges in pixels, rising.
    """

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.largest = kernels[-1]
        self.conv = nn.Conv2d(channels, channels, self.largest, groups=channels, bias=False)
        reductions: list[tuple[int, str, slice]] = []
        for small, large in itertools.pairwise(kernels):
            name, margin = f"{large}to{small}_matrix", (large - small) // 2
            self.register_parameter(name, nn.Parameter(torch.eye(small * small)))
            reductions.insert(0, (small, name, slice(margin, margin + small)))
        self.reductions = tuple(reductions)

    def weight(self, channels: int, kernel: int) -> Tensor:
        """Weights of one kernel size for the first channels, shape (channels, 1, kernel, kernel)."""
        weight = first_entries(self.conv.weight, channels)
        if kernel == self.largest:
            return weight
        for small, matrix, centre in self.reductions:
            flat = weight[:, 0, centre, centre].reshape(channels, small * small)
            weight = F.linear(flat, getattr(self, matrix)).view(channels, 1, small, small)
            if small == kernel:
                break
        return weight


class NormWeights(nn.Module):
    """Batch norm of which the first channels are used."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps)

    def first(self, channels: int) -> tuple[Tensor, ...]:
        """Mean, variance, scale and shift of the first channels, each of shape (channels,)."""
        bn = self.bn
        values = (bn.get_buffer("running_mean"), bn.get_buffer("running_var"), bn.weight, bn.bias)
        return tuple(first_entries(value, channels) for value in values)

    def normalise(self, x: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Normalise with the mean, variance, scale and shift of `first`; in training the first two are updated."""
        mean, var, weight, bias = values
        return F.batch_norm(x, mean, var, weight, bias, self.training, self.bn.momentum or 0.1, self.bn.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise as many channels as the input has: shape (n, channels, height, width), in and out."""
        return self.normalise(x, self.first(x.shape[1]))

    def extract(self, channels: int) -> dict[str, Tensor]:
        """State dict of the plain norm of the first channels."""
        return {name: (v[:channels] if v.ndim else v).clone() for name, v in self.bn.state_dict().items()}


class ConvWeights(nn.Module):
    """A convolution of which the first inputs and outputs are used."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, bias=False)


def importance_order(weight: Tensor, ends: Sequence[int]) -> Tensor:
    """Input channels of a convolution by falling L1 norm, sorted only within groups.

    Args:
        weight: shape (c_out, c_in, kernel, kernel).
        ends: numbers of channels at which a group ends; the last group ends with the last channel.

    Returns:
        indices of shape (c_in,).
    """
    importance = weight.abs().sum((0, 2, 3))
    ends = sorted({*ends, len(importance)})
    starts = [0, *ends[:-1]]
    return torch.cat(
        [
            start + importance[start:end].argsort(descending=True, stable=True)
            for start, end in zip(starts, ends, strict=True)
        ]
    )


def permute(module: nn.Module, order: Tensor, *, axis: int) -> None:
    """Reorder a layer's outputs (axis 0: weights, biases, statistics) or inputs (axis 1: weights), in place."""
    for value in module.state_dict().values():
        if value.ndim > axis:
            value.copy_(value.index_select(axis, order))


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names `prefix.NAME`."""
    return {f"{prefix}.{name}": value for name, value in state.items()}
