"""Costs that are sums over operators, compiled so that whole populations are looked up at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.parts import Place, Stage

Genes = npt.NDArray[np.int16]
"""One row an architecture: column 0 is the index of the resolution; then a column for each block slot: 0 where the slot
is inactive, otherwise 1 + kernel index * number of expansions + expansion index; then a column for each elastic width:
the index of its choice."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
CHUNK = 1024
"""Architectures that are looked up at a time, which the cache holds."""


@dataclass(frozen=True)
class AdditiveCost:
    """A cost that is a sum over operators.

    Attributes:
        fixed: cost of the operators that only the resolution changes, shape (resolutions,).
        blocks: cost of each choice at each other place, shape (resolutions, places, contexts, choices + 1): column 0
            (inactive) is zero, and a context is input width index * number of output widths + output width index.
        places: for each of those places: its column in the genes (-1 for a layer that is always there), the columns of
            its input's and its output's width (-1 where fixed), and the number of output widths.
    """

    fixed: Floats
    blocks: Floats
    places: tuple[tuple[int, int, int, int], ...]

    def __call__(self, genes: Genes) -> Floats:
        """Cost of each architecture, shape (n,), from genes of shape (n, columns)."""
        if len(genes) > CHUNK:
            return np.concatenate([self(genes[i : i + CHUNK]) for i in range(0, len(genes), CHUNK)])
        values = genes.T.astype(np.intp)
        entries = values[self._columns]
        entries[self._columns < 0] = 1
        entries += self._starts(values)
        return np.asarray(self.fixed[values[0]] + self.blocks.ravel()[entries].sum(axis=0))

    def changed(self, genes: Genes, columns: Ints, values: Ints) -> Floats:
        """Cost of each architecture after each of m changes of one gene, shape (n, m).

        Args:
            genes: shape (n, columns).
            columns: of the gene that changes, shape (m,).
            values: that it then has, shape (m,).
        """
        place = np.full(genes.shape[1], -1)
        place[self._columns[self._columns >= 0]] = np.flatnonzero(self._columns >= 0)
        alone = place[columns] >= 0
        blocks, starts = self.blocks.ravel(), self._starts(genes.T.astype(np.intp)).T[:, place[columns[alone]]]
        gained = blocks[starts + values[alone]] - blocks[starts + genes[:, columns[alone]]]
        out = np.empty((len(genes), len(columns)))
        out[:, alone] = gained + self(genes)[:, None]
        several = np.flatnonzero(~alone)  # resolution and widths change more than one place
        rows = np.repeat(genes, len(several), axis=0)
        rows[np.arange(len(rows)), np.tile(columns[several], len(genes))] = np.tile(values[several], len(genes))
        out[:, several] = self(rows).reshape(len(genes), len(several))
        return out

    @cached_property
    def _columns(self) -> Ints:
        """Of the genes, for each place, -1 where it has none; shape (places,)."""
        return np.array([column for column, *_ in self.places], np.intp)

    def _starts(self, values: Ints) -> Ints:
        """Where the costs of each place's choices begin in the flat `blocks`, shape (places, n)."""
        places, contexts, choices = self.blocks.shape[1:]
        out = (
            values[0] * (places * contexts * choices)
            + np.arange(0, places * contexts * choices, contexts * choices)[:, None]
        )
        for starts, (_, width_in, width_out, widths) in zip(out, self.places, strict=True):
            if width_in >= 0:
                starts += values[width_in] * (widths * choices)
            if width_out >= 0:
                starts += values[width_out] * choices
        return np.asarray(out)

    def scaled(self, factor: float) -> AdditiveCost:
        """The cost times a factor."""
        return replace(self, fixed=self.fixed * factor, blocks=self.blocks * factor)

    def raised(self, constant: float) -> AdditiveCost:
        """The cost and a constant."""
        return replace(self, fixed=self.fixed + constant)

    def __add__(self, other: AdditiveCost) -> AdditiveCost:
        """The sum of two costs of one space."""
        return replace(self, fixed=self.fixed + other.fixed, blocks=self.blocks + other.blocks)

    @property
    def sums(self) -> tuple[AdditiveCost, ...]:
        """The additive costs that it is never below: itself."""
        return (self,)


@dataclass(frozen=True)
class SmoothMaximum:
    """A cost that is the smooth maximum `(a^power + b^power)^(1/power)` of two additive costs a and b.

    That is how long an asynchronous device takes: its host launches the operators one by one while it computes them.

    Attributes:
        sums: a and b; the cost is never below either of them.
        power: above 1; the larger, the closer to the maximum.
    """

    sums: tuple[AdditiveCost, AdditiveCost]
    power: float

    def __call__(self, genes: Genes) -> Floats:
        """Cost of each architecture, shape (n,), from genes of shape (n, columns)."""
        a, b = (cost(genes) for cost in self.sums)
        return smooth_maximum(a, b, self.power)

    def changed(self, genes: Genes, columns: Ints, values: Ints) -> Floats:
        """Cost of each architecture after each of m changes of one gene, shape (n, m).

        Args:
            genes: shape (n, columns).
            columns: of the gene that changes, shape (m,).
            values: that it then has, shape (m,).
        """
        a, b = (cost.changed(genes, columns, values) for cost in self.sums)
        return smooth_maximum(a, b, self.power)

    @property
    def fixed(self) -> Floats:
        """Of each resolution, what no architecture is below; NaN where the cost is not known, shape (resolutions,)."""
        return np.maximum(self.sums[0].fixed, self.sums[1].fixed)

    def scaled(self, factor: float) -> SmoothMaximum:
        """The cost times a factor."""
        return replace(self, sums=(self.sums[0].scaled(factor), self.sums[1].scaled(factor)))

    def mixed(self, share: float) -> AdditiveCost:
        """The mean of the two sums; `share` is the weight of the first."""
        return self.sums[0].scaled(share) + self.sums[1].scaled(1 - share)


Cost = AdditiveCost | SmoothMaximum
"""What predicts a cost of architectures from their genes."""


def smooth_maximum(a: Floats, b: Floats, power: float) -> Floats:
    """`(a^power + b^power)^(1/power)` of non-negative numbers, without overflow."""
    larger, smaller = np.maximum(a, b), np.minimum(a, b)
    ratio = np.divide(smaller, larger, out=np.zeros_like(larger), where=larger != 0)
    return np.asarray(larger * (1 + ratio**power) ** (1 / power))


def compile_cost(
    places: tuple[Place, ...], resolutions: tuple[int, ...], cost_of: Callable[[Op], float], covered: Iterable[int]
) -> AdditiveCost:
    """Compile a cost of operators into one of architectures; resolutions that are not wanted cost NaN."""
    slots = [p for p in places if p.stage is not None]
    varying = [p for p in places if p.stage is not None or p.width_in is not None or p.width_out is not None]
    choices = max((len(p.part.choices) for p in slots if isinstance(p.part, Stage)), default=1)
    contexts = max((len(p.c_in) * len(p.c_out) for p in varying), default=1)
    blocks = np.full((len(resolutions), len(varying), contexts, choices + 1), np.nan)
    fixed = np.full(len(resolutions), np.nan)
    covered = set(covered)
    same = [p for p in places if p not in varying]
    for i, r in enumerate(resolutions):
        if r not in covered:
            continue
        fixed[i] = sum(cost_of(p.op(r, p.c_in[0], p.c_out[0])) for p in same)
        for j, place in enumerate(varying):
            for context, c_in, c_out in place.channels():
                row = [0.0, *map(cost_of, place.ops(r, c_in, c_out))]
                blocks[i, j, context, : len(row)] = row
    ends = 1 + len(slots)
    column = {place: 1 + i for i, place in enumerate(slots)}
    columns = tuple(
        (
            column.get(p, -1),
            -1 if p.width_in is None else ends + p.width_in,
            -1 if p.width_out is None else ends + p.width_out,
            len(p.c_out),
        )
        for p in varying
    )
    return AdditiveCost(fixed, blocks, columns)
