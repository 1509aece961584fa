"""Local search: the most promising single changes of a network and pairs of them, until none helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.search.archive import Archive
from ofa_deploy.search.limits import SLACK, Limit, excess_of
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.stopping import Clock
from ofa_deploy.spaces.costs import Floats, Genes, Ints
from ofa_deploy.spaces.space import SearchSpace

PAIRS = 24
"""Pairs of changes of a network that are evaluated: those that are best if their gains add up."""
SINGLES = 8
"""Single changes of a network that are evaluated."""
EARLY = 6
"""Changes that are evaluated first, a third of them single ones; the others follow where none of these helps."""
STEPS = 60
"""Of each network, at most."""

_Change = tuple[tuple[int, int], int, int]
"""The first and the last column of the genes that a change takes for itself; the column that it sets, and to what."""


@dataclass(frozen=True)
class Changes:
    """The k changes of a network and of all of the same depths: one block, a stage's depth by one, a width, resolution.

    Attributes:
        numbers: of the changes in `SearchSpace.changes`, shape (k,).
        columns: of the gene that changes, shape (k,).
        values: that the gene can have, shape (k,), its present one among them.
        apart: whether two changes have nothing in common, so that they can be made together, shape (k, k).
    """

    numbers: Ints
    columns: Ints
    values: Ints
    apart: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, space: SearchSpace, row: Genes, resolutions: Sequence[int]) -> Changes:
        """The changes of a network.

        Args:
            space: of the network.
            row: its genes, shape (columns,).
            resolutions: indices of those that it may get.
        """
        everything = (0, space.columns)
        changes: list[_Change] = [(everything, 0, resolution) for resolution in resolutions]
        for stage, columns in zip(space.stages, space.stage_columns, strict=True):
            end = columns.start + int((row[columns] > 0).sum())
            choices = range(1, len(stage.choices) + 1)
            changes += [
                ((column, column), column, choice) for column in range(columns.start, end) for choice in choices
            ]
            longer = end - columns.start + 1 in stage.depths
            if longer:
                changes += [((end, end), end, choice) for choice in choices]
            if end - columns.start - 1 in stage.depths:
                changes.append(((end - 1, end - 1 + longer), end - 1, 0))
        for column, widths in enumerate(space.widths, 1 + len(space.slots)):
            changes += [(everything, column, width) for width in range(len(widths))]
        spans, set_columns, values = (np.array(values, np.intp) for values in zip(*changes, strict=True))
        earlier = spans[:, 1][:, None] < spans[:, 0]
        starts = np.searchsorted(space.changes[0], set_columns)
        return cls(starts + values, set_columns, values, earlier | earlier.T)

    def applied(self, row: Genes, numbers: Ints, seconds: Ints | None = None) -> Genes:
        """The networks after some changes, shape (len(numbers), columns).

        Args:
            row: genes of the network, shape (columns,).
            numbers: of a change for each network.
            seconds: of a further change for each; None makes none.
        """
        rows = np.repeat(row[None], len(numbers), axis=0)
        for change_numbers in (numbers,) if seconds is None else (numbers, seconds):
            rows[np.arange(len(rows)), self.columns[change_numbers]] = self.values[change_numbers]
        return rows


class LocalSearch:
    """Improves networks.

    Args:
        problem: with the limits that the networks should keep: that of the archive, or one with other limits on the
            same costs. Its gains tell which changes are worth evaluating; without gains all single ones are.
        archive: what is evaluated is added to it.
        clock: tells when to stop.
    """

    def __init__(self, problem: Problem, archive: Archive, clock: Clock) -> None:
        self.problem, self._archive, self._clock = problem, archive, clock
        self._changes: dict[bytes, Changes] = {}
        self._postponed: dict[int, Genes] = {}
        self._ended: set[int] = set()

    def improve(self, numbers: Sequence[int]) -> list[int]:
        """Improve networks, each until none of the changes that are expected to gain the most does.

        All are improved in step, so that what they ask for is evaluated together. Where two come to one network, one
        goes on.

        Args:
            numbers: of the networks in the archive.

        Returns:
            numbers of what they ended with, each once, ascending.
        """
        climbers, ends = set(numbers), set[int]()
        for _ in range(STEPS):
            ends |= climbers & self._ended
            climbers -= self._ended
            if not climbers or self._clock.due():
                break
            starts = sorted(climbers)
            reached = self._step(starts)
            self._ended.update(
                start
                for start, end in zip(starts, reached, strict=True)
                if start == end and start not in self._postponed
            )
            climbers = set(reached)
        return sorted(ends | climbers)

    def _changes_of(self, row: Genes) -> Changes:
        """The changes of a network, which those of the same depths share."""
        space = self.problem.space
        key = (row[1 : 1 + len(space.slots)] > 0).tobytes()
        if key not in self._changes:
            self._changes[key] = Changes.of(space, row, self.problem.allowed_resolutions)
        return self._changes[key]

    def _step(self, climbers: Sequence[int]) -> list[int]:
        """Numbers of the best networks next to some: their own numbers where nothing helps."""
        archive = self._archive
        fresh = [number for number in climbers if number not in self._postponed]
        promising = dict(zip(fresh, self._promising(fresh), strict=True))
        batches = []
        for number in climbers:
            genes = promising[number] if number in promising else self._postponed.pop(number)
            size = EARLY if number in promising else len(genes)
            batches.append(genes[:size])
            if len(genes) > size:
                self._postponed[number] = genes[size:]
        evaluated = archive.add(np.concatenate(batches))
        ends = np.cumsum([len(genes) for genes in batches])
        best = []
        for climber, neighbours in zip(climbers, np.split(evaluated, ends[:-1]), strict=True):
            numbers = np.append(climber, neighbours)
            best.append(int(numbers[np.lexsort((-archive.scores[numbers], self._excess(numbers)))[0]]))
            if best[-1] != climber:
                self._postponed.pop(climber, None)
        return best

    def _promising(self, climbers: Sequence[int]) -> list[Genes]:
        """For each of some networks, those next to it that are expected to be the best, a few of both kinds first."""
        if not climbers:
            return []
        rows = self._archive.genes[climbers]
        changes = [self._changes_of(row) for row in rows]
        gains = self._expected(climbers, rows, changes)
        costs = [
            (limit, limit.cost.changed(rows, *self.problem.space.changes), limit.cost(rows))
            for limit in self.problem.limits
        ]
        excess = self._excess(np.array(climbers))
        promising = []
        for i, (row, possible, gain) in enumerate(zip(rows, changes, gains, strict=True)):
            gain[possible.values == row[possible.columns]] = -np.inf
            bounds = [(limit, changed[i, possible.numbers], present[i]) for limit, changed, present in costs]
            least = -np.inf if excess[i] else 0.0
            alone = possible.applied(row, _best_alone(gain, least, bounds))
            pairs = possible.applied(row, *_best_pairs(gain, least, possible.apart, bounds))
            third = EARLY // 3
            promising.append(
                np.concatenate([alone[:third], pairs[: EARLY - third], alone[third:], pairs[EARLY - third :]])
            )
        return promising

    def _expected(self, climbers: Sequence[int], rows: Genes, changes: Sequence[Changes]) -> list[Floats]:
        """What each change of each network is expected to gain, shape (k,); without gains, what it does gain."""
        if self.problem.gains is not None:
            gains = self.problem.gains(rows)
            return [gain[possible.numbers] for gain, possible in zip(gains, changes, strict=True)]
        neighbours = [
            possible.applied(row, np.arange(len(possible.values))) for row, possible in zip(rows, changes, strict=True)
        ]
        numbers = self._archive.add(np.concatenate(neighbours))
        scores = np.split(self._archive.scores[numbers], np.cumsum([len(genes) for genes in neighbours])[:-1])
        return [ahead - score for ahead, score in zip(scores, self._archive.scores[list(climbers)], strict=True)]

    def _excess(self, numbers: Ints) -> Floats:
        """By what share of the limits networks are outside of them, shape (n,)."""
        if self.problem is self._archive.problem:
            return self._archive.excess[numbers]
        return excess_of(self.problem.limits, self._archive.costs[numbers])


_Bounds = Sequence[tuple[Limit, Floats, float]]
"""Limits, with what a network costs by each after each of its k changes, shape (k,), and what it costs now."""


def _within(limit: Limit, costs: Floats) -> npt.NDArray[np.bool_]:
    """Whether costs, of any shape, are within a limit."""
    return np.asarray((costs <= limit.allowed * (1 + SLACK)) & (costs >= limit.required * (1 - SLACK)))


def _best_alone(gain: Floats, least: float, bounds: _Bounds) -> Ints:
    """Numbers of the single changes of the highest gain within the bounds.

    Args:
        gain: of each of k changes, shape (k,).
        least: gains must be above it. Where it is negative and no change leads into the bounds, those that come closest
            are given.
        bounds: of the network.
    """
    kept = gain > least
    for limit, costs, _ in bounds:
        kept &= _within(limit, costs)
    numbers = np.flatnonzero(kept)
    if not len(numbers) and least < 0:
        excess = np.asarray(sum(limit.excess_of(costs) for limit, costs, _ in bounds))
        return np.lexsort((-gain, excess))[:SINGLES]
    return numbers[_highest(gain[numbers], SINGLES)]


def _best_pairs(gain: Floats, least: float, apart: npt.NDArray[np.bool_], bounds: _Bounds) -> tuple[Ints, Ints]:
    """Numbers of the pairs of changes of the highest gain within the bounds, if gains and costs add up.

    Args:
        gain: of each of k changes, shape (k,).
        least: gains of pairs must be above it.
        apart: which changes can be made together, shape (k, k).
        bounds: of the network.

    Returns:
        the first change of each pair, and the second.
    """
    above = gain > least / 2  # as one of the two is where both together are above `least`
    firsts = np.flatnonzero(above)
    sums = gain[firsts][:, None] + gain
    kept = (sums > least) & apart[firsts]
    kept &= ~above | (np.arange(len(gain)) > firsts[:, None])  # each pair once
    for limit, costs, present in bounds:
        kept &= _within(limit, (costs[firsts] - present)[:, None] + costs)
    row, second = np.nonzero(kept)
    first, sums = firsts[row], sums[row, second]
    best = _highest(sums, PAIRS)
    return first[best], second[best]


def _highest(values: Floats, number: int) -> Ints:
    """Where the highest values are, so many at most, the highest first."""
    if len(values) > number:
        places = np.flatnonzero(values >= np.partition(values, -number)[-number])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")[:number]]
