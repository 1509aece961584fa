"""What is exact about an additive cost: its cheapest and its dearest network."""

from __future__ import annotations

import numpy as np

from ofa_deploy.space import AdditiveCost, Genes, SearchSpace


def extreme(space: SearchSpace, cost: AdditiveCost, dearest: bool = False) -> tuple[Genes, float]:
    """The network of least (or greatest) cost: blocks and stages of an additive cost are chosen independently.

    Args:
        space: of the cost.
        cost: resolutions that cost NaN are left out.
        dearest: look for the greatest instead.

    Returns:
        its genes, shape (1, 1 + slots), and its cost.
    """
    sign = -1.0 if dearest else 1.0
    best: tuple[Genes, float] | None = None
    for r in np.flatnonzero(np.isfinite(cost.fixed)):
        total, row = sign * cost.fixed[r], np.zeros(1 + len(space.slots), np.int16)
        row[0] = r
        for stage, columns in zip(space.stages, space.stage_columns, strict=True):
            options = sign * cost.blocks[r, columns.start - 1 : columns.stop - 1, 1:]
            sums = np.cumsum(options.min(axis=1))
            depth = min(stage.depths, key=lambda d, sums=sums: sums[d - 1])  # type: ignore[misc]
            row[columns.start : columns.start + depth] = 1 + options[:depth].argmin(axis=1)
            total += sums[depth - 1]
        if best is None or total < best[1]:
            best = row[None], float(total)
    assert best is not None, "a cost covers at least one resolution"
    return best[0], sign * best[1]
