"""Elastic layers: of each, any slice up to the largest can be used, and cut out as a plain layer.

Module names are those of the official once-for-all networks, so that state dicts have the same keys and shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.ops import Op
from ofa_deploy.parts import Place, Stage
from ofa_deploy.supernet.depthwise import depthwise_conv
from ofa_deploy.supernet.layers import ACTIVATIONS, average, bottleneck_convs, conv_bn, plain_layer, squeeze_excite


class Elastic(nn.Module):
    """A layer that computes any operator up to its largest."""

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """What the plain layer of `op` computes with the slices that `op` uses."""
        raise NotImplementedError

    def extract(self, op: Op) -> dict[str, Tensor]:
        """State dict of the plain layer of `op`: copies of the slices in use."""
        raise NotImplementedError

    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        """Put the important middle channels first; see `Supernet.sort_channels`. Layers without any do nothing."""


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

    def extract(self, channels: int) -> dict[str, Tensor]:
        """State dict of the plain norm of the first channels."""
        return {name: (v[:channels] if v.ndim else v).clone() for name, v in self.bn.state_dict().items()}


class _Conv(nn.Module):
    """A convolution of which the first inputs and outputs are used."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, bias=False)


class ElasticMBConv(Elastic):
    """An inverted residual block of which any kernel and any expansion up to its largest can be used."""

    def __init__(self, largest: Op, kernels: tuple[int, ...], eps: float) -> None:
        super().__init__()
        mid, out = largest.c_mid, largest.c_out
        self.act = ACTIVATIONS[largest.act]
        self.inverted_bottleneck = conv_bn(_Conv(largest.c_in, mid), _ElasticNorm(mid, eps))
        more = {"se": squeeze_excite(mid, largest.se)} if largest.se else {}
        self.depth_conv = conv_bn(_ElasticKernel(mid, kernels), _ElasticNorm(mid, eps), **more)
        self.point_linear = conv_bn(_Conv(mid, out), _ElasticNorm(out, eps))

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
        """Sort by the L1 norm of the projection's weights that read a channel.

        Likewise for the bottleneck of squeeze-and-excitation, by the weights that its expansion reads it with.
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
            norm = self.get_submodule(f"{part}.bn")
            assert isinstance(norm, _ElasticNorm)
            state |= _prefixed(f"{part}.bn", norm.extract(channels))
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


class ElasticBlock(Elastic):
    """A numbered elastic block; its weights are called `blocks.N.conv.*`."""

    def __init__(self, largest: Op, kernels: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.conv = ElasticMBConv(largest, kernels, eps)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        return self.conv(x, op)  # type: ignore[no-any-return]

    def extract(self, op: Op) -> dict[str, Tensor]:
        return _prefixed("conv", self.conv.extract(op))

    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        self.conv.sort_channels(op, kept)


class ElasticConvLayer(Elastic):
    """Convolution, batch norm and activation with elastic input and output channels."""

    def __init__(self, largest: Op, eps: float) -> None:
        super().__init__()
        self.conv = _Conv(largest.c_in, largest.c_out, largest.kernel)
        self.bn = _ElasticNorm(largest.c_out, eps)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        weight = self.conv.conv.weight[: op.c_out, : op.c_in]
        return ACTIVATIONS[op.act](self.bn(F.conv2d(x, weight, None, op.stride, op.kernel // 2)))

    def extract(self, op: Op) -> dict[str, Tensor]:
        weight = self.conv.conv.weight.detach()[: op.c_out, : op.c_in].clone()
        return {"conv.weight": weight, **_prefixed("bn", self.bn.extract(op.c_out))}


class ElasticResidual(Elastic):
    """An elastic convolution layer whose input is added to its output."""

    def __init__(self, largest: Op, eps: float) -> None:
        super().__init__()
        self.conv = ElasticConvLayer(largest, eps)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        return x + self.conv(x, op)  # type: ignore[no-any-return]

    def extract(self, op: Op) -> dict[str, Tensor]:
        return _prefixed("conv", self.conv.extract(op))


class ElasticBottleneck(Elastic):
    """A bottleneck of ResNet-D with elastic input, middle and output channels."""

    def __init__(self, largest: Op, eps: float) -> None:
        super().__init__()
        for name, (c_in, c_out, kernel, _) in bottleneck_convs(largest).items():
            self.add_module(name, conv_bn(_Conv(c_in, c_out, kernel), _ElasticNorm(c_out, eps)))

    def forward(self, x: Tensor, op: Op) -> Tensor:
        convs, act = bottleneck_convs(op), ACTIVATIONS[op.act]

        def run(name: str, x: Tensor) -> Tensor:
            c_in, c_out, kernel, stride = convs[name]
            weight = self.get_parameter(f"{name}.conv.conv.weight")[:c_out, :c_in]
            return self.get_submodule(f"{name}.bn")(F.conv2d(x, weight, None, stride, kernel // 2))  # type: ignore[no-any-return]

        y = act(run("conv1", x))
        y = run("conv3", act(run("conv2", y)))
        if not op.shortcut:
            x = run("downsample", average(x, op.stride))
        return act(x + y)

    def extract(self, op: Op) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name, (c_in, c_out, _, _) in bottleneck_convs(op).items():
            weight = self.get_parameter(f"{name}.conv.conv.weight").detach()[:c_out, :c_in]
            norm = self.get_submodule(f"{name}.bn")
            assert isinstance(norm, _ElasticNorm)
            state |= {f"{name}.conv.weight": weight.clone(), **_prefixed(f"{name}.bn", norm.extract(c_out))}
        return state

    @torch.no_grad()
    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        """Sort what each of the last two convolutions reads by the L1 norm of its weights."""
        for writer, reader in (("conv2", "conv3"), ("conv1", "conv2")):
            conv = self.get_submodule(f"{reader}.conv.conv")
            order = _importance_order(conv.get_parameter("weight"), [k.c_mid for k in kept])
            _permute(conv, order, 1)
            _permute(self.get_submodule(f"{writer}.conv.conv"), order, 0)
            _permute(self.get_submodule(f"{writer}.bn.bn"), order, 0)


class ElasticLinear(Elastic):
    """A classifier of which the first inputs are used."""

    def __init__(self, largest: Op, eps: float) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({"linear": nn.Linear(largest.c_in, largest.c_out)})

    def forward(self, x: Tensor, op: Op) -> Tensor:
        linear = self.linear["linear"]
        return F.linear(x.flatten(1), linear.get_parameter("weight")[:, : op.c_in], linear.get_parameter("bias"))

    def extract(self, op: Op) -> dict[str, Tensor]:
        linear = self.linear["linear"]
        weight, bias = (linear.get_parameter(name).detach() for name in ("weight", "bias"))
        return {"linear.weight": weight[:, : op.c_in].clone(), "linear.bias": bias.clone()}


def supernet_layer(place: Place, largest: Op, eps: float) -> nn.Module:
    """The layer of a place of a supernet: elastic where its operator can differ and has weights, otherwise plain."""
    if isinstance(place.part, Stage):
        if largest.kind == "mbconv":
            return ElasticBlock(largest, place.part.kernels, eps)
        return (ElasticBottleneck if largest.kind == "bottleneck" else ElasticResidual)(largest, eps)
    if (place.width_in, place.width_out) != (None, None) and largest.kind in ("conv", "linear"):
        return (ElasticConvLayer if largest.kind == "conv" else ElasticLinear)(largest, eps)
    return plain_layer(largest, eps)


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in state.items()}
