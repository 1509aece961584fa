"""Layers: plain ones made from an `Op`, and the elastic block whose slices they are.

Module names are those of the official once-for-all networks, so that state dicts have the same keys and shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.ops import Op
from ofa_deploy.supernet.depthwise import depthwise_conv

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Activation] = {
    "none": lambda x: x,
    "relu": lambda x: F.relu(x, inplace=True),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "hswish": lambda x: F.hardswish(x, inplace=True),
}


def _conv_bn(conv: nn.Module, bn: nn.Module, **more: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"conv": conv, "bn": bn, **more})


def _squeeze_excite(channels: int, middle: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"fc": nn.ModuleDict({"reduce": nn.Conv2d(channels, middle, 1), "expand": nn.Conv2d(middle, channels, 1)})}
    )


class ConvLayer(nn.Module):
    """Convolution, batch norm, activation."""

    def __init__(self, op: Op, eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(op.c_in, op.c_out, op.kernel, op.stride, op.kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(op.c_out, eps)
        self.act = _ACTIVATIONS[op.act]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class PoolLayer(nn.Module):
    """Global average, keeping the spatial axes at 1 x 1."""

    def __init__(self, op: Op, eps: float) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class LinearLayer(nn.Module):
    """Dense layer on a 1 x 1 map: a classifier (flat output) where it has a bias, otherwise a 1x1 convolution."""

    def __init__(self, op: Op, eps: float) -> None:
        super().__init__()
        self.act = _ACTIVATIONS[op.act]
        if op.bias:
            self.linear = nn.Linear(op.c_in, op.c_out)
        else:
            self.conv = nn.Conv2d(op.c_in, op.c_out, 1, bias=False)
        self.flat = op.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x.flatten(1)) if self.flat else self.conv(x))


class MBConv(nn.Module):
    """Inverted residual block with optional squeeze-and-excitation (Howard et al., arXiv 1905.02244)."""

    def __init__(self, op: Op, eps: float) -> None:
        super().__init__()
        mid, pad = op.c_mid, op.kernel // 2
        self.op = op
        self.act = _ACTIVATIONS[op.act]
        if op.c_mid != op.c_in:
            self.inverted_bottleneck = _conv_bn(nn.Conv2d(op.c_in, mid, 1, bias=False), nn.BatchNorm2d(mid, eps))
        more = {"se": _squeeze_excite(mid, op.se)} if op.se else {}
        depthwise = nn.Conv2d(mid, mid, op.kernel, op.stride, pad, groups=mid, bias=False)
        self.depth_conv = _conv_bn(depthwise, nn.BatchNorm2d(mid, eps), **more)
        self.point_linear = _conv_bn(nn.Conv2d(mid, op.c_out, 1, bias=False), nn.BatchNorm2d(op.c_out, eps))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if self.op.c_mid != self.op.c_in:
            y = self.act(self.inverted_bottleneck["bn"](self.inverted_bottleneck["conv"](y)))
        y = self.act(self.depth_conv["bn"](self.depth_conv["conv"](y)))
        if self.op.se:
            fc = self.depth_conv["se"]["fc"]  # type: ignore[index]
            y = y * F.hardsigmoid(fc["expand"](F.relu(fc["reduce"](y.mean((2, 3), keepdim=True)))))
        y = self.point_linear["bn"](self.point_linear["conv"](y))
        return x + y if self.op.shortcut else y


class Block(nn.Module):
    """A numbered block; it exists so that its weights are called `blocks.N.conv.*`."""

    def __init__(self, op: Op, eps: float) -> None:
        super().__init__()
        self.conv = MBConv(op, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


LAYERS: dict[str, Callable[[Op, float], nn.Module]] = {
    "conv": ConvLayer, "mbconv": Block, "pool": PoolLayer, "linear": LinearLayer,
}  # fmt: skip
"""The plain layer of each kind of operator."""


class _ElasticKernel(nn.Module):
    """Depthwise weights of the largest kernel, and the learned matrices that make the smaller ones of its centre."""

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.kernels = kernels
        self.conv = nn.Conv2d(channels, channels, kernels[-1], groups=channels, bias=False)
        for small, large in itertools.pairwise(kernels):
            self.register_parameter(f"{large}to{small}_matrix", nn.Parameter(torch.eye(small * small)))

    def weight(self, channels: int, kernel: int) -> Tensor:
        """Weights of one kernel size for the first channels, shape (channels, 1, kernel, kernel)."""
        weight = self.conv.weight[:channels]
        for small, large in reversed(list(itertools.pairwise(self.kernels))):
            if kernel == large:
                break
            edge = (large - small) // 2
            centre = weight[:, :, edge : edge + small, edge : edge + small].reshape(channels, small * small)
            weight = F.linear(centre, self.get_parameter(f"{large}to{small}_matrix")).view(channels, 1, small, small)
        return weight


class _ElasticNorm(nn.Module):
    """Batch norm whose first channels are used."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        bn, c = self.bn, x.shape[1]
        mean, var = bn.get_buffer("running_mean")[:c], bn.get_buffer("running_var")[:c]
        return F.batch_norm(x, mean, var, bn.weight[:c], bn.bias[:c], self.training, bn.momentum or 0.1, bn.eps)


class _PointConv(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)


class ElasticMBConv(nn.Module):
    """An inverted residual block of which any kernel and any expansion up to its largest can be used."""

    def __init__(self, largest: Op, kernels: tuple[int, ...], eps: float) -> None:
        super().__init__()
        mid, out = largest.c_mid, largest.c_out
        self.act = _ACTIVATIONS[largest.act]
        self.inverted_bottleneck = _conv_bn(_PointConv(largest.c_in, mid), _ElasticNorm(mid, eps))
        more = {"se": _squeeze_excite(mid, largest.se)} if largest.se else {}
        self.depth_conv = _conv_bn(_ElasticKernel(mid, kernels), _ElasticNorm(mid, eps), **more)
        self.point_linear = _conv_bn(_PointConv(mid, out), _ElasticNorm(out, eps))

    def _weights(self, op: Op) -> dict[str, Tensor]:
        """The slices that `op` uses, under the names of `MBConv`'s state dict."""
        depthwise = self.get_submodule("depth_conv.conv")
        assert isinstance(depthwise, _ElasticKernel)
        weights = {
            "inverted_bottleneck.conv.weight": self.get_parameter("inverted_bottleneck.conv.conv.weight")[: op.c_mid],
            "depth_conv.conv.weight": depthwise.weight(op.c_mid, op.kernel),
            "point_linear.conv.weight": self.get_parameter("point_linear.conv.conv.weight")[:, : op.c_mid],
        }
        if op.se:
            fc = "depth_conv.se.fc."
            weights |= {
                f"{fc}reduce.weight": self.get_parameter(f"{fc}reduce.weight")[: op.se, : op.c_mid],
                f"{fc}reduce.bias": self.get_parameter(f"{fc}reduce.bias")[: op.se],
                f"{fc}expand.weight": self.get_parameter(f"{fc}expand.weight")[: op.c_mid, : op.se],
                f"{fc}expand.bias": self.get_parameter(f"{fc}expand.bias")[: op.c_mid],
            }
        return weights

    def forward(self, x: Tensor, op: Op) -> Tensor:
        w = self._weights(op)
        y: Tensor = F.conv2d(x, w["inverted_bottleneck.conv.weight"])
        y = self.act(self.inverted_bottleneck["bn"](y))
        y = depthwise_conv(y, w["depth_conv.conv.weight"], op.stride)
        y = self.act(self.depth_conv["bn"](y))
        if op.se:
            fc = "depth_conv.se.fc."
            gate = F.conv2d(y.mean((2, 3), keepdim=True), w[f"{fc}reduce.weight"], w[f"{fc}reduce.bias"])
            y = y * F.hardsigmoid(F.conv2d(F.relu(gate), w[f"{fc}expand.weight"], w[f"{fc}expand.bias"]))
        y = self.point_linear["bn"](F.conv2d(y, w["point_linear.conv.weight"]))
        return x + y if op.shortcut else y

    @torch.no_grad()
    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        """Put the important middle channels first: those that the projection reads with the largest L1 norm.

        The order of middle channels does not matter to the whole block `op`; it decides which ones a smaller
        expansion takes. The channels of the smaller blocks `kept` stay theirs. Likewise for the bottleneck of
        squeeze-and-excitation, by the weights that its expansion reads it with.
        """
        point, depth, expand = (self.get_submodule(f"{m}.conv.conv") for m in _PARTS)
        order = _importance_order(point.get_parameter("weight"), [k.c_mid for k in kept])
        _permute(point, order, 1)
        for module in (depth, expand, *(self.get_submodule(f"{m}.bn.bn") for m in _PARTS[1:])):
            _permute(module, order, 0)
        if op.se:
            reduce, grow = (self.get_submodule(f"depth_conv.se.fc.{name}") for name in ("reduce", "expand"))
            _permute(grow, order, 0)
            _permute(reduce, order, 1)
            order = _importance_order(grow.get_parameter("weight"), [k.se for k in kept])
            _permute(grow, order, 1)
            _permute(reduce, order, 0)

    def extract(self, op: Op) -> dict[str, Tensor]:
        """State dict of the plain `MBConv` of `op`: copies of the slices in use."""
        state = {name: weight.detach().clone() for name, weight in self._weights(op).items()}
        for part, channels in (("inverted_bottleneck", op.c_mid), ("depth_conv", op.c_mid), ("point_linear", op.c_out)):
            for name, value in self.get_submodule(f"{part}.bn.bn").state_dict().items():
                state[f"{part}.bn.{name}"] = (value[:channels] if value.ndim else value).clone()
        return state


_PARTS = ("point_linear", "depth_conv", "inverted_bottleneck")


def _importance_order(weight: Tensor, ends: Sequence[int]) -> Tensor:
    """Input channels of a convolution by falling L1 norm, within the groups that end at `ends` and at the last."""
    importance = weight.abs().sum((0, 2, 3))
    ends = sorted({*ends, len(importance)})
    starts = [0, *ends[:-1]]
    return torch.cat([
        start + importance[start:end].argsort(descending=True, stable=True)
        for start, end in zip(starts, ends, strict=True)
    ])  # fmt: skip


def _permute(module: nn.Module, order: Tensor, axis: int) -> None:
    """Reorder a layer's outputs (axis 0: weights, biases, statistics) or inputs (axis 1: weights), in place."""
    for value in module.state_dict().values():
        if value.ndim > axis:
            value.copy_(value.index_select(axis, order))


class ElasticBlock(nn.Module):
    """A numbered elastic block; its weights are called `blocks.N.conv.*`."""

    def __init__(self, largest: Op, kernels: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.conv = ElasticMBConv(largest, kernels, eps)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        return self.conv(x, op)  # type: ignore[no-any-return]
