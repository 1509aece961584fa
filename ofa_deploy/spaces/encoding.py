"""Networks as rows of numbers for accuracy predictors: the one place that knows what a column of them means.

The first columns are one-hot codes of a network's choices, the last are numbers: its resolution and its costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.costs import Floats, Genes, Ints
from ofa_deploy.spaces.space import SearchSpace

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureLayout:
    """Which columns of the features mean what, each group a slice, in their order.

    Attributes:
        kernels: one for each block slot and kernel size: 1 where the slot's block has it.
        expands: one for each block slot and expansion ratio: 1 where the slot's block has it.
        widths: one for each elastic width and its choices: 1 where the network has it.
        resolution: log2 of the resolution relative to the largest, and its square (a curve, so that resolutions
            without samples are predicted from their neighbours).
        costs: log10 of the multiply-accumulates and of the parameters.
    """

    kernels: slice
    expands: slice
    widths: slice
    resolution: slice
    costs: slice

    @classmethod
    def of_sizes(cls, kernels: int, expands: int, widths: int, resolution: int, costs: int) -> FeatureLayout:
        """The layout of groups of so many columns, side by side."""
        ends = np.cumsum([0, kernels, expands, widths, resolution, costs]).tolist()
        return cls(*map(slice, ends[:-1], ends[1:]))

    @classmethod
    def of_numbers(cls, columns: int) -> FeatureLayout:
        """The layout of any other matrix: its columns are numbers of one kind, none a code and none a cost."""
        return cls.of_sizes(0, 0, 0, columns, 0)

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Columns of each group."""
        groups = (self.kernels, self.expands, self.widths, self.resolution, self.costs)
        kernels, expands, widths, resolution, costs = (group.stop - group.start for group in groups)
        return kernels, expands, widths, resolution, costs

    @property
    def columns(self) -> int:
        """Columns of all groups."""
        return int(self.costs.stop)

    @property
    def codes(self) -> slice:
        """The one-hot columns."""
        return slice(0, self.widths.stop)

    @property
    def numbers(self) -> slice:
        """The columns that are no one-hot codes: resolution and costs."""
        return slice(self.resolution.start, self.costs.stop)


@lru_cache(maxsize=64)
def layout_of(space: SearchSpace) -> FeatureLayout:
    """Which columns of a space's `features` mean what."""
    slots = len(space.slots)
    return FeatureLayout.of_sizes(
        slots * len(space.kernels), slots * len(space.expands), sum(map(len, space.widths)), resolution=2, costs=2
    )


def features(space: SearchSpace, genes: Genes) -> Features:
    """What predictors are fitted on, shape (n, `FeatureLayout.columns`), from genes of shape (n, genes' columns)."""
    numbers = _numbers(space, genes[:, 0], space.macs(genes), space.params(genes))
    return np.concatenate([one_hot(space, genes), numbers], axis=1, dtype=np.float32, casting="same_kind")


def changed_numbers(space: SearchSpace, genes: Genes) -> Floats:
    """The `FeatureLayout.numbers` after each of the m changes of `SearchSpace.changes`, shape (n, m, numbers)."""
    columns, values = space.changes
    macs, params = (cost.changed(genes, columns, values) for cost in (space.macs, space.params))
    return _numbers(space, np.where(columns == 0, values, genes[:, :1]), macs, params)


def _numbers(space: SearchSpace, resolution: npt.NDArray[np.integer], macs: Floats, params: Floats) -> Floats:
    """From indices of resolutions and costs, all of one shape, to that shape and a further axis of the numbers."""
    size = np.log2(np.array(space.resolutions) / space.resolutions[-1])[resolution]
    return np.stack([size, size**2, np.log10(macs), np.log10(params)], axis=-1)


def one_hot(space: SearchSpace, genes: Genes) -> Features:
    """The `FeatureLayout.codes`, shape (n, codes): all zero where a slot is inactive."""
    columns = _code_columns(space)
    values = genes.T.astype(np.intp)
    out = np.zeros((len(genes), layout_of(space).codes.stop + 1), np.float32)
    for columns_of_value in columns:
        out[np.arange(len(genes)), columns_of_value[np.arange(len(values))[:, None], values]] = 1
    return out[:, :-1]


def code_columns(space: SearchSpace, gene: int) -> list[list[int]]:
    """For each value of a gene, the columns of `one_hot` that are 1: none, a width's, or a kernel's and an expansion's.

    Args:
        space: of the genes.
        gene: column of the genes; 0 is the resolution, which has no codes.
    """
    count = int((space.changes[0] == gene).sum())
    end = layout_of(space).codes.stop
    each = _code_columns(space)[:, gene, :count].T.tolist()
    return [sorted({column for column in columns if column < end}) for columns in each]


@lru_cache(maxsize=64)
def _code_columns(space: SearchSpace) -> Ints:
    """Which two (or one, twice) codes are 1 for each value of each gene, shape (2, genes' columns, values).

    Where no code is 1 it is the number of codes: a column that `one_hot` leaves out.
    """
    layout, kernels, expands = layout_of(space), len(space.kernels), len(space.expands)
    most = max(len(space.resolutions), *map(len, space.widths), *(1 + len(stage.choices) for stage in space.stages))
    ones = np.full((2, space.columns, most), layout.codes.stop)
    for stage, columns in zip(space.stages, space.stage_columns, strict=True):
        kernel = np.array([space.kernels.index(k) for k, _ in stage.choices])
        expand = np.array([space.expands.index(e) for _, e in stage.choices])
        for column in range(columns.start, columns.stop):
            slot = column - 1
            ones[0, column, 1 : 1 + len(kernel)] = layout.kernels.start + slot * kernels + kernel
            ones[1, column, 1 : 1 + len(kernel)] = layout.expands.start + slot * expands + expand
    start = layout.widths.start
    for column, choices in enumerate(space.widths, 1 + len(space.slots)):
        ones[:, column, : len(choices)] = start + np.arange(len(choices))
        start += len(choices)
    return ones
