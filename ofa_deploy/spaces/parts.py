"""Parts of a search space: layers that are always there, and stages of blocks of which a prefix is active."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ofa_deploy.errors import ArchError
from ofa_deploy.spaces.arch import Block
from ofa_deploy.spaces.ops import ACTIVATIONS, KINDS, Op, make_divisible

Width = int | tuple[int, ...]
"""Output channels: a number, a tuple to choose from (ascending), or 0 for as many as come in."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A part that every network of the space has.

    Attributes:
        name: of its module, as in the official networks.
        kind: of its operator.
        width: output channels.
        kernel: kernel size in pixels, 0 where there is none.
        stride: in pixels.
        act: activation.
        bias: whether a `linear` has one.
    """

    name: str
    kind: str
    width: Width = 0
    kernel: int = 0
    stride: int = 1
    act: str = "none"
    bias: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.act not in ACTIVATIONS:
            raise ArchError(f"layer {self.name}: kind {self.kind!r} or activation {self.act!r} is not known")
        _check_width(self.name, self.width)

    def op(self, size: int, c_in: int, c_out: int) -> Op:
        """Its operator on a map of `size` pixels a side."""
        mbconv = self.kind == "mbconv"
        return Op(
            self.kind,
            1 if self.kind == "linear" else size,
            c_in,
            c_out,
            c_in if mbconv else 0,
            self.kernel,
            self.stride,
            self.act,
            shortcut=mbconv and self.stride == 1 and c_in == c_out,
            bias=self.bias,
        )


@dataclass(frozen=True)
class Stage:
    """An elastic stage: blocks of one width, of which a prefix is active.

    Attributes:
        width: output channels.
        stride: stride of its first block.
        act: activation of its blocks.
        se: whether its blocks have squeeze-and-excitation.
        depths: allowed numbers of active blocks, ascending.
        kind: operator of its blocks: `mbconv`, `bottleneck`, or `conv` with a shortcut.
        kernels: allowed kernel sizes, ascending.
        expands: allowed expansion ratios, ascending: of the input channels for `mbconv`, of the output's otherwise.
        names: of its blocks; by default they are numbered on, `blocks.1` and so forth.
    """

    width: Width
    stride: int
    act: str
    se: bool = False
    depths: tuple[int, ...] = (2, 3, 4)
    kind: str = "mbconv"
    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (3, 4, 6)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.act not in ACTIVATIONS or self.kind not in ("mbconv", "bottleneck", "conv"):
            raise ArchError(f"activation must be one of {', '.join(ACTIVATIONS)}, and the kind one of blocks: {self}")
        if not _ascending(self.depths) or self.depths[0] < 0 or self.depths[-1] < 1:
            raise ArchError(f"depths must be ascending and not negative, not {self.depths}")
        if self.depths[0] == 0 and (self.width != 0 or self.stride != 1):
            raise ArchError("a stage that can be left out must keep width (0) and size")
        for what, values in (("kernels", self.kernels), ("expands", self.expands)):
            if not _ascending(values) or values[0] <= 0:
                raise ArchError(f"{what} of a stage must be ascending and positive, not {values}")
        if self.kind == "mbconv" and self.expands[0] <= 1:
            raise ArchError(f"the expansions of elastic inverted residual blocks are larger than 1, not {self.expands}")
        _check_width("a stage", self.width)

    @cached_property
    def choices(self) -> tuple[Block, ...]:
        """(kernel, expansion) of gene values 1, 2, ..."""
        return tuple((k, e) for k in self.kernels for e in self.expands)

    def block_names(self, before: int) -> list[str]:
        """Names of its blocks, after so many numbered ones."""
        return [self.names[i] if self.names else f"blocks.{before + i}" for i in range(self.depths[-1])]

    def op(self, size: int, c_in: int, c_out: int, position: int, block: Block) -> Op:
        """The operator of a block at a position of the stage, on a map of `size` pixels a side."""
        kernel, expand = block
        stride = self.stride if position == 0 else 1
        c_mid = {
            "mbconv": make_divisible(round(c_in * expand)),
            "bottleneck": make_divisible(round(c_out * expand)),
            "conv": 0,
        }[self.kind]
        shortcut = position > 0 if self.kind == "bottleneck" else stride == 1 and c_in == c_out
        return Op(
            self.kind,
            size,
            c_in,
            c_out,
            c_mid,
            kernel,
            stride,
            self.act,
            se=make_divisible(c_mid // 4) if self.se else 0,
            shortcut=shortcut,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operator can be: a layer, or a position of a stage.

    Attributes:
        name: of the module.
        part: what it belongs to.
        stage: index of the stage, None for a layer.
        position: in the stage, 0 for a layer.
        strides: of what comes before, one after the other.
        width_in: index of the elastic width that its input has, None where that is fixed.
        width_out: index of the elastic width that its output has, None where that is fixed.
        c_in: choices of input channels; a single one where they are fixed.
        c_out: choices of output channels; a single one where they are fixed.
    """

    name: str
    part: Layer | Stage
    stage: int | None
    position: int
    strides: tuple[int, ...]
    width_in: int | None
    width_out: int | None
    c_in: tuple[int, ...]
    c_out: tuple[int, ...]

    def channels(self) -> Iterator[tuple[int, int, int]]:
        """Every (context, input channels, output channels); see `AdditiveCost.blocks` for the context's number."""
        for i, c_in in enumerate(self.c_in):
            for o, c_out in enumerate(self.c_out):
                if i == o or self.width_in is None or self.width_in != self.width_out:
                    yield i * len(self.c_out) + o, c_in, c_out

    def ops(self, resolution: int, c_in: int, c_out: int) -> list[Op]:
        """The operators that can be here: one for each choice of a stage's block, one of a layer."""
        options = self.part.choices if isinstance(self.part, Stage) else (None,)
        return [self.op(resolution, c_in, c_out, option) for option in options]

    def all_ops(self, resolution: int) -> list[Op]:
        """The operators that can be here, whatever the widths."""
        return [op for _, c_in, c_out in self.channels() for op in self.ops(resolution, c_in, c_out)]

    def op(self, resolution: int, c_in: int, c_out: int, block: Block | None = None) -> Op:
        """The operator here, for an input image of `resolution` pixels."""
        size = resolution
        for stride in self.strides:
            size = (size - 1) // stride + 1
        if isinstance(self.part, Stage):
            assert block is not None
            return self.part.op(size, c_in, c_out, self.position, block)
        return self.part.op(size, c_in, c_out)


def places(parts: Iterable[Layer | Stage], in_channels: int) -> tuple[Place, ...]:
    """Every place of a network in order of computation; elastic widths are numbered as they come."""
    out: list[Place] = []
    strides: tuple[int, ...] = ()
    width: int | None = None
    channels: tuple[int, ...] = (in_channels,)
    widths = stages = blocks = 0
    for part in parts:
        width_in, c_in = width, channels
        if isinstance(part.width, tuple):
            width, channels, widths = widths, part.width, widths + 1
        elif part.width:
            width, channels = None, (part.width,)
        if isinstance(part, Layer):
            names, stage = [part.name], None
            blocks += part.name.startswith("blocks.")
        else:
            names, stage = part.block_names(blocks), stages
            blocks += 0 if part.names else len(names)
            stages += 1
        for position, name in enumerate(names):
            out.append(Place(name, part, stage, position, strides, width_in, width, c_in, channels))
            if position == 0:
                strides, width_in, c_in = (*strides, part.stride), width, channels
    return tuple(out)


def _ascending(values: tuple[float, ...]) -> bool:
    return bool(values) and list(values) == sorted(set(values))


def _check_width(what: str, width: Width) -> None:
    if isinstance(width, tuple):
        if not _ascending(width) or width[0] < 1:
            raise ArchError(f"widths of {what} to choose from must be ascending and positive, not {width}")
    elif width < 0:
        raise ArchError(f"the width of {what} must not be negative, not {width}")
