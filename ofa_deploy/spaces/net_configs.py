"""Official `net.config` files: the description, layer by layer, of a network that was cut out of a once-for-all one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from ofa_deploy.errors import ArchError
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.parts import Layer, Stage
from ofa_deploy.spaces.space import SearchSpace

_MOST_CHANNELS = 1_000_000
"""Of a description that can be one of a network."""


def from_net_config(space: SearchSpace, config: Mapping[str, Any], resolution: int) -> Arch:
    """The architecture of an official `net.config`.

    Args:
        space: whose network it must be, with inverted residual blocks.
        config: the JSON object; of it, `blocks` is read.
        resolution: in pixels, which the description does not hold.

    Raises:
        ArchError: it is no such description, or has another geometry than the space.
    """
    try:
        layers = [block.get("mobile_inverted_conv") or block["conv"] for block in config["blocks"]]
        described = [_described(layer) for layer in layers]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ArchError("a net.config needs blocks, each with a mobile_inverted_conv and its geometry") from error
    before = next(i for i, part in enumerate(space.parts) if isinstance(part, Stage))
    remaining = described[sum(isinstance(part, Layer) and part.kind == "mbconv" for part in space.parts[:before]) :]
    stages = []
    for stage in space.stages:
        count = next((i for i, block in enumerate(remaining) if block.c_out != stage.width), len(remaining))
        if count not in stage.depths:
            raise ArchError(f"{space.name} has {stage.depths} blocks of {stage.width} channels, the net.config {count}")
        blocks, remaining = remaining[:count], remaining[count:]
        stages.append(tuple((block.kernel, _nearest(stage.expands, block.c_mid / block.c_in)) for block in blocks))
    arch = space.check(Arch(resolution, tuple(stages)))
    expected = [
        _Described(op.c_in, op.c_out, op.c_mid, op.kernel, op.stride, op.se > 0)
        for _, op in space.walk(arch)
        if op.kind == "mbconv"
    ]
    for number, pair in enumerate(zip_longest(described, expected)):
        if pair[0] != pair[1]:
            geometry, right = pair[0] or "missing", pair[1] or "none"
            raise ArchError(f"block {number} of the net.config is {geometry}; {space.name} has {right}")
    return arch


class _Described(NamedTuple):
    """The geometry of an inverted residual block."""

    c_in: int
    c_out: int
    c_mid: int
    kernel: int
    stride: int
    se: bool

    def __str__(self) -> str:
        """In words."""
        se = ", squeeze-and-excitation" * self.se
        return f"{self.c_in}-{self.c_mid}-{self.c_out} channels, kernel {self.kernel}, stride {self.stride}{se}"


def _described(layer: Mapping[str, Any]) -> _Described:
    c_in, c_out, kernel, stride = (int(layer[key]) for key in ("in_channels", "out_channels", "kernel_size", "stride"))
    c_mid = int(layer.get("mid_channels") or round(c_in * layer["expand_ratio"]))
    if not all(0 < number < _MOST_CHANNELS for number in (c_in, c_out, c_mid, kernel, stride)):
        raise ValueError
    return _Described(c_in, c_out, c_mid, kernel, stride, bool(layer["use_se"]))


def _nearest(choices: Sequence[float], value: float) -> float:
    return min(choices, key=lambda choice: abs(choice - value))
