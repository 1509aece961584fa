"""Architectures as values, and the one place where a network is walked.

`Op` is what gets measured, `Arch` is one network, `SearchSpace` turns the second into the first. MAC counts,
latency tables, the elastic network, extracted networks and exported graphs all follow `SearchSpace.walk`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import ArchError
from ofa_deploy.ops import ACTIVATIONS, Op, make_divisible

Genes = npt.NDArray[np.int16]
"""One row an architecture: column 0 is the index of the resolution, then a column for each block slot: 0 where the slot
is inactive, otherwise 1 + kernel index * number of expansions + expansion index."""

Floats = npt.NDArray[np.float64]
Block = tuple[int, int]
"""(kernel size, expansion ratio) of one active block."""


@dataclass(frozen=True, slots=True)
class Arch:
    """One network: its resolution and, for each stage, its active blocks. Equal networks are equal values.

    Attributes:
        resolution: height and width of the input image in pixels.
        stages: for each stage, the (kernel, expansion) of each active block.
    """

    resolution: int
    stages: tuple[tuple[Block, ...], ...]

    def __post_init__(self) -> None:
        if self.resolution < 1 or not self.stages or not all(self.stages):
            raise ArchError(f"an architecture needs a resolution and at least one block a stage, not {self!r}")

    def __str__(self) -> str:
        """The text form, e.g. `r28_k3e6-k5e4_k7e3-k3e3`: stages joined by `_`, blocks by `-`."""
        return "_".join([f"r{self.resolution}", *("-".join(f"k{k}e{e}" for k, e in stage) for stage in self.stages)])

    @classmethod
    def parse(cls, text: str) -> Arch:
        """Read the text form that `str` writes.

        Raises:
            ArchError: the text is not of that form.
        """
        head, *stages = text.strip().split("_")
        resolution = re.fullmatch(r"r([0-9]{1,4})", head)
        blocks = [[re.fullmatch(r"k([0-9]{1,2})e([0-9]{1,2})", part) for part in stage.split("-")] for stage in stages]
        if resolution is None or not blocks or not all(all(stage) for stage in blocks):
            raise ArchError(
                f"not an architecture: {text[:80]!r}; the form is r28_k3e6-k5e4_k7e3-k3e3_... (stage by stage)"
            )
        return cls(int(resolution[1]), tuple(tuple((int(m[1]), int(m[2])) for m in stage if m) for stage in blocks))


@dataclass(frozen=True, slots=True)
class Stage:
    """An elastic stage: blocks of one width, of which a prefix is active.

    Attributes:
        width: output channels.
        stride: stride of its first block.
        act: activation of its blocks.
        se: whether its blocks have squeeze-and-excitation.
        depths: allowed numbers of active blocks, ascending.
    """

    width: int
    stride: int
    act: str
    se: bool
    depths: tuple[int, ...] = (2, 3, 4)

    def __post_init__(self) -> None:
        if self.act not in ACTIVATIONS:
            raise ArchError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.act!r}")
        if not self.depths or list(self.depths) != sorted(set(self.depths)) or self.depths[0] < 1:
            raise ArchError(f"depths must be ascending and at least 1, not {self.depths}")


@dataclass(frozen=True)
class AdditiveCost:
    """A cost that is a sum over operators, compiled for a space: look-ups over whole populations.

    Attributes:
        blocks: cost of each choice, shape (resolutions, slots, choices + 1); column 0 (inactive) is zero.
        fixed: cost of the operators that no choice changes, shape (resolutions,).
    """

    blocks: Floats
    fixed: Floats

    def __call__(self, genes: Genes) -> Floats:
        """Cost of each architecture, shape (n,), from genes of shape (n, 1 + slots)."""
        resolution = genes[:, 0].astype(np.intp)
        slots, choices = self.blocks.shape[1:]
        flat, base = self.blocks.ravel(), resolution * (slots * choices)
        total = self.fixed[resolution].copy()
        for slot in range(slots):
            total += flat[base + (slot * choices) + genes[:, 1 + slot]]
        return total


@dataclass(frozen=True)
class SearchSpace:
    """A family of networks as data: MobileNetV3-like, with elastic depth, kernel, expansion and resolution.

    Attributes:
        name: how commands and files call it.
        resolutions: allowed input sizes in pixels, ascending.
        in_channels: channels of the input image.
        classes: outputs of the classifier.
        stem: channels of the 3x3 stride-2 first convolution (hard-swish).
        first: channels of the fixed first block (kernel 3, no expansion, ReLU).
        stages: the elastic stages.
        final: channels of the last 1x1 convolution (hard-swish).
        feature: channels of the dense layer before the classifier (hard-swish, no bias).
        kernels: allowed depthwise kernel sizes, ascending.
        expands: allowed expansion ratios, ascending.
        bn_eps: epsilon of the batch norms.
    """

    name: str
    resolutions: tuple[int, ...]
    in_channels: int
    classes: int
    stem: int
    first: int
    stages: tuple[Stage, ...]
    final: int
    feature: int
    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[int, ...] = (3, 4, 6)
    bn_eps: float = 1e-5

    def __post_init__(self) -> None:
        for what, values in (("resolutions", self.resolutions), ("kernels", self.kernels), ("expands", self.expands)):
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise ArchError(f"{what} of a space must be ascending and positive, not {values}")
        if not self.stages:
            raise ArchError("a space needs at least one stage")

    # -- shape of the space

    @cached_property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """(stage, position) of each block slot, in the order of the genes' columns after the first."""
        return tuple((s, p) for s, stage in enumerate(self.stages) for p in range(stage.depths[-1]))

    @cached_property
    def choices(self) -> tuple[Block, ...]:
        """(kernel, expansion) of gene values 1, 2, ..."""
        return tuple((k, e) for k in self.kernels for e in self.expands)

    @cached_property
    def stage_columns(self) -> tuple[slice, ...]:
        """The genes' columns of each stage."""
        ends = 1 + np.cumsum([stage.depths[-1] for stage in self.stages])
        return tuple(slice(int(e) - s.depths[-1], int(e)) for e, s in zip(ends, self.stages, strict=True))

    # -- the walk

    def walk(self, arch: Arch) -> tuple[tuple[str, Op], ...]:
        """THE walk: name and operator of each part of the network, in order of computation.

        Names are those of the official once-for-all modules (`first_conv`, `blocks.0`, ..., `classifier`).

        Raises:
            ArchError: the architecture is not of this space.
        """
        return _walk(self, arch)

    def ops(self, arch: Arch) -> tuple[Op, ...]:
        """The operators of a network, in order of computation."""
        return tuple(op for _, op in _walk(self, arch))

    def block_op(self, resolution: int, slot: int, block: Block) -> Op:
        """The operator that `block` makes of `slot` at `resolution`."""
        stage_index, position = self.slots[slot]
        stage, kernel, expand = self.stages[stage_index], *block
        size = (resolution - 1) // 2 + 1
        for earlier in self.stages[:stage_index]:
            size = (size - 1) // earlier.stride + 1
        c_in, stride = stage.width, 1
        if position == 0:
            c_in, stride = (self.stages[stage_index - 1].width if stage_index else self.first), stage.stride
        else:
            size = (size - 1) // stage.stride + 1
        c_mid = make_divisible(round(c_in * expand))
        return Op(
            "mbconv", size, c_in, stage.width, c_mid, kernel, stride, stage.act,
            se=make_divisible(c_mid // 4) if stage.se else 0, shortcut=stride == 1 and c_in == stage.width,
        )  # fmt: skip

    def fixed_ops(self, resolution: int) -> tuple[tuple[tuple[str, Op], ...], tuple[tuple[str, Op], ...]]:
        """Name and operator of the parts before and after the elastic stages at `resolution`."""
        size = (resolution - 1) // 2 + 1
        last = size
        for stage in self.stages:
            last = (last - 1) // stage.stride + 1
        same = self.stem == self.first
        head = (
            ("first_conv", Op("conv", resolution, self.in_channels, self.stem, kernel=3, stride=2, act="hswish")),
            ("blocks.0", Op("mbconv", size, self.stem, self.first, self.stem, 3, act="relu", shortcut=same)),
        )
        tail = (
            ("final_expand_layer", Op("conv", last, self.stages[-1].width, self.final, kernel=1, act="hswish")),
            ("global_avg_pool", Op("pool", last, self.final, self.final)),
            ("feature_mix_layer", Op("linear", 1, self.final, self.feature, act="hswish")),
            ("classifier", Op("linear", 1, self.feature, self.classes, bias=True)),
        )
        return head, tail

    def all_ops(self, resolutions: Iterable[int] | None = None) -> tuple[Op, ...]:
        """Every distinct operator that any network of the space can contain, in a fixed order."""
        found: dict[Op, None] = {}
        for r in self.resolutions if resolutions is None else resolutions:
            head, tail = self.fixed_ops(r)
            found.update((op, None) for _, op in head)
            found.update((self.block_op(r, s, c), None) for s in range(len(self.slots)) for c in self.choices)
            found.update((op, None) for _, op in tail)
        return tuple(found)

    def cost(self, of: Callable[[Op], float], resolutions: Iterable[int] | None = None) -> AdditiveCost:
        """Compile a cost of operators into one of architectures; resolutions left out cost NaN."""
        wanted = set(self.resolutions if resolutions is None else resolutions)
        blocks = np.full((len(self.resolutions), len(self.slots), len(self.choices) + 1), np.nan)
        fixed = np.full(len(self.resolutions), np.nan)
        for i, r in enumerate(self.resolutions):
            if r in wanted:
                fixed[i] = sum(of(op) for part in self.fixed_ops(r) for _, op in part)
                for s in range(len(self.slots)):
                    blocks[i, s] = [0.0, *(of(self.block_op(r, s, c)) for c in self.choices)]
        return AdditiveCost(blocks, fixed)

    @cached_property
    def macs(self) -> AdditiveCost:
        """Multiply-accumulates an image of each architecture (see `Op.macs`)."""
        return self.cost(lambda op: op.macs)

    @cached_property
    def params(self) -> AdditiveCost:
        """Learned numbers of each architecture (see `Op.params`)."""
        return self.cost(lambda op: op.params)

    # -- architectures and genes

    def check(self, arch: Arch) -> Arch:
        """Return `arch` if it is of this space.

        Raises:
            ArchError: naming the first rule that is broken.
        """
        if arch.resolution not in self.resolutions:
            raise ArchError(f"resolution {arch.resolution} is not one of {self.name}'s: {_listing(self.resolutions)}")
        if len(arch.stages) != len(self.stages):
            raise ArchError(f"{self.name} has {len(self.stages)} stages, the architecture has {len(arch.stages)}")
        for i, (blocks, stage) in enumerate(zip(arch.stages, self.stages, strict=True), 1):
            if len(blocks) not in stage.depths:
                raise ArchError(f"stage {i} has {len(blocks)} blocks; {self.name} allows {_listing(stage.depths)}")
            for block in blocks:
                if block not in self.choices:
                    raise ArchError(
                        f"block k{block[0]}e{block[1]} in stage {i}: {self.name} allows kernel "
                        f"{_listing(self.kernels)} and expansion {_listing(self.expands)}"
                    )
        return arch

    def genes(self, archs: Iterable[Arch]) -> Genes:
        """Genes of architectures, shape (n, 1 + slots); see `Genes`."""
        archs = list(archs)
        out = np.zeros((len(archs), 1 + len(self.slots)), np.int16)
        number = {choice: i for i, choice in enumerate(self.choices, 1)}
        where = {r: i for i, r in enumerate(self.resolutions)}
        for row, arch in zip(out, archs, strict=True):
            self.check(arch)
            row[0] = where[arch.resolution]
            for blocks, columns in zip(arch.stages, self.stage_columns, strict=True):
                row[columns.start : columns.start + len(blocks)] = [number[b] for b in blocks]
        return out

    def archs(self, genes: Genes) -> list[Arch]:
        """Architectures of genes: the inverse of `genes`."""
        return [
            self.check(
                Arch(
                    self.resolutions[row[0]],
                    tuple(tuple(self.choices[g - 1] for g in row[c] if g > 0) for c in self.stage_columns),
                )
            )
            for row in genes.tolist()
        ]

    def largest_choices(self, kernels: int, depths: int, expands: int) -> SearchSpace:
        """The part of the space that has only the `kernels` largest kernel sizes, and so on; its networks are ours."""
        stages = tuple(replace(stage, depths=stage.depths[-depths:]) for stage in self.stages)
        return replace(self, stages=stages, kernels=self.kernels[-kernels:], expands=self.expands[-expands:])

    def extreme(self, largest: bool) -> Arch:
        """The largest or the smallest network: every choice at its end."""
        end = -1 if largest else 0
        block = (self.kernels[end], self.expands[end])
        return Arch(self.resolutions[end], tuple((block,) * stage.depths[end] for stage in self.stages))

    def sample(self, rng: np.random.Generator, n: int, resolutions: Sequence[int] | None = None) -> Genes:
        """Genes of `n` networks, each choice (resolution, depth, kernel, expansion) drawn uniformly."""
        genes = rng.integers(1, len(self.choices) + 1, (n, 1 + len(self.slots))).astype(np.int16)
        allowed = [i for i, r in enumerate(self.resolutions) if resolutions is None or r in resolutions]
        genes[:, 0] = rng.choice(allowed, n)
        for stage, columns in zip(self.stages, self.stage_columns, strict=True):
            depth = rng.choice(stage.depths, n)
            genes[:, columns] *= np.arange(stage.depths[-1]) < depth[:, None]
        return genes

    def encode(self, genes: Genes) -> npt.NDArray[np.float32]:
        """One-hot features of architectures, as the official predictor has them.

        Returns:
            shape (n, slots * kernels + slots * expansions + resolutions): kernel of each slot, expansion of each
            slot (all zero where a slot is inactive), resolution.
        """
        kernel = np.zeros((len(self.choices) + 1, len(self.kernels)), np.float32)
        expand = np.zeros((len(self.choices) + 1, len(self.expands)), np.float32)
        for i, (k, e) in enumerate(self.choices, 1):
            kernel[i, self.kernels.index(k)] = expand[i, self.expands.index(e)] = 1
        n, blocks = len(genes), genes[:, 1:]
        return np.concatenate(
            [
                kernel[blocks].reshape(n, -1),
                expand[blocks].reshape(n, -1),
                np.eye(len(self.resolutions), dtype=np.float32)[genes[:, 0]],
            ],
            axis=1,
        )

    # -- once-for-all's form

    def to_ofa(self, arch: Arch) -> dict[str, list[int]]:
        """The official `{ks, e, d, r}`; entries of inactive slots repeat the smallest choice."""
        self.check(arch)
        ks, e = [], []
        for blocks, stage in zip(arch.stages, self.stages, strict=True):
            padded = [*blocks, *[(self.kernels[0], self.expands[0])] * (stage.depths[-1] - len(blocks))]
            ks += [k for k, _ in padded]
            e += [x for _, x in padded]
        return {"ks": ks, "e": e, "d": [len(blocks) for blocks in arch.stages], "r": [arch.resolution]}

    def from_ofa(self, config: Mapping[str, Any]) -> Arch:
        """The architecture of an official `{ks, e, d, r}`; `r` may be a number or a list of one.

        Raises:
            ArchError: a key is missing, a list has another length, or a value is outside the space.
        """
        try:
            ks, e, d = ([int(v) for v in config[key]] for key in ("ks", "e", "d"))
            r = config["r"]
            resolution = int(r[0] if isinstance(r, Sequence) else r)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ArchError("an official configuration needs the lists ks, e, d and the resolution r") from error
        if len(ks) != len(self.slots) or len(e) != len(self.slots) or len(d) != len(self.stages):
            raise ArchError(
                f"{self.name} needs {len(self.slots)} entries in ks and e and {len(self.stages)} in d, "
                f"not {len(ks)}, {len(e)} and {len(d)}"
            )
        stages = [
            tuple(zip(ks[c.start - 1 : c.start - 1 + n], e[c.start - 1 : c.start - 1 + n], strict=True))
            for c, n in zip(self.stage_columns, d, strict=True)
        ]
        return self.check(Arch(resolution, tuple(stages)))


@lru_cache(maxsize=4096)
def _walk(space: SearchSpace, arch: Arch) -> tuple[tuple[str, Op], ...]:
    space.check(arch)
    head, tail = space.fixed_ops(arch.resolution)
    blocks = [
        (f"blocks.{slot + 1}", space.block_op(arch.resolution, slot, arch.stages[stage][position]))
        for slot, (stage, position) in enumerate(space.slots)
        if position < len(arch.stages[stage])
    ]
    return (*head, *blocks, *tail)


def _listing(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
