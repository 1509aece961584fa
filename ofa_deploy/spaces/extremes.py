"""The cheapest and the dearest network of a space, exact where a cost is a sum over operators.

Blocks, depths and stages are chosen independently for given widths, so dynamic programming over the segments of a
network finds them; its state is the width of the last segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_deploy.spaces.costs import AdditiveCost, Cost, Floats, Genes, SmoothMaximum
from ofa_deploy.spaces.space import SearchSpace

MIXTURES = 9
"""Mixtures of the two sums of a smooth maximum whose extremes are compared."""
_State = tuple[float, list[int]]


def extreme(space: SearchSpace, cost: Cost, *, dearest: bool = False) -> tuple[Genes, float]:
    """The network of least (or greatest) cost.

    For a smooth maximum: the best of the networks that are extreme for one of `MIXTURES` mixtures of its two sums, so
    perhaps not quite the least or the greatest.

    Args:
        space: of the cost.
        cost: resolutions that cost NaN are left out.
        dearest: look for the greatest instead.

    Returns:
        its genes, shape (1, columns), and its cost.
    """
    if isinstance(cost, SmoothMaximum):
        shares = np.linspace(0, 1, MIXTURES).tolist()
        genes = np.concatenate([extreme(space, cost.mixed(share), dearest=dearest)[0] for share in shares])
        costs = cost(genes)
        best_row = int(costs.argmax() if dearest else costs.argmin())
        return genes[[best_row]], float(costs[best_row])
    sign = -1.0 if dearest else 1.0
    best: tuple[float, list[int]] | None = None
    for r in np.flatnonzero(np.isfinite(cost.fixed)).tolist():
        total, genes_row = min(_cheapest(space, cost, sign * cost.blocks[r], r), key=lambda state: state[0])
        total += sign * cost.fixed[r]
        if best is None or total < best[0]:
            best = (total, genes_row)
    assert best is not None, "a cost covers at least one resolution"
    return np.array([best[1]], np.int16), float(sign * best[0])


@dataclass(frozen=True)
class Segment:
    """Places that are chosen together: a stage, or one layer.

    Attributes:
        places: indices into `AdditiveCost.places`.
        column: of its first block in the genes; -1 for a layer.
        depths: how many of the places a network may have.
        ways: for each output width: the input widths it can follow, with the contexts of its first and later places.
        width_out: column of its width in the genes; -1 where fixed.
    """

    places: range
    column: int
    depths: tuple[int, ...]
    ways: tuple[tuple[tuple[int, int, int], ...], ...]
    width_out: int

    def written(self, genes: list[int], choices: list[int], out: int) -> list[int]:
        """The genes with this segment's choices and its output width."""
        row = genes.copy()
        if self.column >= 0:
            row[self.column : self.column + len(choices)] = choices
        if self.width_out >= 0:
            row[self.width_out] = out
        return row


def segments_of(space: SearchSpace, cost: AdditiveCost) -> list[Segment]:
    """What varies of a network, in order of computation."""
    segments, at, before = [], 0, 1
    while at < len(cost.places):
        column, width_in, width_out, widths = cost.places[at]
        depths: tuple[int, ...] = (1,)
        end = at + 1
        if column >= 0:
            stage = next(s for s, c in zip(space.stages, space.stage_columns, strict=True) if c.start == column)
            depths, end = stage.depths, at + stage.depths[-1]
        same = width_in == width_out and width_in >= 0
        ways = tuple(
            tuple((i, i * widths + out, out * widths + out) for i in range(before) if not same or i == out)
            for out in range(widths)
        )
        segments.append(Segment(range(at, end), column, depths, ways, width_out))
        at, before = end, widths
    return segments


def _cheapest(space: SearchSpace, cost: AdditiveCost, table: Floats, resolution: int) -> list[_State]:
    """For each width of the last segment, the least cost and its genes; `table` is of one resolution."""
    states: list[_State] = [(0.0, [resolution, *[0] * (space.columns - 1)])]
    for segment in segments_of(space, cost):
        after: list[_State] = []
        for out, ways in enumerate(segment.ways):
            candidates = []
            for before, first, later in ways:
                total, genes = states[before]
                places = slice(segment.places.start, segment.places.stop)
                extra, choices = _cheapest_depth(table[places], segment.depths, first, later)
                candidates.append((total + extra, segment.written(genes, choices, out)))
            after.append(min(candidates, key=lambda state: state[0]))
        states = after
    return states


def _cheapest_depth(table: Floats, depths: tuple[int, ...], first: int, later: int) -> tuple[float, list[int]]:
    """Least cost of a segment, and its choices: `first` and `later` are the contexts of its first and other places."""
    rows = np.stack([table[i, first if i == 0 else later, 1:] for i in range(len(table))])
    rows = np.where(np.isnan(rows), np.inf, rows)
    sums = [0.0, *np.cumsum(rows.min(axis=1))]
    depth = min(depths, key=lambda d: sums[d])
    return sums[depth], (1 + rows[:depth].argmin(axis=1)).tolist()
