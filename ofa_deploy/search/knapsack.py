"""The best network within a budget, exact for sums over parts but for rounding.

Dynamic programming over the parts, see `extremes`; the state is the width of the last part and what is left
of the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.costs import AdditiveCost, Floats, Genes
from ofa_deploy.extremes import Part, parts_of
from ofa_deploy.space import SearchSpace

BINS = 300
"""Steps of a budget."""
_Ints = npt.NDArray[np.intp]


def best_within(
    space: SearchSpace, value: AdditiveCost, cost: AdditiveCost, limits: Sequence[float], bins: int = BINS
) -> Genes:
    """For each resolution and limit, the network of highest value among those that cost at most the limit.

    A multiple-choice knapsack. Costs are rounded to the budget's `bins` steps, so the answer is within the limit and
    exact but for that rounding.

    Args:
        space: of both sums.
        value: what is maximised.
        cost: what is limited; resolutions that cost NaN are left out.
        limits: in the unit of the cost.
        bins: steps of the largest limit.

    Returns:
        genes, shape (n, columns), n at most resolutions times limits: none where nothing fits.
    """
    found = []
    parts = parts_of(space, cost)
    for r in np.flatnonzero(np.isfinite(cost.fixed)).tolist():
        room = max(limits) - cost.fixed[r]
        if room <= 0:
            continue
        step = room / bins
        steps = np.rint(np.nan_to_num(cost.blocks[r]) / step).astype(np.intp)
        values = np.where(np.isnan(cost.blocks[r]), -np.inf, value.blocks[r])
        filled = _filled(parts, values, steps, bins)
        for limit in limits:
            left = int((limit - cost.fixed[r]) / step)
            genes = _within(space, parts, filled, steps, left, r, cost, limit)
            found += [] if genes is None else [genes]
    return np.array(found, np.int16).reshape(-1, space.columns)


@dataclass(frozen=True)
class _Filled:
    """One part's decisions for what may be left of a budget, for one output width.

    Attributes:
        best: highest value up to this part, shape (bins + 1,); minus infinity where nothing fits.
        way: index into the part's ways, shape (bins + 1,).
        depth: how many of the places, shape (ways, bins + 1).
        choice: of each place, shape (ways, places, bins + 1).
    """

    best: Floats
    way: _Ints
    depth: _Ints
    choice: _Ints


def _filled(parts: Sequence[Part], values: Floats, steps: _Ints, bins: int) -> list[list[_Filled]]:
    """For each part and output width, what is best for everything that may be left of the budget."""
    out: list[list[_Filled]] = []
    states = [np.zeros(bins + 1)]
    for part in parts:
        row = []
        for ways in part.ways:
            reached = [_filled_part(part, values, steps, states[before], first, later) for before, first, later in ways]
            totals = np.stack([total for total, _, _ in reached])
            depth, choice = np.stack([d for _, d, _ in reached]), np.stack([c for _, _, c in reached])
            row.append(_Filled(totals.max(axis=0), totals.argmax(axis=0), depth, choice))
        out.append(row)
        states = [filled.best for filled in row]
    return out


def _filled_part(
    part: Part, values: Floats, steps: _Ints, before: Floats, first: int, later: int
) -> tuple[Floats, _Ints, _Ints]:
    """Best value, depth and choices of a part that follows one input width."""
    bins = np.arange(len(before))
    totals, choices = [before], []
    for i, place in enumerate(part.places):
        context = first if i == 0 else later
        left = bins - steps[place, context, 1:, None]
        fits = np.where(left >= 0, totals[-1][np.clip(left, 0, len(bins) - 1)], -np.inf)
        reached = fits + values[place, context, 1:, None]
        choices.append(reached.argmax(axis=0))
        totals.append(reached.max(axis=0))
    allowed = np.stack([totals[depth] for depth in part.depths])
    return allowed.max(axis=0), np.array(part.depths)[allowed.argmax(axis=0)], np.stack(choices)


def _within(
    space: SearchSpace, parts: Sequence[Part], filled: Sequence[Sequence[_Filled]], steps: _Ints, left: int,
    resolution: int, cost: AdditiveCost, limit: float,
) -> list[int] | None:  # fmt: skip
    """Genes of the best network for `left` steps, or a few less where rounding made it too dear; None without one."""
    for fewer in range(len(steps) + 1):
        if left - fewer < 0 or max(last.best[left - fewer] for last in filled[-1]) == -np.inf:
            return None
        genes = _read(space, parts, filled, steps, left - fewer, resolution)
        if cost(np.array([genes], np.int16))[0] <= limit:
            return genes
    return None


def _read(
    space: SearchSpace, parts: Sequence[Part], filled: Sequence[Sequence[_Filled]], steps: _Ints, left: int,
    resolution: int,
) -> list[int]:  # fmt: skip
    """Follow the decisions back from the last part."""
    genes = [resolution, *[0] * (space.columns - 1)]
    out = max(range(len(filled[-1])), key=lambda width: filled[-1][width].best[left])
    for part, row in zip(reversed(parts), reversed(filled), strict=True):
        decided, bins = row[out], len(row[out].best) - 1
        way = int(decided.way[left])
        before, first, later = part.ways[out][way]
        chosen: list[int] = []
        for i in reversed(range(int(decided.depth[way, left]))):
            choice = 1 + int(decided.choice[way, i, left])
            left = min(left - int(steps[part.places[i], first if i == 0 else later, choice]), bins)
            chosen.insert(0, choice)
        genes = part.written(genes, chosen, out)
        out = before
    return genes
