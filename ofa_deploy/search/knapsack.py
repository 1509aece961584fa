"""What is exact about an additive cost: its cheapest and its dearest network."""

from __future__ import annotations

import numpy as np

from ofa_deploy.costs import AdditiveCost, Floats, Genes
from ofa_deploy.space import SearchSpace

_State = tuple[float, list[int]]


def extreme(space: SearchSpace, cost: AdditiveCost, dearest: bool = False) -> tuple[Genes, float]:
    """The network of least (or greatest) cost, by dynamic programming over the parts.

    Blocks, depths and stages are chosen independently for given widths; the state is the width of the last part.

    Args:
        space: of the cost.
        cost: resolutions that cost NaN are left out.
        dearest: look for the greatest instead.

    Returns:
        its genes, shape (1, columns), and its cost.
    """
    sign = -1.0 if dearest else 1.0
    best: tuple[float, list[int]] | None = None
    for r in np.flatnonzero(np.isfinite(cost.fixed)).tolist():
        found = min(_cheapest(space, cost, sign * cost.blocks[r], r), key=lambda state: state[0])
        total = found[0] + sign * cost.fixed[r]
        if best is None or total < best[0]:
            best = (total, found[1])
    assert best is not None, "a cost covers at least one resolution"
    return np.array([best[1]], np.int16), float(sign * best[0])


def _cheapest(space: SearchSpace, cost: AdditiveCost, table: Floats, resolution: int) -> list[_State]:
    """For each width of the last part, the least cost and its genes; `table` is of one resolution."""
    states: list[_State] = [(0.0, [resolution, *[0] * (space.columns - 1)])]
    at = 0
    while at < len(cost.places):
        column, width_in, width_out, widths = cost.places[at]
        end = at + 1
        depths: tuple[int, ...] = (1,)
        if column >= 0:
            stage = next(s for s, c in zip(space.stages, space.stage_columns, strict=True) if c.start == column)
            depths, end = stage.depths, at + stage.depths[-1]
        after: list[_State] = []
        for out in range(widths):
            ways = []
            for i, (total, genes) in enumerate(states):
                if width_in == width_out and width_in >= 0 and i != out:
                    continue
                extra, chosen = _cheapest_depth(table[at:end], depths, i * widths + out, out * widths + out)
                row = genes.copy()
                if column >= 0:
                    row[column : column + len(chosen)] = chosen
                if width_out >= 0:
                    row[width_out] = out
                ways.append((total + extra, row))
            after.append(min(ways, key=lambda way: way[0]))
        states, at = after, end
    return states


def _cheapest_depth(table: Floats, depths: tuple[int, ...], first: int, later: int) -> tuple[float, list[int]]:
    """Least cost of a part, and its choices: `first` and `later` are the contexts of its first and other places."""
    rows = np.stack([table[i, first if i == 0 else later, 1:] for i in range(len(table))])
    rows = np.where(np.isnan(rows), np.inf, rows)
    sums = [0.0, *np.cumsum(rows.min(axis=1))]
    depth = min(depths, key=lambda d: sums[d])
    return sums[depth], (1 + rows[:depth].argmin(axis=1)).tolist()
