"""Operators: what gets measured and emitted, and the rounding of their channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ofa_deploy.errors import ArchError

ACTIVATIONS = ("none", "relu", "relu6", "hswish")
KINDS = ("conv", "mbconv", "bottleneck", "maxpool", "pool", "linear")


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of `divisor`, never below 90 % of `value` (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True, slots=True, order=True)
class Op:
    """One operator of a network: a row of a latency table and a piece of an exported graph.

    Kinds: `conv` is convolution, batch norm, activation; `mbconv` is an inverted residual block (its expansion
    convolution is left out where `c_mid == c_in`); `bottleneck` is ResNet-D's residual block, whose shortcut without
    `shortcut` is an average pool of the stride and a 1x1 convolution; `maxpool` is a 3x3 maximum; `pool` is the
    global average; `linear` is a dense layer.

    Attributes:
        kind: one of `KINDS`.
        size: height and width of the input in pixels (1 for `linear`).
        c_in: input channels.
        c_mid: channels of the middle convolution of an `mbconv` or a `bottleneck`, otherwise 0.
        c_out: output channels.
        kernel: kernel size in pixels (0 where there is none).
        stride: stride in pixels (1 where there is none).
        act: one of `ACTIVATIONS`.
        se: channels of the squeeze-and-excitation bottleneck, 0 for none.
        shortcut: whether the input is added to the output.
        bias: whether a `linear` has a bias.
    """

    kind: str
    size: int
    c_in: int
    c_out: int
    c_mid: int = 0
    kernel: int = 0
    stride: int = 1
    act: str = "none"
    se: int = 0
    shortcut: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.act not in ACTIVATIONS:
            raise ArchError(f"an operator is one of {KINDS} with one of {ACTIVATIONS}, not {self.kind} with {self.act}")
        if min(self.size, self.c_in, self.c_out, self.stride) < 1 or min(self.c_mid, self.kernel, self.se) < 0:
            raise ArchError(f"sizes, channels and strides of an operator are positive: {self}")

    @property
    def shape(self) -> Op:
        """The operator at any size: itself at 1 pixel."""
        return replace(self, size=1)

    @property
    def out_size(self) -> int:
        """Height and width of the output in pixels (padding is half the kernel)."""
        return 1 if self.kind in ("pool", "linear") else (self.size - 1) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: convolutions, dense layers and SE, not norms, activations, pooling."""
        area = self.out_size**2
        if self.kind == "conv":
            return area * self.c_in * self.c_out * self.kernel**2
        if self.kind == "linear":
            return self.c_in * self.c_out
        if self.kind == "bottleneck":
            beside = 0 if self.shortcut else self.c_in
            middle = self.c_mid * (self.c_mid * self.kernel**2 + self.c_out)
            return self.size**2 * self.c_in * self.c_mid + area * (middle + beside * self.c_out)
        if self.kind == "mbconv":
            expand = self.size**2 * self.c_in * self.c_mid if self.c_mid != self.c_in else 0
            return expand + area * self.c_mid * (self.kernel**2 + self.c_out) + 2 * self.c_mid * self.se
        return 0

    @property
    def params(self) -> int:
        """Learned numbers: weights, biases, and scale and shift of batch norms."""
        if self.kind == "conv":
            return self.c_out * (self.c_in * self.kernel**2 + 2)
        if self.kind == "linear":
            return self.c_in * self.c_out + (self.c_out if self.bias else 0)
        if self.kind == "bottleneck":
            beside = 0 if self.shortcut else self.c_in + 2
            return self.c_mid * (self.c_in + self.c_mid * self.kernel**2 + 4 + self.c_out) + self.c_out * (2 + beside)
        if self.kind == "mbconv":
            expand = (self.c_in + 2) * self.c_mid if self.c_mid != self.c_in else 0
            se = 2 * self.c_mid * self.se + self.se + self.c_mid if self.se else 0
            return expand + self.c_mid * (self.kernel**2 + 2 + self.c_out) + 2 * self.c_out + se
        return 0
