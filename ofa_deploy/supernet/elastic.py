"""Elastic layers: any slice of their weights computes a smaller operator, and can be cut out as a plain layer.

Module names are those of the official once-for-all networks, so that state dicts have the same keys and shapes.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.parts import Place, Stage
from ofa_deploy.supernet.depthwise import depthwise_conv
from ofa_deploy.supernet.elastic_weights import (
    ConvWeights,
    KernelWeights,
    NormWeights,
    first_entries,
    importance_order,
    permute,
    prefixed,
)
from ofa_deploy.supernet.layers import ACTIVATIONS, average, bottleneck_convs, conv_bn, plain_layer, squeeze_excite


class Elastic(nn.Module, ABC):
    """A layer that computes any operator up to its largest."""

    @abstractmethod
    def forward(self, x: Tensor, op: Op) -> Tensor:
        """What the plain layer of an operator computes.

        Args:
            x: shape (n, op.c_in, op.size, op.size).
            op: the operator.

        Returns:
            shape (n, op.c_out, height, width), or (n, op.c_out) of a classifier.
        """

    @abstractmethod
    def extract(self, op: Op) -> dict[str, Tensor]:
        """State dict of the plain layer of an operator: copies of the slices that it uses."""

    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        """Put the important middle channels first, in place; a layer without middle channels does nothing.

        Args:
            op: the largest operator.
            kept: operators that must keep computing the same: channels move only between the ends of theirs.
        """


class _Slices(NamedTuple):
    """What an inverted residual block uses of its weights.

    Attributes:
        expand: shape (c_mid, c_in, 1, 1).
        depthwise: shape (c_mid, 1, kernel, kernel).
        project: shape (c_out, c_mid, 1, 1).
        norms: mean, variance, scale and shift of each of the three batch norms.
        se: weights and biases of the two convolutions of squeeze-and-excitation; empty where there is none.
    """

    expand: Tensor
    depthwise: Tensor
    project: Tensor
    norms: tuple[tuple[Tensor, ...], ...]
    se: tuple[Tensor, ...]


class _Cache(NamedTuple):
    """Slices, and what they were made of.

    Attributes:
        op: the operator whose slices they are.
        weights: the tensors that they are slices of.
        versions: place in memory and version of each of these tensors then.
        slices: the slices.
    """

    op: Op
    weights: list[Tensor | None]
    versions: list[tuple[int, int]]
    slices: _Slices


class ElasticMBConv(Elastic):
    """An inverted residual block of which any kernel and any expansion up to its largest can be used.

    Args:
        largest: the largest operator.
        kernels: edges in pixels, rising.
        eps: of the batch norms.
    """

    def __init__(self, largest: Op, kernels: tuple[int, ...], eps: float) -> None:
        super().__init__()
        mid, out = largest.c_mid, largest.c_out
        self.act = ACTIVATIONS[largest.act]
        expand, depthwise, project = ConvWeights(largest.c_in, mid), KernelWeights(mid, kernels), ConvWeights(mid, out)
        norms = (NormWeights(mid, eps), NormWeights(mid, eps), NormWeights(out, eps))
        se = squeeze_excite(mid, largest.se) if largest.se else None
        self.inverted_bottleneck = conv_bn(expand, norms[0])
        self.depth_conv = conv_bn(depthwise, norms[1], **({"se": se} if se else {}))
        self.point_linear = conv_bn(project, norms[2])
        self.convs, self.norms = (expand, depthwise, project), norms  # the same modules, without looking up names
        self.tensor_places = tuple(
            (tensors, name)
            for module in self.modules()
            for tensors in (module._parameters, module._buffers)
            for name, tensor in tensors.items()
            if tensor is not None and tensor.ndim
        )  # where the weights are, now and after .to() or load_state_dict()
        self.cache: _Cache | None = None

    def _slices(self, op: Op) -> _Slices:
        """The slices of all weights that an operator uses."""
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
            first_entries(expand.conv.weight, op.c_mid),
            depthwise.weight(op.c_mid, op.kernel),
            project.conv.weight[:, : op.c_mid],
            tuple(norm.first(c) for norm, c in zip(self.norms, (op.c_mid, op.c_mid, op.c_out), strict=True)),
            se,
        )

    def _cached_slices(self, op: Op) -> _Slices:
        """The slices of an operator in evaluation, where one architecture meets many batches.

        The last ones are returned again while every weight is the same tensor, at the same place in memory, in the
        same version as when they were made.
        """
        weights = [tensors[name] for tensors, name in self.tensor_places]
        versions = [(w.data_ptr(), w._version) for w in weights]  # type: ignore[union-attr]
        cache = self.cache
        if (
            cache is None
            or cache.op != op
            or cache.versions != versions
            or not all(map(operator.is_, cache.weights, weights))
        ):
            slices = self._slices(op)
            self.cache = cache = _Cache(op, weights, versions, slices._replace(project=slices.project.contiguous()))
        return cache.slices

    def forward(self, x: Tensor, op: Op) -> Tensor:
        slices = self._cached_slices(op) if self._can_cache(x) else self._slices(op)
        first, second, third = self.norms
        y: Tensor = self.act(first.normalise(F.conv2d(x, slices.expand), slices.norms[0]))
        y = self.act(second.normalise(depthwise_conv(y, slices.depthwise, op.stride), slices.norms[1]))
        if op.se:
            gate = F.relu(F.conv2d(y.mean((2, 3), keepdim=True), slices.se[0], slices.se[1]))
            y = y * F.hardsigmoid(F.conv2d(gate, slices.se[2], slices.se[3]))
        y = third.normalise(F.conv2d(y, slices.project), slices.norms[2])
        return x + y if op.shortcut else y

    def _can_cache(self, x: Tensor) -> bool:
        """Whether slices may be kept: no gradients, no automatic precision, and weights whose changes torch counts."""
        if self.training or torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
            return False
        return not self.convs[0].conv.weight.is_inference()

    @torch.no_grad()
    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        """Sort middle channels by the L1 norm of the weights that the projection reads them with.

        The channels between the two convolutions of squeeze-and-excitation are sorted by the weights of the second.
        """
        expand, depthwise, project = (self.get_submodule(f"{name}.conv.conv") for name in _CONVS)
        order = importance_order(project.get_parameter("weight"), [smaller.c_mid for smaller in kept])
        permute(project, order, axis=1)
        for module in (depthwise, expand, *(self.get_submodule(f"{name}.bn.bn") for name in _CONVS[:2])):
            permute(module, order, axis=0)
        if op.se:
            reduce, grow = (self.get_submodule(f"depth_conv.se.fc.{name}") for name in ("reduce", "expand"))
            permute(grow, order, axis=0)
            permute(reduce, order, axis=1)
            order = importance_order(grow.get_parameter("weight"), [smaller.se for smaller in kept])
            permute(grow, order, axis=1)
            permute(reduce, order, axis=0)

    def extract(self, op: Op) -> dict[str, Tensor]:
        """State dict of the plain `MBConv` of an operator: copies of the slices that it uses."""
        slices = self._slices(op)
        convs = (slices.expand, slices.depthwise, slices.project)
        weights = {f"{name}.conv.weight": weight for name, weight in zip(_CONVS, convs, strict=True)}
        names = ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
        weights |= {f"depth_conv.se.fc.{name}": weight for name, weight in zip(names, slices.se, strict=False)}
        state = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, norm, channels in zip(_CONVS, self.norms, (op.c_mid, op.c_mid, op.c_out), strict=True):
            state |= prefixed(f"{name}.bn", norm.extract(channels))
        return state


_CONVS = ("inverted_bottleneck", "depth_conv", "point_linear")
"""Names of the three convolutions of an inverted residual block: expansion, depthwise, projection."""


class ElasticBlock(Elastic):
    """A numbered elastic block; its weights are called `blocks.N.conv.*`."""

    def __init__(self, largest: Op, kernels: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.conv = ElasticMBConv(largest, kernels, eps)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        return self.conv(x, op)  # type: ignore[no-any-return]

    def extract(self, op: Op) -> dict[str, Tensor]:
        return prefixed("conv", self.conv.extract(op))

    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        self.conv.sort_channels(op, kept)


class ElasticConvLayer(Elastic):
    """Convolution, batch norm and activation with elastic input and output channels."""

    def __init__(self, largest: Op, eps: float) -> None:
        super().__init__()
        self.conv = ConvWeights(largest.c_in, largest.c_out, largest.kernel)
        self.bn = NormWeights(largest.c_out, eps)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        weight = self.conv.conv.weight[: op.c_out, : op.c_in]
        return ACTIVATIONS[op.act](self.bn(F.conv2d(x, weight, None, op.stride, op.kernel // 2)))

    def extract(self, op: Op) -> dict[str, Tensor]:
        weight = self.conv.conv.weight.detach()[: op.c_out, : op.c_in].clone()
        return {"conv.weight": weight, **prefixed("bn", self.bn.extract(op.c_out))}


class ElasticResidual(Elastic):
    """An elastic convolution layer whose input is added to its output."""

    def __init__(self, largest: Op, eps: float) -> None:
        super().__init__()
        self.conv = ElasticConvLayer(largest, eps)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        return x + self.conv(x, op)  # type: ignore[no-any-return]

    def extract(self, op: Op) -> dict[str, Tensor]:
        return prefixed("conv", self.conv.extract(op))


class ElasticBottleneck(Elastic):
    """A bottleneck of ResNet-D with elastic input, middle and output channels."""

    def __init__(self, largest: Op, eps: float) -> None:
        super().__init__()
        for name, (c_in, c_out, kernel, _) in bottleneck_convs(largest).items():
            self.add_module(name, conv_bn(ConvWeights(c_in, c_out, kernel), NormWeights(c_out, eps)))

    def forward(self, x: Tensor, op: Op) -> Tensor:
        convs, act = bottleneck_convs(op), ACTIVATIONS[op.act]

        def convolved(name: str, x: Tensor) -> Tensor:
            c_in, c_out, kernel, stride = convs[name]
            weight = self.get_parameter(f"{name}.conv.conv.weight")[:c_out, :c_in]
            return self.get_submodule(f"{name}.bn")(F.conv2d(x, weight, None, stride, kernel // 2))  # type: ignore[no-any-return]

        y = act(convolved("conv1", x))
        y = convolved("conv3", act(convolved("conv2", y)))
        if not op.shortcut:
            x = convolved("downsample", average(x, op.stride))
        return act(x + y)

    def extract(self, op: Op) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name, (c_in, c_out, _, _) in bottleneck_convs(op).items():
            weight = self.get_parameter(f"{name}.conv.conv.weight").detach()[:c_out, :c_in]
            norm = self.get_submodule(f"{name}.bn")
            assert isinstance(norm, NormWeights)
            state |= {f"{name}.conv.weight": weight.clone(), **prefixed(f"{name}.bn", norm.extract(c_out))}
        return state

    @torch.no_grad()
    def sort_channels(self, op: Op, kept: Sequence[Op]) -> None:
        """Sort the channels that the second and third convolution read by the L1 norm of the weights they read with."""
        for writer, reader in (("conv2", "conv3"), ("conv1", "conv2")):
            conv = self.get_submodule(f"{reader}.conv.conv")
            order = importance_order(conv.get_parameter("weight"), [smaller.c_mid for smaller in kept])
            permute(conv, order, axis=1)
            permute(self.get_submodule(f"{writer}.conv.conv"), order, axis=0)
            permute(self.get_submodule(f"{writer}.bn.bn"), order, axis=0)


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
    """The layer of a place of a supernet: elastic where its operator can differ and has weights, otherwise plain.

    Args:
        place: the place in the space.
        largest: its largest operator.
        eps: of its batch norms.
    """
    if isinstance(place.part, Stage):
        if largest.kind == "mbconv":
            return ElasticBlock(largest, place.part.kernels, eps)
        return (ElasticBottleneck if largest.kind == "bottleneck" else ElasticResidual)(largest, eps)
    if (place.width_in, place.width_out) != (None, None) and largest.kind in ("conv", "linear"):
        return (ElasticConvLayer if largest.kind == "conv" else ElasticLinear)(largest, eps)
    return plain_layer(largest, eps)
