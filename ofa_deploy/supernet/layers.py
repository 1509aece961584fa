"""Plain layers made from an `Op`: what an extracted network consists of.

Module names are those of the official once-for-all networks, so that state dicts have the same keys and shapes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator

from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.spaces.ops import Op

Activation = Callable[[Tensor], Tensor]
Device = str | None
"""Where weights are made; on "meta" layers have shapes but no weights, None is the processor."""
Steps = Generator[tuple[nn.Module, Tensor], Tensor, Tensor]
"""A pass through a layer that stops at each batch norm: it yields the norm and the norm's input, is sent the norm's
output, and returns the layer's output."""
ACTIVATIONS: dict[str, Activation] = {
    "none": lambda x: x,
    "relu": lambda x: F.relu(x, inplace=True),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "hswish": lambda x: F.hardswish(x, inplace=True),
}
"""Activations by the names that operators call them; all but "none" work in place."""


class _Unfilled(nn.Module):
    """Leaves weights on the meta device alone: filling what has no memory would take most of the time of making."""

    def reset_parameters(self) -> None:
        if not next(self.parameters()).is_meta:
            super().reset_parameters()  # type: ignore[misc]


class Conv2d(_Unfilled, nn.Conv2d):
    """A plain convolution."""


class BatchNorm2d(_Unfilled, nn.BatchNorm2d):
    """A plain batch norm."""


class Linear(_Unfilled, nn.Linear):
    """A plain dense layer."""


def conv_bn(conv: nn.Module, bn: nn.Module, **modules: nn.Module) -> nn.ModuleDict:
    """A convolution and its batch norm under their official names, with other modules under theirs."""
    return nn.ModuleDict({"conv": conv, "bn": bn, **modules})


def squeeze_excite(channels: int, middle: int, device: Device = None) -> nn.ModuleDict:
    """The two 1x1 convolutions of squeeze-and-excitation: from `channels` to `middle` channels, and back."""
    return nn.ModuleDict(
        {
            "fc": nn.ModuleDict(
                {
                    "reduce": Conv2d(channels, middle, 1, device=device),
                    "expand": Conv2d(middle, channels, 1, device=device),
                }
            )
        }
    )


class Normalised(nn.Module, ABC):
    """A layer with batch norms, whose pass can be stopped at each of them.

    Inputs have the shape (n, c_in, size, size) of the layer's operator, outputs (n, c_out, height, width).
    """

    @abstractmethod
    def steps(self, x: Tensor) -> Steps:
        """The pass of an input, as `Steps` describes it; a tensor that is sent may be changed in place."""

    def forward(self, x: Tensor) -> Tensor:
        """The whole pass of an input: each norm is applied as it comes."""
        steps = self.steps(x)
        try:
            norm, y = next(steps)
            while True:
                norm, y = steps.send(norm(y))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class ConvLayer(Normalised):
    """Convolution, batch norm, activation."""

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()
        self.conv = Conv2d(op.c_in, op.c_out, op.kernel, op.stride, op.kernel // 2, bias=False, device=device)
        self.bn = BatchNorm2d(op.c_out, eps, device=device)
        self.act = ACTIVATIONS[op.act]

    def steps(self, x: Tensor) -> Steps:
        return self.act((yield self.bn, self.conv(x)))


class Residual(Normalised):
    """A convolution layer whose input is added to its output."""

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()
        self.conv = ConvLayer(op, eps, device)

    def steps(self, x: Tensor) -> Steps:
        return x + (yield from self.conv.steps(x))


class MaxPoolLayer(nn.Module):
    """Maximum over a window, padded by half of it."""

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()
        self.window = (op.kernel, op.stride, op.kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, *self.window)


class PoolLayer(nn.Module):
    """Average over the map: shape (n, channels, size, size) in, (n, channels, 1, 1) out."""

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class LinearLayer(nn.Module):
    """Dense layer on a map of 1 x 1: shape (n, c_in, 1, 1) in.

    With a bias it is a classifier: shape (n, c_out) out. Without one it is a 1x1 convolution: (n, c_out, 1, 1) out.
    """

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()
        self.act = ACTIVATIONS[op.act]
        if op.bias:
            self.linear = Linear(op.c_in, op.c_out, device=device)
        else:
            self.conv = Conv2d(op.c_in, op.c_out, 1, bias=False, device=device)
        self.flat = op.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x.flatten(1)) if self.flat else self.conv(x))


class MBConv(Normalised):
    """Inverted residual block with optional squeeze-and-excitation (Howard et al., arXiv 1905.02244)."""

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()
        mid, padding = op.c_mid, op.kernel // 2
        self.op = op
        self.act = ACTIVATIONS[op.act]
        if op.c_mid != op.c_in:
            self.inverted_bottleneck = conv_bn(
                Conv2d(op.c_in, mid, 1, bias=False, device=device), BatchNorm2d(mid, eps, device=device)
            )
        gate = {"se": squeeze_excite(mid, op.se, device)} if op.se else {}
        depthwise = Conv2d(mid, mid, op.kernel, op.stride, padding, groups=mid, bias=False, device=device)
        self.depth_conv = conv_bn(depthwise, BatchNorm2d(mid, eps, device=device), **gate)
        self.point_linear = conv_bn(
            Conv2d(mid, op.c_out, 1, bias=False, device=device), BatchNorm2d(op.c_out, eps, device=device)
        )

    def steps(self, x: Tensor) -> Steps:
        y: Tensor = x
        if self.op.c_mid != self.op.c_in:
            y = self.act((yield self.inverted_bottleneck["bn"], self.inverted_bottleneck["conv"](y)))
        y = self.act((yield self.depth_conv["bn"], self.depth_conv["conv"](y)))
        if self.op.se:
            fc = self.depth_conv["se"]["fc"]  # type: ignore[index]
            y = y * F.hardsigmoid(fc["expand"](F.relu(fc["reduce"](y.mean((2, 3), keepdim=True)))))
        y = yield self.point_linear["bn"], self.point_linear["conv"](y)
        return x + y if self.op.shortcut else y


class Block(Normalised):
    """A numbered block; it exists so that its weights are called `blocks.N.conv.*`."""

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()
        self.conv = MBConv(op, eps, device)

    def steps(self, x: Tensor) -> Steps:
        return (yield from self.conv.steps(x))


class Bottleneck(Normalised):
    """Residual block of ResNet-D (He et al., arXiv 1812.01187): the shortcut averages where the block strides."""

    def __init__(self, op: Op, eps: float, device: Device = None) -> None:
        super().__init__()
        self.op = op
        self.act = ACTIVATIONS[op.act]
        for name, (c_in, c_out, kernel, stride) in bottleneck_convs(op).items():
            conv = Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False, device=device)
            self.add_module(name, conv_bn(conv, BatchNorm2d(c_out, eps, device=device)))

    def steps(self, x: Tensor) -> Steps:
        def convolved(name: str, x: Tensor) -> Steps:
            conv = self.get_submodule(name)
            return (yield conv["bn"], conv["conv"](x))  # type: ignore[index]

        y = self.act((yield from convolved("conv1", x)))
        y = self.act((yield from convolved("conv2", y)))
        y = yield from convolved("conv3", y)
        if not self.op.shortcut:
            x = yield from convolved("downsample", average(x, self.op.stride))
        return self.act(x + y)


def bottleneck_convs(op: Op) -> dict[str, tuple[int, int, int, int]]:
    """Input channels, output channels, kernel and stride of each convolution of a bottleneck, by its name."""
    convs = {
        "conv1": (op.c_in, op.c_mid, 1, 1),
        "conv2": (op.c_mid, op.c_mid, op.kernel, op.stride),
        "conv3": (op.c_mid, op.c_out, 1, 1),
    }
    return convs if op.shortcut else convs | {"downsample": (op.c_in, op.c_out, 1, 1)}


def average(x: Tensor, stride: int) -> Tensor:
    """Average over windows as large as the stride; a window that reaches over the edge averages what is inside."""
    return F.avg_pool2d(x, stride, stride, ceil_mode=True) if stride > 1 else x


_LAYERS: dict[str, Callable[[Op, float, Device], nn.Module]] = {
    "conv": ConvLayer,
    "mbconv": Block,
    "bottleneck": Bottleneck,
    "maxpool": MaxPoolLayer,
    "pool": PoolLayer,
    "linear": LinearLayer,
}


def plain_layer(op: Op, eps: float, device: Device = None) -> nn.Module:
    """The plain layer of an operator.

    Args:
        op: the operator.
        eps: of its batch norms.
        device: where its weights are made; on "meta" it has shapes but no weights.
    """
    return (Residual if op.kind == "conv" and op.shortcut else _LAYERS[op.kind])(op, eps, device)
