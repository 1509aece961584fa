"""Search spaces, and the one place where a network is walked.

`Op` is what gets measured, `Arch` is one network, `SearchSpace` turns the second into the first. MAC counts,
latency tables, the elastic network, extracted networks and exported graphs all follow `SearchSpace.walk`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from ofa_deploy.errors import ArchError
from ofa_deploy.spaces.arch import Arch, Block
from ofa_deploy.spaces.costs import AdditiveCost, Genes, Ints, compile_cost
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.parts import Layer, Place, Stage, places


@dataclass(frozen=True)
class SearchSpace:
    """A family of networks as data, with elastic depth, kernel, expansion, width and resolution.

    Attributes:
        name: how commands and files call it.
        resolutions: allowed input sizes in pixels, ascending.
        in_channels: channels of the input image.
        classes: outputs of the classifier, which ends every network.
        parts: layers and stages in order of computation.
        bn_eps: epsilon of the batch norms.
        official_form: how the once-for-all project writes its networks: a name in `official.CODECS`.
    """

    name: str
    resolutions: tuple[int, ...]
    in_channels: int
    classes: int
    parts: tuple[Layer | Stage, ...]
    bn_eps: float = 1e-5
    official_form: str = "mobilenet"

    def __post_init__(self) -> None:
        if not self.resolutions or list(self.resolutions) != sorted(set(self.resolutions)) or self.resolutions[0] < 1:
            raise ArchError(f"resolutions of a space must be ascending and positive, not {self.resolutions}")
        if not self.stages:
            raise ArchError("a space needs at least one stage")

    # -- shape of the space

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The elastic stages."""
        return tuple(part for part in self.parts if isinstance(part, Stage))

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every place of an operator, in order of computation."""
        classifier = Layer("classifier", "linear", self.classes, bias=True)
        return places((*self.parts, classifier), self.in_channels)

    @cached_property
    def slots(self) -> tuple[Place, ...]:
        """The places of blocks, in the order of the genes' columns after the first."""
        return tuple(place for place in self.places if place.stage is not None)

    @cached_property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        """Choices of each elastic width, in the order of the genes' last columns."""
        return tuple(part.width for part in self.parts if isinstance(part.width, tuple))

    @cached_property
    def columns(self) -> int:
        """Columns of the genes."""
        return 1 + len(self.slots) + len(self.widths)

    @cached_property
    def stage_columns(self) -> tuple[slice, ...]:
        """The genes' columns of each stage."""
        ends = 1 + np.cumsum([stage.depths[-1] for stage in self.stages])
        return tuple(slice(int(e) - s.depths[-1], int(e)) for e, s in zip(ends, self.stages, strict=True))

    @cached_property
    def kernels(self) -> tuple[int, ...]:
        """Kernel sizes that any stage allows, ascending."""
        return tuple(sorted({k for stage in self.stages for k in stage.kernels}))

    @cached_property
    def expands(self) -> tuple[float, ...]:
        """Expansion ratios that any stage allows, ascending."""
        return tuple(sorted({e for stage in self.stages for e in stage.expands}))

    # -- the walk

    def walk(self, arch: Arch) -> tuple[tuple[str, Op], ...]:
        """THE walk: name and operator of each place of the network, in order of computation.

        Names are those of the official once-for-all modules (`first_conv`, `blocks.0`, ..., `classifier`).

        Raises:
            ArchError: the architecture is not of this space.
        """
        return _walk(self, arch)

    def ops(self, arch: Arch) -> tuple[Op, ...]:
        """The operators of a network, in order of computation."""
        return tuple(op for _, op in _walk(self, arch))

    def all_ops(self, resolutions: Iterable[int] | None = None) -> tuple[Op, ...]:
        """Every distinct operator that any network of the space can contain, in a fixed order."""
        ops: dict[Op, None] = {}
        for r in self.resolutions if resolutions is None else resolutions:
            for place in self.places:
                ops.update((op, None) for op in place.all_ops(r))
        return tuple(ops)

    def cost(self, cost_of: Callable[[Op], float], resolutions: Iterable[int] | None = None) -> AdditiveCost:
        """Compile a cost of operators into one of architectures; resolutions left out cost NaN."""
        covered = self.resolutions if resolutions is None else resolutions
        return compile_cost(self.places, self.resolutions, cost_of, covered)

    @cached_property
    def macs(self) -> AdditiveCost:
        """Multiply-accumulates of each architecture for one image."""
        return self.cost(lambda op: op.macs)

    @cached_property
    def params(self) -> AdditiveCost:
        """Learned numbers of each architecture: weights, biases, scale and shift of batch norms."""
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
            for kernel, expand in blocks:
                if (kernel, expand) not in stage.choices:
                    raise ArchError(
                        f"block k{kernel}e{expand} in stage {i}: {self.name} allows kernel "
                        f"{_listing(stage.kernels)} and expansion {_listing(stage.expands)}"
                    )
        if len(arch.widths) != len(self.widths):
            raise ArchError(
                f"{self.name} has {len(self.widths)} elastic widths, the architecture has {len(arch.widths)}"
            )
        for width, allowed in zip(arch.widths, self.widths, strict=True):
            if width not in allowed:
                raise ArchError(f"width {width}: {self.name} allows {_listing(allowed)} there")
        return arch

    def genes(self, archs: Iterable[Arch | str]) -> Genes:
        """Genes of architectures, as values or as text, shape (n, columns): a row each, as `costs.Genes` describes.

        Raises:
            ArchError: one is not of this space, or its text none; or it is not a list.
        """
        if isinstance(archs, Arch | str):
            raise ArchError(f"genes are of a list of architectures; write [{str(archs)[:20]!r}]")
        values = [Arch.parse(arch) if isinstance(arch, str) else arch for arch in archs]
        out = np.zeros((len(values), self.columns), np.int16)
        number = [{choice: i for i, choice in enumerate(stage.choices, 1)} for stage in self.stages]
        where = {r: i for i, r in enumerate(self.resolutions)}
        for row, arch in zip(out, values, strict=True):
            self.check(arch)
            row[0] = where[arch.resolution]
            for blocks, columns, numbers in zip(arch.stages, self.stage_columns, number, strict=True):
                row[columns.start : columns.start + len(blocks)] = [numbers[b] for b in blocks]
            row[1 + len(self.slots) :] = [c.index(w) for c, w in zip(self.widths, arch.widths, strict=True)]
        return out

    def archs(self, genes: Genes) -> list[Arch]:
        """Architectures of genes: the inverse of `genes`."""
        ends = 1 + len(self.slots)
        stages = list(zip(self.stages, self.stage_columns, strict=True))
        return [
            self.check(
                Arch(
                    self.resolutions[row[0]],
                    tuple(tuple(stage.choices[g - 1] for g in row[c] if g > 0) for stage, c in stages),
                    tuple(choices[g] for choices, g in zip(self.widths, row[ends:], strict=True)),
                )
            )
            for row in genes.tolist()
        ]

    def largest_choices(self, kernels: int, depths: int, expands: int, widths: int) -> SearchSpace:
        """The subspace of the `kernels` largest kernel sizes, the `depths` largest depths, and so on."""

        def fewer(part: Layer | Stage) -> Layer | Stage:
            width = part.width[-widths:] if isinstance(part.width, tuple) else part.width
            part = replace(part, width=width)
            if isinstance(part, Layer):
                return part
            return replace(
                part, depths=part.depths[-depths:], kernels=part.kernels[-kernels:], expands=part.expands[-expands:]
            )

        return replace(self, parts=tuple(map(fewer, self.parts)))

    def extreme(self, *, largest: bool, resolution: int | None = None) -> Arch:
        """The largest or the smallest network: every choice at its end, but for a given resolution."""
        end = -1 if largest else 0
        stages = tuple((stage.choices[end],) * stage.depths[end] for stage in self.stages)
        return Arch(resolution or self.resolutions[end], stages, tuple(choices[end] for choices in self.widths))

    def sample(self, rng: np.random.Generator, n: int, resolutions: Sequence[int] | None = None) -> Genes:
        """Genes of `n` networks, each choice (resolution, depth, kernel, expansion, width) drawn uniformly."""
        most = max(len(stage.choices) for stage in self.stages)
        genes = rng.integers(1, most + 1, (n, 1 + len(self.slots))).astype(np.int16)
        for stage, columns in zip(self.stages, self.stage_columns, strict=True):
            if len(stage.choices) < most:
                genes[:, columns] = rng.integers(1, len(stage.choices) + 1, (n, stage.depths[-1]))
        allowed = [i for i, r in enumerate(self.resolutions) if resolutions is None or r in resolutions]
        genes[:, 0] = rng.choice(allowed, n)
        for stage, columns in zip(self.stages, self.stage_columns, strict=True):
            depth = rng.choice(stage.depths, n)
            genes[:, columns] *= np.arange(stage.depths[-1]) < depth[:, None]
        widths = [rng.integers(0, len(choices), n) for choices in self.widths]
        return np.concatenate([genes, *(w.astype(np.int16)[:, None] for w in widths)], axis=1)

    @cached_property
    def changes(self) -> tuple[Ints, Ints]:
        """All values that single genes can have: column and value of each, shape (m,) each, in their order."""
        choices = [1 + len(self.stages[place.stage or 0].choices) for place in self.slots]
        counts = [len(self.resolutions), *choices, *map(len, self.widths)]
        columns = np.repeat(np.arange(self.columns), counts)
        return columns, np.concatenate([np.arange(count) for count in counts])


@lru_cache(maxsize=4096)
def _walk(space: SearchSpace, arch: Arch) -> tuple[tuple[str, Op], ...]:
    space.check(arch)
    out = []
    for place in space.places:
        block: Block | None = None
        if place.stage is not None:
            if place.position >= len(arch.stages[place.stage]):
                continue
            block = arch.stages[place.stage][place.position]
        c_in = place.c_in[0] if place.width_in is None else arch.widths[place.width_in]
        c_out = place.c_out[0] if place.width_out is None else arch.widths[place.width_out]
        out.append((place.name, place.op(arch.resolution, c_in, c_out, block)))
    return tuple(out)


def _listing(values: Iterable[float]) -> str:
    return ", ".join(map(str, values))
