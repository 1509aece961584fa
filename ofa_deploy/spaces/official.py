"""Networks as the once-for-all project's own code writes them: a codec for each family of its networks.

MobileNetV3 and ProxylessNAS are `{ks, e, d, r}`: kernel sizes, expansions, depths, resolution. ResNet50D is
`{d, e, w, r}`: depths beyond the fewest, expansions, indices of widths, resolution.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ofa_deploy.errors import ArchError
from ofa_deploy.spaces.arch import Arch, Block
from ofa_deploy.spaces.costs import Genes
from ofa_deploy.spaces.encoding import Features, layout_of, one_hot
from ofa_deploy.spaces.parts import Stage
from ofa_deploy.spaces.space import SearchSpace

Numbers = Mapping[str, Sequence[float]]
Blocks = tuple[tuple[Block, ...], ...]
"""The active blocks of each stage."""


class Codec(ABC):
    """How the once-for-all project writes the networks of a family, and what its accuracy predictor takes of them."""

    keys: ClassVar[tuple[str, ...]]
    """Of the lists, without `r`."""
    predictor_resolutions: ClassVar[tuple[int, ...]]
    """That the family's published accuracy predictor knows; one in between counts as the next smaller."""

    @abstractmethod
    def lengths(self, space: SearchSpace) -> dict[str, int]:
        """How many entries each list has."""

    @abstractmethod
    def write(self, space: SearchSpace, arch: Arch) -> dict[str, list[Any]]:
        """The lists of a network of the space; entries of inactive blocks repeat the smallest choice."""

    @abstractmethod
    def read(self, space: SearchSpace, numbers: Numbers) -> tuple[Blocks, tuple[int, ...]]:
        """Active blocks of each stage, and elastic widths, from lists of the right lengths.

        Raises:
            ArchError: a number is outside the space.
        """

    @abstractmethod
    def predictor_inputs(self, space: SearchSpace, genes: Genes) -> Features:
        """What the family's accuracy predictor takes of networks but for their resolution, shape (n, inputs)."""


class MobileNet(Codec):
    """`ks` and `e` have an entry for each block slot, `d` counts the active blocks of each stage."""

    keys = ("ks", "e", "d")
    predictor_resolutions = tuple(range(112, 225, 16))

    def lengths(self, space: SearchSpace) -> dict[str, int]:
        """How many entries each list has."""
        return {"ks": len(space.slots), "e": len(space.slots), "d": len(space.stages)}

    def write(self, space: SearchSpace, arch: Arch) -> dict[str, list[Any]]:
        """The lists of a network; a space with elastic widths has none."""
        if space.widths:
            raise ArchError(f"{space.name} has elastic widths, which ks, e, d and r cannot hold")
        slots = [
            block for blocks, stage in zip(arch.stages, space.stages, strict=True) for block in _all(blocks, stage)
        ]
        return {"ks": [k for k, _ in slots], "e": [e for _, e in slots], "d": [len(blocks) for blocks in arch.stages]}

    def read(self, space: SearchSpace, numbers: Numbers) -> tuple[Blocks, tuple[int, ...]]:
        """Active blocks of each stage, and no widths."""
        slots = iter([(int(k), _plain(e)) for k, e in zip(numbers["ks"], numbers["e"], strict=True)])
        stages = []
        for stage, depth in zip(space.stages, numbers["d"], strict=True):
            # The official code takes any depth for a stage of one block.
            count = min(int(depth), 1) if stage.depths == (1,) else int(depth)
            stages.append(_active(space, stage, slots, count))
        return tuple(stages), ()

    def predictor_inputs(self, space: SearchSpace, genes: Genes) -> Features:
        """One-hot kernel and expansion of each slot."""
        return one_hot(space, genes)


class ResNet50D(Codec):
    """`d` counts the blocks beyond a stage's fewest (of the stem, 2 with its middle layer and 0 without).

    `e` has an entry for each block slot but the stem's, and `w` the index of each width among three: where two of them
    are the same channels, both indices mean these.
    """

    keys = ("d", "e", "w")
    predictor_resolutions = (128, 144, 160, 176, 192, 224, 240, 256)

    def lengths(self, space: SearchSpace) -> dict[str, int]:
        """How many entries each list has."""
        slots = sum(stage.depths[-1] for stage in space.stages if not _is_stem(stage))
        return {"d": len(space.stages), "e": slots, "w": len(space.widths)}

    def write(self, space: SearchSpace, arch: Arch) -> dict[str, list[Any]]:
        """The lists of a network."""
        stages = list(zip(arch.stages, space.stages, strict=True))
        return {
            "d": [2 * len(b) if _is_stem(stage) else len(b) - stage.depths[0] for b, stage in stages],
            "e": [e for b, stage in stages if not _is_stem(stage) for _, e in _all(b, stage)],
            "w": [c.index(width) for c, width in zip(_indexed_widths(space), arch.widths, strict=True)],
        }

    def read(self, space: SearchSpace, numbers: Numbers) -> tuple[Blocks, tuple[int, ...]]:
        """Active blocks of each stage, and the channels of each width."""
        slots = iter([(3, _plain(e)) for e in numbers["e"]])
        stages = []
        for stage, depth in zip(space.stages, numbers["d"], strict=True):
            if not _is_stem(stage):
                stages.append(_active(space, stage, slots, int(depth) + stage.depths[0]))
            elif depth in (0, 1, 2):
                stages.append(stage.choices[:1] if depth == 2 else ())
            else:
                raise ArchError(f"depth {depth:g} of the stem of {space.name}: it is 0, 1 or 2")
        try:
            widths = [c[int(i)] for c, i in zip(_indexed_widths(space), numbers["w"], strict=True)]
        except IndexError as error:
            raise ArchError(f"a width index of {space.name} is 0, 1 or 2") from error
        return tuple(stages), tuple(widths)

    def predictor_inputs(self, space: SearchSpace, genes: Genes) -> Features:
        """One-hot: whether the stem has its middle layer (no, yes), the index of each width, each slot's expansion."""
        stage_of_slot = [space.stages[place.stage or 0] for place in space.slots]
        stem = next(i for i, stage in enumerate(stage_of_slot) if _is_stem(stage))
        has_stem = np.eye(2)[(genes[:, 1 + stem] > 0).astype(int)]
        widths = []
        for column, (choices, indexed) in enumerate(zip(space.widths, _indexed_widths(space), strict=True)):
            index = np.array([indexed.index(c) for c in choices])
            widths.append(np.eye(len(indexed))[index[genes[:, 1 + len(space.slots) + column]]])
        ratios = sorted({e for stage in space.stages if not _is_stem(stage) for e in stage.expands})
        expands = one_hot(space, genes)[:, layout_of(space).expands].reshape(len(genes), len(space.slots), -1)
        kept = expands[:, [not _is_stem(s) for s in stage_of_slot]][:, :, [space.expands.index(e) for e in ratios]]
        return np.concatenate([has_stem, *widths, kept.reshape(len(genes), -1)], axis=1, dtype=np.float32)


CODECS: Mapping[str, Codec] = {"mobilenet": MobileNet(), "resnet50d": ResNet50D()}
"""By the name that a space has as `official_form`."""


def codec_of(space: SearchSpace) -> Codec:
    """The codec of a space's networks.

    Raises:
        ArchError: there is none of the name that the space says.
    """
    if space.official_form not in CODECS:
        raise ArchError(
            f"{space.name}: unknown official form {space.official_form!r}; it is one of {', '.join(CODECS)}"
        )
    return CODECS[space.official_form]


def to_ofa(space: SearchSpace, arch: Arch) -> dict[str, list[Any]]:
    """The official form of an architecture: the lists of its space's codec, and `r`, a list of the resolution."""
    return {**codec_of(space).write(space, space.check(arch)), "r": [arch.resolution]}


def from_ofa(space: SearchSpace, config: Mapping[str, Any]) -> Arch:
    """The architecture of an official form; `r` may be a number or a list of one.

    Raises:
        ArchError: a key is missing, a list has another length, or a value is outside the space.
    """
    codec = codec_of(space)
    try:
        lists = {key: list(config[key]) for key in codec.keys}
        r = config["r"]
        resolution = int(r[0] if isinstance(r, Sequence) else r)
        numbers = {key: [float(v) for v in values] for key, values in lists.items()}
        if not all(0 <= v < math.inf and (key == "e" or v == int(v)) for key in numbers for v in numbers[key]):
            raise ValueError
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        keys = ", ".join(codec.keys)
        raise ArchError(
            f"an official configuration of {space.name} needs lists of numbers {keys} and the resolution r"
        ) from error
    lengths = codec.lengths(space)
    if any(len(values) != lengths[key] for key, values in numbers.items()):
        needed = ", ".join(f"{lengths[key]} entries in {key}" for key in codec.keys)
        raise ArchError(f"{space.name} needs {needed}, not {', '.join(str(len(numbers[key])) for key in codec.keys)}")
    stages, widths = codec.read(space, numbers)
    return space.check(Arch(resolution, stages, widths))


def _all(blocks: Sequence[Block], stage: Stage) -> list[Block]:
    """Active blocks and the smallest choice for each inactive one."""
    return [*blocks, *[stage.choices[0]] * (stage.depths[-1] - len(blocks))]


def _active(space: SearchSpace, stage: Stage, slots: Iterator[Block], count: int) -> tuple[Block, ...]:
    """The first `count` blocks of a stage; all of its slots are taken from the iterator `slots`."""
    blocks = [next(slots) for _ in range(stage.depths[-1])]
    if count > len(blocks):
        raise ArchError(f"{space.name} has at most {len(blocks)} blocks in that stage, not {count} blocks")
    return tuple(blocks[:count])


def _is_stem(stage: Stage) -> bool:
    """Whether it is the layer of ResNet50D's stem that can be left out."""
    return stage.depths == (0, 1)


def _indexed_widths(space: SearchSpace) -> list[tuple[int, ...]]:
    """Channels of each index of a width; where two indices mean the same channels, they are listed twice."""
    most = max(map(len, space.widths), default=0)
    return [(choices[0],) * (most - len(choices)) + choices for choices in space.widths]


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value
