"""Elastic layers: of each, any slice up to the largest can be used, and cut out as a plain layer.

Module names are those of the official once-for-all networks, so that state dicts have the same keys and shapes.
"""

from __future__ import annotations

import itertools
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.parts import Place, Stage
from ofa_deploy.supernet.depthwise import depthwise_conv
from ofa_deploy.supernet.layers import ACTIVATIONS, average, bottleneck_convs, conv_bn, plain_layer, squeeze_excite


class Elastic(nn.Module, ABC):
    """A layer that computes any operator up to its largest."""

    @abstractmethod
    def forward(self, x: Tensor, op: Op) -> Tensor:
        """What the plain layer of `op` computes with the slices that `op` uses."""

    @abstractmethod
    def extract(self, op: Op) -> dict[str, Tensor]:
        """State dict of the plain layer of `op`: copies of the slices in use."""

    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        """Put the important middle channels first; see `Supernet.sort_channels`. Layers without any do nothing."""


def _first(value: Tensor, number: int) -> Tensor:
    """The first entries; slicing costs microseconds, which small networks feel."""
    return value if len(value) == number else value[:number]


class _ElasticKernel(nn.Module):
    """Depthwise weights of the largest kernel, and the learned matrices that make the smaller ones of its centre."""

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.largest = kernels[-1]
        self.conv = nn.Conv2d(channels, channels, self.largest, groups=channels, bias=False)
        steps: list[tuple[int, str, slice]] = []
        for small, large in itertools.pairwise(kernels):
            name, edge = f"{large}to{small}_matrix", (large - small) // 2
            self.register_parameter(name, nn.Parameter(torch.eye(small * small)))
            steps.insert(0, (small, name, slice(edge, edge + small)))
        self.steps = tuple(steps)

    def weight(self, channels: int, kernel: int) -> Tensor:
        """Weights of one kernel size for the first channels, shape (channels, 1, kernel, kernel)."""
        weight = _first(self.conv.weight, channels)
        if kernel == self.largest:
            return weight
        for small, matrix, centre in self.steps:
            flat = weight[:, 0, centre, centre].reshape(channels, small * small)
            weight = F.linear(flat, getattr(self, matrix)).view(channels, 1, small, small)
            if small == kernel:
                break
        return weight


class _ElasticNorm(nn.Module):
    """Batch norm whose first channels are used."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps)

    def first(self, channels: int) -> tuple[Tensor, ...]:
        """Mean, variance, scale and shift of the first channels."""
        bn = self.bn
        parts = (bn.get_buffer("running_mean"), bn.get_buffer("running_var"), bn.weight, bn.bias)
        return tuple(_first(part, channels) for part in parts)

    def normalise(self, x: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Normalise with what `first` returned; in training, its mean and variance are updated."""
        mean, var, weight, bias = parts
        return F.batch_norm(x, mean, var, weight, bias, self.training, self.bn.momentum or 0.1, self.bn.eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x, self.first(x.shape[1]))

    def extract(self, channels: int) -> dict[str, Tensor]:
        """State dict of the plain norm of the first channels."""
        return {name: (v[:channels] if v.ndim else v).clone() for name, v in self.bn.state_dict().items()}


class _Conv(nn.Module):
    """A convolution of which the first inputs and outputs are used."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, bias=False)


class _Slices(NamedTuple):
    """What an inverted residual block uses of its weights."""

    expand: Tensor
    depthwise: Tensor
    project: Tensor
    norms: tuple[tuple[Tensor, ...], ...]
    se: tuple[Tensor, ...]


class _Used(NamedTuple):
    """The last slices, and what they were made of."""

    op: Op
    weights: list[Tensor | None]
    state: list[tuple[int, int]]
    slices: _Slices


class ElasticMBConv(Elastic):
    """An inverted residual block of which any kernel and any expansion up to its largest can be used."""

    def __init__(self, largest: Op, kernels: tuple[int, ...], eps: float) -> None:
        super().__init__()
        mid, out = largest.c_mid, largest.c_out
        self.act = ACTIVATIONS[largest.act]
        expand, depthwise, project = _Conv(largest.c_in, mid), _ElasticKernel(mid, kernels), _Conv(mid, out)
        norms = (_ElasticNorm(mid, eps), _ElasticNorm(mid, eps), _ElasticNorm(out, eps))
        se = squeeze_excite(mid, largest.se) if largest.se else None
        self.inverted_bottleneck = conv_bn(expand, norms[0])
        self.depth_conv = conv_bn(depthwise, norms[1], **({"se": se} if se else {}))
        self.point_linear = conv_bn(project, norms[2])
        self.convs, self.norms = (expand, depthwise, project), norms  # the same modules, without looking up names

        self.sources = tuple(
            (values, name)
            for module in self.modules()
            for values in (module._parameters, module._buffers)
            for name, value in values.items()
            if value is not None and value.ndim
        )  # where the weights are, now and after .to() or load_state_dict()
        self.used: _Used | None = None

    def _slices(self, op: Op) -> _Slices:
        """The slices of all weights that `op` uses."""
        expand, depthwise, project = self.convs
        se: tuple[Tensor, ...] = ()
        if op.se:
            fc = self.depth_conv["se"]["fc"]  # type: ignore[index]
            reduce, grow = fc["reduce"], fc["expand"]
            se = (
                reduce.weight[: op.se, : op.c_mid],
                reduce.bias[: op.se],
                grow.weight[: op.c_mid, : op.se],
                grow.bias[: op.c_mid],
            )
        return _Slices(
            _first(expand.conv.weight, op.c_mid),
            depthwise.weight(op.c_mid, op.kernel),
            project.conv.weight[:, : op.c_mid],
            tuple(n.first(c) for n, c in zip(self.norms, (op.c_mid, op.c_mid, op.c_out), strict=True)),
            se,
        )

    def _slices_again(self, op: Op) -> _Slices:
        """The same for evaluation, where one architecture meets many batches: the last slices while they are true.

        They are where every weight is the same tensor, at the same place, in the same version as then.
        """
        weights = [values[name] for values, name in self.sources]
        state = [(w.data_ptr(), w._version) for w in weights]  # type: ignore[union-attr]
        used = self.used
        if used is None or used.op != op or used.state != state or not all(map(operator.is_, used.weights, weights)):
            slices = self._slices(op)
            self.used = used = _Used(op, weights, state, slices._replace(project=slices.project.contiguous()))
        return used.slices

    def forward(self, x: Tensor, op: Op) -> Tensor:
        w = self._slices_again(op) if self._evaluates(x) else self._slices(op)
        first, second, third = self.norms
        y: Tensor = self.act(first.normalise(F.conv2d(x, w.expand), w.norms[0]))
        y = self.act(second.normalise(depthwise_conv(y, w.depthwise, op.stride), w.norms[1]))
        if op.se:
            gate = F.relu(F.conv2d(y.mean((2, 3), keepdim=True), w.se[0], w.se[1]))
            y = y * F.hardsigmoid(F.conv2d(gate, w.se[2], w.se[3]))
        y = third.normalise(F.conv2d(y, w.project), w.norms[2])
        return x + y if op.shortcut else y

    def _evaluates(self, x: Tensor) -> bool:
        """Whether slices may be kept: no gradients, no automatic precision, and weights whose changes torch counts."""
        if self.training or torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
            return False
        return not self.convs[0].conv.weight.is_inference()

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
        slices, names = self._slices(op), ("inverted_bottleneck", "depth_conv", "point_linear")
        convs = (slices.expand, slices.depthwise, slices.project)
        weights = {f"{name}.conv.weight": weight for name, weight in zip(names, convs, strict=True)}
        inner = ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
        weights |= {f"depth_conv.se.fc.{name}": weight for name, weight in zip(inner, slices.se, strict=False)}
        state = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, norm, channels in zip(names, self.norms, (op.c_mid, op.c_mid, op.c_out), strict=True):
            state |= _prefixed(f"{name}.bn", norm.extract(channels))
        return state


_PARTS = ("point_linear", "depth_conv", "inverted_bottleneck")


def _importance_order(weight: Tensor, ends: Sequence[int]) -> Tensor:
    """Input channels of a convolution by falling L1 norm, within the groups that end at `ends` and at the last."""
    importance = weight.abs().sum((0, 2, 3))
    ends = sorted({*ends, len(importance)})
    starts = [0, *ends[:-1]]
    return torch.cat(
        [
            start + importance[start:end].argsort(descending=True, stable=True)
            for start, end in zip(starts, ends, strict=True)
        ]
    )


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
