"""The binary variables that a linear program over architectures has, and the equations that make them one.

A variable for each choice at a place, and for each depth and pair of widths of a segment.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.costs import AdditiveCost, Floats, Genes, Ints
from ofa_deploy.spaces.encoding import code_columns, layout_of
from ofa_deploy.spaces.extremes import Segment, segments_of
from ofa_deploy.spaces.space import SearchSpace

_Row = dict[int, float]
"""Coefficients of an equation, by the numbers of their binaries."""


@dataclass(frozen=True)
class Binaries:
    """The n binary variables of a space: a choice at a place, or a part's depth and widths.

    Attributes:
        place: index of the cost's place, -1 for a part's depth and widths, shape (n,).
        context: of the cost, shape (n,).
        choice: of the cost, shape (n,).
        gene: column of the genes that the variable sets, -1 for none, shape (n,).
        one_hot: its codes among the features, shape (n, codes).
        equations: coefficients of what makes the variables an architecture, shape (rows, n).
        totals: right-hand sides of the equations, shape (rows,).
    """

    place: Ints
    context: Ints
    choice: Ints
    gene: Ints
    one_hot: Floats
    equations: Floats
    totals: Floats

    def costs(self, cost: AdditiveCost, resolution: int) -> Floats:
        """What each variable costs at a resolution, given by its index, shape (n,)."""
        return np.where(self.place < 0, 0.0, cost.blocks[resolution, self.place, self.context, self.choice])

    def genes(self, space: SearchSpace, resolution: int, ones: npt.NDArray[np.bool_]) -> Genes:
        """Genes of the network whose variables are `ones`, shape (1, columns)."""
        genes = np.zeros((1, space.columns), np.int16)
        genes[0, 0] = resolution
        sets = ones & (self.gene >= 0)
        genes[0, self.gene[sets]] = self.choice[sets]
        return genes


def binaries(space: SearchSpace) -> Binaries:
    """The binary variables of a space.

    One unit flows from width to width through the segments, by one of the depths of each; where it passes a place, it
    takes one of the choices. These equations alone have integer vertices.
    """
    collected = _Collected(space)
    flows: list[_Row] = [{}]
    for segment in segments_of(space, space.macs):
        flows = collected.add_segment(segment, flows)
    return collected.binaries()


class _Collected:
    """Binary variables and equations, segment by segment."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._variables: list[tuple[int, int, int, int]] = []
        self._codes: list[list[int]] = []
        self._equations: list[tuple[_Row, float]] = []

    def add_segment(self, segment: Segment, flows: Sequence[_Row]) -> list[_Row]:
        """Add the variables of a segment.

        Args:
            segment: the next one.
            flows: the variables of the segment before it by whose width they arrive, with coefficients -1.

        Returns:
            the same of this segment.
        """
        _, width_in, width_out, _ = self._space.macs.places[segment.places.start]
        gene = width_out if width_out >= 0 and width_in != width_out else -1
        departures: list[_Row] = [{} for _ in flows]
        arrivals: list[_Row] = [{} for _ in segment.ways]
        passing: dict[tuple[int, int], _Row] = {}
        ways = sorted((way_in, way_out) for way_out, ends in enumerate(segment.ways) for way_in, _, _ in ends)
        for (way_in, way_out), depth in itertools.product(ways, segment.depths):
            number = self._add(-1, 0, way_out, gene)
            departures[way_in][number], arrivals[way_out][number] = 1.0, -1.0
            for position in range(depth):
                context = (way_out if position else way_in) * len(segment.ways) + way_out
                passing.setdefault((position, context), {})[number] = -1.0
        for arrived, departed in zip(flows, departures, strict=True):
            self._equations.append((arrived | departed, 0.0 if arrived else 1.0))
        for (position, context), row in passing.items():
            self._add_choices(segment, position, context, row)
        return arrivals

    def _add_choices(self, segment: Segment, position: int, context: int, row: _Row) -> None:
        """Add a variable for each choice at a place, of which one is taken for each that passes, by `row`."""
        gene = segment.column + position if segment.column >= 0 else -1
        choices = len(code_columns(self._space, gene)) - 1 if gene >= 0 else 1
        for choice in range(1, choices + 1):
            row[self._add(segment.places.start + position, context, choice, gene)] = 1.0
        self._equations.append((row, 0.0))

    def _add(self, place: int, context: int, choice: int, gene: int) -> int:
        """Add a variable; returns its number."""
        self._variables.append((place, context, choice, gene))
        self._codes.append(code_columns(self._space, gene)[choice] if gene >= 0 else [])
        return len(self._variables) - 1

    def binaries(self) -> Binaries:
        """All of them as arrays."""
        one_hot = np.zeros((len(self._variables), layout_of(self._space).codes.stop))
        for number, codes in enumerate(self._codes):
            one_hot[number, codes] = 1
        equations = np.zeros((len(self._equations), len(self._variables)))
        for number, (row, _) in enumerate(self._equations):
            equations[number, list(row)] = list(row.values())
        place, context, choice, gene = np.array(self._variables, np.intp).T
        totals = np.array([total for _, total in self._equations])
        return Binaries(place, context, choice, gene, one_hot, equations, totals)
