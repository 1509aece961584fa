"""What is exact about sums over parts: the cheapest and the dearest network, and the best one within a budget.

Blocks, depths and stages are chosen independently for given widths, so dynamic programming over the parts solves both;
the state is the width of the last part and, with a budget, what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.costs import AdditiveCost, Cost, Floats, Genes, SmoothMaximum
from ofa_deploy.space import SearchSpace

BINS = 300
"""Steps of a budget."""
MIXTURES = 9
"""Mixtures of the two sums of a smooth maximum whose extremes are looked at, see `extreme`."""
_State = tuple[float, list[int]]
_Ints = npt.NDArray[np.intp]


def extreme(space: SearchSpace, cost: Cost, dearest: bool = False) -> tuple[Genes, float]:
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
        genes = np.concatenate([extreme(space, cost.mixed(share), dearest)[0] for share in shares])
        costs = cost(genes)
        chosen = int(costs.argmax() if dearest else costs.argmin())
        return genes[[chosen]], float(costs[chosen])
    sign = -1.0 if dearest else 1.0
    best: tuple[float, list[int]] | None = None
    for r in np.flatnonzero(np.isfinite(cost.fixed)).tolist():
        found = min(_cheapest(space, cost, sign * cost.blocks[r], r), key=lambda state: state[0])
        total = found[0] + sign * cost.fixed[r]
        if best is None or total < best[0]:
            best = (total, found[1])
    assert best is not None, "a cost covers at least one resolution"
    return np.array([best[1]], np.int16), float(sign * best[0])


@dataclass(frozen=True)
class Part:
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

    def written(self, genes: list[int], chosen: list[int], out: int) -> list[int]:
        """The genes with this part's choices and its output width."""
        row = genes.copy()
        if self.column >= 0:
            row[self.column : self.column + len(chosen)] = chosen
        if self.width_out >= 0:
            row[self.width_out] = out
        return row


def parts_of(space: SearchSpace, cost: AdditiveCost) -> list[Part]:
    """What varies of a network, in order of computation."""
    parts, at, before = [], 0, 1
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
        parts.append(Part(range(at, end), column, depths, ways, width_out))
        at, before = end, widths
    return parts


def _cheapest(space: SearchSpace, cost: AdditiveCost, table: Floats, resolution: int) -> list[_State]:
    """For each width of the last part, the least cost and its genes; `table` is of one resolution."""
    states: list[_State] = [(0.0, [resolution, *[0] * (space.columns - 1)])]
    for part in parts_of(space, cost):
        after: list[_State] = []
        for out, ways in enumerate(part.ways):
            found = []
            for before, first, later in ways:
                total, genes = states[before]
                extra, chosen = _cheapest_depth(table[part.places.start : part.places.stop], part.depths, first, later)
                found.append((total + extra, part.written(genes, chosen, out)))
            after.append(min(found, key=lambda state: state[0]))
        states = after
    return states


def _cheapest_depth(table: Floats, depths: tuple[int, ...], first: int, later: int) -> tuple[float, list[int]]:
    """Least cost of a part, and its choices: `first` and `later` are the contexts of its first and other places."""
    rows = np.stack([table[i, first if i == 0 else later, 1:] for i in range(len(table))])
    rows = np.where(np.isnan(rows), np.inf, rows)
    sums = [0.0, *np.cumsum(rows.min(axis=1))]
    depth = min(depths, key=lambda d: sums[d])
    return sums[depth], (1 + rows[:depth].argmin(axis=1)).tolist()


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
