"""The best network within a budget, exact for sums over parts but for rounding.

Dynamic programming over the parts, see `extremes`; the state is the width of the last part and what is left
of the budget. All resolutions are filled together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_deploy.spaces.costs import AdditiveCost, Floats, Genes, Ints
from ofa_deploy.spaces.extremes import Part, parts_of
from ofa_deploy.spaces.space import SearchSpace

BINS = 300
"""Steps of a budget."""


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
    room = max(limits) - cost.fixed
    resolutions = np.flatnonzero(np.isfinite(cost.fixed) & (room > 0))
    step = room[resolutions] / bins
    blocks = cost.blocks[resolutions]
    steps = np.rint(np.nan_to_num(blocks) / step[:, None, None, None]).astype(np.intp)
    values = np.where(np.isnan(blocks), -np.inf, value.blocks[resolutions])
    parts = parts_of(space, cost)
    filled = _filled(parts, values, steps, bins)
    rows = np.repeat(np.arange(len(resolutions)), len(limits))  # a network for each resolution and limit
    most = np.tile(np.asarray(limits, float), len(resolutions))
    left = ((most - cost.fixed[resolutions][rows]) / step[rows]).astype(np.intp)
    genes = np.zeros((len(rows), space.columns), np.int16)
    genes[:, 0] = resolutions[rows]
    looking, found = np.arange(len(rows)), np.zeros(len(rows), bool)
    for _ in range(1 + len(cost.places)):  # a few steps less where rounding made it too dear
        looking = looking[left[looking] >= 0]
        reached = filled[-1].best[:, rows[looking], left[looking]].max(axis=0, initial=-np.inf)
        looking = looking[reached > -np.inf]
        if not len(looking):
            break
        genes[looking] = _read(parts, filled, values, steps, genes[looking], rows[looking], left[looking])
        found[looking] = within = cost(genes[looking]) <= most[looking]
        looking = looking[~within]
        left[looking] -= 1
    return genes[found]


@dataclass(frozen=True)
class _Filled:
    """What is the most that one part can reach, for everything that may be left of the budget.

    Attributes:
        best: for each output width, shape (widths, resolutions, bins + 1); minus infinity where nothing fits.
        totals: for each of its ways, after so many of the places, shape (widths, ways, places + 1, resolutions,
            bins + 1).
    """

    best: Floats
    totals: Floats


def _filled(parts: Sequence[Part], values: Floats, steps: Ints, bins: int) -> list[_Filled]:
    """For each part, from values and steps of shape (resolutions, places, contexts, choices + 1)."""
    out: list[_Filled] = []
    states = np.zeros((1, len(values), bins + 1))
    for part in parts:
        totals = np.array([[_totals(part, values, steps, states, way) for way in ways] for ways in part.ways])
        states = totals[:, :, part.depths].max(axis=(1, 2))
        out.append(_Filled(states, totals))
    return out


def _totals(part: Part, values: Floats, steps: Ints, states: Floats, way: tuple[int, int, int]) -> list[Floats]:
    """Of a part that follows one input width: before its places and after each."""
    before, first, later = way
    totals = [states[before]]
    rows, reach = np.arange(len(values)), states.shape[2]
    nothing = np.full_like(totals[0], -np.inf)
    for i, place in enumerate(part.places):
        context = first if i == 0 else later
        taken = np.minimum(steps[:, place, context, 1:].T, reach)
        gained = np.repeat(totals[-1][:, -1:], max(0, -taken.min(initial=0)), axis=1)  # some cost less than nothing
        padded = np.concatenate([nothing, totals[-1], gained], axis=1)
        after = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=1)[rows, reach - taken]
        after += values[:, place, context, 1:].T[..., None]
        totals.append(after.max(axis=0))
    return totals


def _read(
    parts: Sequence[Part],
    filled: Sequence[_Filled],
    values: Floats,
    steps: Ints,
    genes: Genes,
    rows: Ints,
    left: Ints,
) -> Genes:
    """Decide from the last part to the first, for resolutions `rows` with `left` steps of the budget each."""
    genes, n = genes.copy(), np.arange(len(rows))
    bins = filled[-1].best.shape[2] - 1
    out = filled[-1].best[:, rows, left].argmax(axis=0)
    for part, reached in zip(reversed(parts), reversed(filled), strict=True):
        if part.width_out >= 0:
            genes[:, part.width_out] = out
        ends = reached.totals[out, :, :, rows, left][:, :, part.depths]  # (n, ways, depths)
        way = ends.max(axis=2).argmax(axis=1)
        depth = np.array(part.depths)[ends[n, way].argmax(axis=1)]
        before, first, later = np.moveaxis(np.array(part.ways)[out, way], -1, 0)
        for i in reversed(range(len(part.places))):
            context = first if i == 0 else later
            after = left[:, None] - steps[rows, part.places[i], context, 1:]  # (n, choices)
            fits = reached.totals[out, way, i, rows][n[:, None], np.clip(after, 0, bins)]
            total = np.where(after >= 0, fits, -np.inf) + values[rows, part.places[i], context, 1:]
            choice, active = total.argmax(axis=1), i < depth
            left = np.where(active, np.minimum(after[n, choice], bins), left)
            if part.column >= 0:
                genes[:, part.column + i] = np.where(active, 1 + choice, 0)
        out = before
    return genes
