"""Architectures in the form of the official once-for-all code: `{ks, e, d, r}`, and for ResNet50D `{d, e, w, r}`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from ofa_deploy.errors import ArchError
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.parts import Layer, Stage
from ofa_deploy.spaces.space import SearchSpace


def to_ofa(space: SearchSpace, arch: Arch) -> dict[str, list[Any]]:
    """The official form of an architecture; entries of inactive blocks repeat the smallest choice.

    Without elastic widths: `ks` and `e`, an entry a block slot, `d`, the blocks of each stage, and `r`. With them (the
    official ResNet50D): `d` counts blocks beyond a stage's fewest (of the stem, 2 with its middle layer and 0 without),
    `e` leaves the stem out, and `w` is the index of each width.
    """
    space.check(arch)
    ks: list[Any] = []
    e: list[Any] = []
    d: list[Any] = []
    for blocks, stage in zip(arch.stages, space.stages, strict=True):
        padded = [*blocks, *[stage.choices[0]] * (stage.depths[-1] - len(blocks))]
        if _is_stem(space, stage.depths):
            d.append(2 * len(blocks))
            continue
        d.append(len(blocks) - (stage.depths[0] if space.widths else 0))
        ks += [k for k, _ in padded]
        e += [x for _, x in padded]
    if space.widths:
        w = [choices.index(width) for choices, width in zip(official_widths(space), arch.widths, strict=True)]
        return {"d": d, "e": e, "w": w, "r": [arch.resolution]}
    return {"ks": ks, "e": e, "d": d, "r": [arch.resolution]}


def from_ofa(space: SearchSpace, config: Mapping[str, Any]) -> Arch:
    """The architecture of an official form; `r` may be a number or a list of one.

    Raises:
        ArchError: a key is missing, a list has another length, or a value is outside the space.
    """
    keys = ("d", "e", "w") if space.widths else ("ks", "e", "d")
    try:
        lists = {key: list(config[key]) for key in keys}
        r = config["r"]
        resolution = int(r[0] if isinstance(r, Sequence) else r)
        numbers = {key: [float(v) for v in values] for key, values in lists.items()}
        if not all(
            0 <= v < math.inf and (key == "e" or v == int(v)) for key, values in numbers.items() for v in values
        ):
            raise ValueError
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ArchError(
            f"an official configuration of {space.name} needs lists of numbers {', '.join(keys)} and the resolution r"
        ) from error
    blocks = [stage for stage in space.stages if not _is_stem(space, stage.depths)]
    slots = sum(stage.depths[-1] for stage in blocks)
    wanted = {"ks": slots, "e": slots, "d": len(space.stages), "w": len(space.widths)}
    if any(len(values) != wanted[key] for key, values in numbers.items()):
        raise ArchError(
            f"{space.name} needs "
            + ", ".join(f"{wanted[key]} entries in {key}" for key in keys)
            + ", not "
            + ", ".join(str(len(numbers[key])) for key in keys)
        )
    e = iter(numbers["e"])
    ks = iter(numbers.get("ks", [3] * slots))
    stages: list[tuple[tuple[int, float], ...]] = []
    for stage, depth in zip(space.stages, numbers["d"], strict=True):
        if _is_stem(space, stage.depths):
            if depth not in (0, 1, 2):
                raise ArchError(f"depth {depth:g} of the stem of {space.name}: it is 0, 1 or 2")
            stages.append(stage.choices[:1] if depth == 2 else ())
            continue
        every = [(int(next(ks)), _plain(next(e))) for _ in range(stage.depths[-1])]
        count = int(depth) + (stage.depths[0] if space.widths else 0)
        if stage.depths == (1,):  # the official code takes any depth for a stage of one block
            count = min(count, 1)
        if count > len(every):
            raise ArchError(f"{space.name} has at most {len(every)} blocks in that stage, not {count} blocks")
        stages.append(tuple(every[:count]))
    try:
        widths = [c[int(i)] for c, i in zip(official_widths(space), numbers.get("w", []), strict=True)]
    except IndexError as error:
        raise ArchError(f"a width index of {space.name} is 0, 1 or 2") from error
    return space.check(Arch(resolution, tuple(stages), tuple(widths)))


def from_net_config(space: SearchSpace, config: Mapping[str, Any], resolution: int) -> Arch:
    """The architecture of an official `net.config`: the description, layer by layer, of a network that was cut out.

    Args:
        space: whose network it must be, with inverted residual blocks.
        config: the JSON object; of it, `blocks` is read.
        resolution: in pixels, which the description does not hold.

    Raises:
        ArchError: it is no such description, or has another geometry than the space.
    """
    try:
        layers = [block.get("mobile_inverted_conv") or block["conv"] for block in config["blocks"]]
        found = [_described(layer) for layer in layers]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ArchError("a net.config needs blocks, each with a mobile_inverted_conv and its geometry") from error
    before = next(i for i, part in enumerate(space.parts) if isinstance(part, Stage))
    left = found[sum(isinstance(part, Layer) and part.kind == "mbconv" for part in space.parts[:before]) :]
    stages = []
    for stage in space.stages:
        count = next((i for i, block in enumerate(left) if block.c_out != stage.width), len(left))
        if count not in stage.depths:
            raise ArchError(f"{space.name} has {stage.depths} blocks of {stage.width} channels, the net.config {count}")
        own, left = left[:count], left[count:]
        stages.append(tuple((block.kernel, _nearest(stage.expands, block.c_mid / block.c_in)) for block in own))
    arch = space.check(Arch(resolution, tuple(stages)))
    wanted = [
        _Described(op.c_in, op.c_out, op.c_mid, op.kernel, op.stride, op.se > 0)
        for _, op in space.walk(arch)
        if op.kind == "mbconv"
    ]
    for number, (one, due) in enumerate(zip_longest(found, wanted)):
        if one != due:
            is_, has = one or "missing", due or "none"
            raise ArchError(f"block {number} of the net.config is {is_}; {space.name} has {has}")
    return arch


_MOST_CHANNELS = 1_000_000
"""Of a description that can be one of a network."""


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


def official_widths(space: SearchSpace) -> list[tuple[int, ...]]:
    """Channels of each official width index; where two indices mean the same channels, they are listed twice."""
    most = max(map(len, space.widths), default=0)
    return [(choices[0],) * (most - len(choices)) + choices for choices in space.widths]


def _is_stem(space: SearchSpace, depths: tuple[int, ...]) -> bool:
    return bool(space.widths) and depths[0] == 0


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value
