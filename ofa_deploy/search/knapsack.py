"""The best network within a budget where value and cost are sums over blocks: a multiple-choice knapsack.

Dynamic programming over the segments of a space, see `extremes`; the state is the width of the last segment and what
remains of the budget, in steps. All resolutions are filled together. Exact but for the rounding of costs to steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.costs import AdditiveCost, Floats, Genes, Ints
from ofa_deploy.spaces.extremes import Segment, segments_of
from ofa_deploy.spaces.space import SearchSpace

BINS = 300
"""Steps of a budget."""


def best_within(
    space: SearchSpace, value: AdditiveCost, cost: AdditiveCost, limits: Sequence[float], bins: int = BINS
) -> Genes:
    """For each resolution and limit, the network of highest value among those that cost at most the limit.

    Args:
        space: of both sums.
        value: what is maximised.
        cost: what is limited; resolutions that cost NaN are left out.
        limits: in the unit of the cost.
        bins: steps of the largest limit, to which costs are rounded.

    Returns:
        genes, shape (n, columns), n at most resolutions times limits: none where nothing fits.
    """
    room = max(limits) - cost.fixed
    resolutions = np.flatnonzero(np.isfinite(cost.fixed) & (room > 0))
    step = room[resolutions] / bins
    blocks = cost.blocks[resolutions]
    knapsack = _Knapsack(
        segments_of(space, cost),
        np.where(np.isnan(blocks), -np.inf, value.blocks[resolutions]),
        np.rint(np.nan_to_num(blocks) / step[:, None, None, None]).astype(np.intp),
        bins,
    )
    rows = np.repeat(np.arange(len(resolutions)), len(limits))  # a network for each resolution and limit
    most = np.tile(np.asarray(limits, float), len(resolutions))
    budget = ((most - cost.fixed[resolutions][rows]) / step[rows]).astype(np.intp)
    genes = np.zeros((len(rows), space.columns), np.int16)
    genes[:, 0] = resolutions[rows]
    pending, fits = np.arange(len(rows)), np.zeros(len(rows), bool)
    for _ in range(1 + len(cost.places)):  # a few steps less where rounding made it too dear
        pending = pending[budget[pending] >= 0]
        pending = pending[knapsack.fillable(rows[pending], budget[pending])]
        if not len(pending):
            break
        genes[pending] = knapsack.read(genes[pending], rows[pending], budget[pending])
        cheap = cost(genes[pending]) <= most[pending]
        fits[pending] = cheap
        pending = pending[~cheap]
        budget[pending] -= 1
    return genes[fits]


@dataclass(frozen=True)
class _Filled:
    """The highest value that the segments up to one can reach, for everything that may remain of the budget.

    Attributes:
        best: for each output width, shape (widths, resolutions, bins + 1); minus infinity where nothing fits.
        totals: for each of its ways, after so many of the places, shape (widths, ways, places + 1, resolutions,
            bins + 1).
    """

    best: Floats
    totals: Floats


class _Knapsack:
    """Budgets of all resolutions, filled.

    Args:
        segments: of the space.
        values: of choices, shape (resolutions, places, contexts, choices + 1).
        steps: of the budget that choices take, of the same shape.
        bins: steps of a budget.
    """

    def __init__(self, segments: Sequence[Segment], values: Floats, steps: Ints, bins: int) -> None:
        self._segments, self._values, self._steps, self._bins = segments, values, steps, bins
        self._filled: list[_Filled] = []
        states = np.zeros((1, len(values), bins + 1))
        for segment in segments:
            totals = np.array([[self._totals(segment, states, way) for way in ways] for ways in segment.ways])
            states = totals[:, :, segment.depths].max(axis=(1, 2))
            self._filled.append(_Filled(states, totals))

    def fillable(self, rows: Ints, budgets: Ints) -> npt.NDArray[np.bool_]:
        """Whether a network fits into each budget, shape (n,), of resolutions by their rows and of so many steps."""
        return np.asarray(self._filled[-1].best[:, rows, budgets].max(axis=0, initial=-np.inf) > -np.inf)

    def _totals(self, segment: Segment, states: Floats, way: tuple[int, int, int]) -> list[Floats]:
        """Highest values of a segment that follows one input width: ahead of its places and after each."""
        width_in, first, later = way
        totals = [states[width_in]]
        rows, reach = np.arange(len(self._values)), states.shape[2]
        nothing = np.full_like(totals[0], -np.inf)
        for i, place in enumerate(segment.places):
            context = first if i == 0 else later
            taken = np.minimum(self._steps[:, place, context, 1:].T, reach)
            gained = np.repeat(totals[-1][:, -1:], max(0, -taken.min(initial=0)), axis=1)  # some cost less than nothing
            padded = np.concatenate([nothing, totals[-1], gained], axis=1)
            windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=1)[rows, reach - taken]
            windows += self._values[:, place, context, 1:].T[..., None]
            totals.append(windows.max(axis=0))
        return totals

    def read(self, genes: Genes, rows: Ints, budgets: Ints) -> Genes:
        """The best networks, decided from the last segment to the first.

        Args:
            genes: with their resolutions, shape (n, columns).
            rows: of the resolutions, shape (n,).
            budgets: steps that each network may take, shape (n,).
        """
        genes, networks = genes.copy(), np.arange(len(rows))
        width = self._filled[-1].best[:, rows, budgets].argmax(axis=0)
        for segment, filled in zip(reversed(self._segments), reversed(self._filled), strict=True):
            if segment.width_out >= 0:
                genes[:, segment.width_out] = width
            ends = filled.totals[width, :, :, rows, budgets][:, :, segment.depths]  # (n, ways, depths)
            way = ends.max(axis=2).argmax(axis=1)
            depth = np.array(segment.depths)[ends[networks, way].argmax(axis=1)]
            width_in, first, later = np.moveaxis(np.array(segment.ways)[width, way], -1, 0)
            for i in reversed(range(len(segment.places))):
                context = first if i == 0 else later
                remaining = budgets[:, None] - self._steps[rows, segment.places[i], context, 1:]  # (n, choices)
                reached = filled.totals[width, way, i, rows][networks[:, None], np.clip(remaining, 0, self._bins)]
                values = self._values[rows, segment.places[i], context, 1:]
                choice, active = (np.where(remaining >= 0, reached, -np.inf) + values).argmax(axis=1), i < depth
                budgets = np.where(active, np.minimum(remaining[networks, choice], self._bins), budgets)
                if segment.column >= 0:
                    genes[:, segment.column + i] = np.where(active, 1 + choice, 0)
            width = width_in
        return genes
