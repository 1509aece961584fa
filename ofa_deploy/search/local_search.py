"""Local search: the most promising single changes of a network and pairs of them, until none helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.search.archive import Archive
from ofa_deploy.search.limits import SLACK, Limit, outside
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.stopping import Clock
from ofa_deploy.spaces.costs import Floats, Genes, Ints
from ofa_deploy.spaces.space import SearchSpace

PAIRS = 24
"""Pairs that are evaluated, of those that are best if their gains add up."""
SINGLES = 8
"""Single changes that are evaluated."""
EARLY = 6
"""Of both, that are evaluated first: the others only where none of these helps."""
ROUNDS = 60
"""At most."""


@dataclass(frozen=True)
class Changes:
    """What can be changed of networks of the same depths: one block, a stage's depth by one block, a width, resolution.

    Attributes:
        numbers: of the changes in `SearchSpace.changes`, shape (k,).
        columns: of the gene that changes, shape (k,).
        values: that it can have, shape (k,), its present one among them.
        apart: whether two changes have nothing in common, so that they can be made together, shape (k, k).
    """

    numbers: Ints
    columns: Ints
    values: Ints
    apart: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, space: SearchSpace, row: Genes, allowed: Sequence[int]) -> Changes:
        """Those of a network with genes of shape (columns,) at the resolutions with the indices `allowed`."""
        whole = (0, space.columns)
        found = [
            (whole, 0, r) for r in allowed
        ]  # the first and the last column that it takes for itself; column, value
        for stage, columns in zip(space.stages, space.stage_columns, strict=True):
            last = columns.start + int((row[columns] > 0).sum())
            choices = range(1, len(stage.choices) + 1)
            found += [((c, c), c, g) for c in range(columns.start, last) for g in choices]
            longer = last - columns.start + 1 in stage.depths
            if longer:
                found += [((last, last), last, g) for g in choices]
            if last - columns.start - 1 in stage.depths:
                found.append(((last - 1, last - 1 + longer), last - 1, 0))
        for i, widths in enumerate(space.widths, 1 + len(space.slots)):
            found += [(whole, i, w) for w in range(len(widths))]
        spans, columns_, values = (np.array(part, np.intp) for part in zip(*found, strict=True))
        before = spans[:, 1][:, None] < spans[:, 0]
        starts = np.searchsorted(space.changes[0], columns_)
        return cls(starts + values, columns_, values, before | before.T)

    def applied(self, row: Genes, which: Ints, also: Ints | None = None) -> Genes:
        """The network after some changes, and after each of them and one of `also`, shape (len(which), columns)."""
        out = np.repeat(row[None], len(which), axis=0)
        for chosen in (which, also):
            if chosen is not None:
                out[np.arange(len(out)), self.columns[chosen]] = self.values[chosen]
        return out


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
        self._space, self._limits, self._gains = problem.space, problem.limits, problem.gains
        self._allowed = problem.allowed_resolutions
        self._changes: dict[bytes, Changes] = {}
        self._left: dict[int, Genes] = {}
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
        for _ in range(ROUNDS):
            ends |= climbers & self._ended
            climbers -= self._ended
            if not climbers or self._clock.due():
                break
            before = sorted(climbers)
            after = self._step(before)
            self._ended.update(a for a, b in zip(after, before, strict=True) if a == b and a not in self._left)
            climbers = set(after)
        return sorted(ends | climbers)

    def _changes_of(self, row: Genes) -> Changes:
        key = (row[1 : 1 + len(self._space.slots)] > 0).tobytes()
        if key not in self._changes:
            self._changes[key] = Changes.of(self._space, row, self._allowed)
        return self._changes[key]

    def _step(self, climbers: Sequence[int]) -> list[int]:
        """Numbers of the best networks that are found next to some: their own where nothing helps."""
        archive = self._archive
        fresh = [number for number in climbers if number not in self._left]
        promising = dict(zip(fresh, self._promising(fresh), strict=True))
        tried = []
        for number in climbers:
            genes = promising[number] if number in promising else self._left.pop(number)
            few = EARLY if number in promising else len(genes)
            tried.append(genes[:few])
            if len(genes) > few:
                self._left[number] = genes[few:]
        evaluated = archive.add(np.concatenate(tried))
        ends = np.cumsum([len(genes) for genes in tried])
        best = []
        for own, part in zip(climbers, np.split(evaluated, ends[:-1]), strict=True):
            numbers = np.append(own, part)
            best.append(int(numbers[np.lexsort((-archive.scores[numbers], self._outside(numbers)))[0]]))
            if best[-1] != own:
                self._left.pop(own, None)
        return best

    def _promising(self, climbers: Sequence[int]) -> list[Genes]:
        """Networks next to each of some, those that are expected to be the best: a few of both kinds first."""
        if not climbers:
            return []
        rows = self._archive.genes[climbers]
        about = [self._changes_of(row) for row in rows]
        gains = self._expected(climbers, rows, about)
        costs = [(limit, limit.cost.changed(rows, *self._space.changes), limit.cost(rows)) for limit in self._limits]
        over = self._outside(np.array(climbers))
        out = []
        for i, (row, changes, gain) in enumerate(zip(rows, about, gains, strict=True)):
            gain[changes.values == row[changes.columns]] = -np.inf
            bounds = [(limit, changed[i, changes.numbers], own[i]) for limit, changed, own in costs]
            least = -np.inf if over[i] else 0.0
            alone = changes.applied(row, _best_alone(gain, least, bounds))
            pairs = changes.applied(row, *_best_pairs(gain, least, changes.apart, bounds))
            early = EARLY // 3
            out.append(np.concatenate([alone[:early], pairs[: EARLY - early], alone[early:], pairs[EARLY - early :]]))
        return out

    def _expected(self, climbers: Sequence[int], rows: Genes, about: Sequence[Changes]) -> list[Floats]:
        """What each of their changes is expected to gain; without `gains`, what it does gain."""
        if self._gains is not None:
            return [gain[changes.numbers] for gain, changes in zip(self._gains(rows), about, strict=True)]
        everything = [
            changes.applied(row, np.arange(len(changes.values))) for row, changes in zip(rows, about, strict=True)
        ]
        numbers = self._archive.add(np.concatenate(everything))
        scores = self._archive.scores[numbers]
        parts = np.split(scores, np.cumsum([len(genes) for genes in everything])[:-1])
        return [part - own for part, own in zip(parts, self._archive.scores[list(climbers)], strict=True)]

    def _outside(self, numbers: Ints) -> Floats:
        """How far networks are outside of the limits, shape (n,)."""
        known = self.problem is self._archive.problem
        return self._archive.over[numbers] if known else outside(self._limits, self._archive.costs[numbers])


_Bounds = Sequence[tuple[Limit, Floats, float]]
"""Limits, what a network costs after each change, shape (k,), and before."""


def _inside(limit: Limit, cost: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray((cost <= limit.allowed * (1 + SLACK)) & (cost >= limit.required * (1 - SLACK)))


def _best_alone(gain: Floats, least: float, bounds: _Bounds) -> Ints:
    """Numbers of the best single changes within the bounds, by their gains, which are above `least`.

    Where there is none, those that come closest.
    """
    kept = gain > least
    for limit, costs, _ in bounds:
        kept &= _inside(limit, costs)
    found = np.flatnonzero(kept)
    if not len(found) and least < 0:
        beyond = np.asarray(sum(limit.beyond(costs) for limit, costs, _ in bounds))
        return np.lexsort((-gain, beyond))[:SINGLES]
    return found[_highest(gain[found], SINGLES)]


def _best_pairs(gain: Floats, least: float, apart: npt.NDArray[np.bool_], bounds: _Bounds) -> tuple[Ints, Ints]:
    """The first and the second change of the pairs that are best if their gains add up; see `_best_alone`."""
    above = gain > least / 2  # as one of the two is where both together are above `least`
    firsts = np.flatnonzero(above)
    together = gain[firsts][:, None] + gain
    kept = (together > least) & apart[firsts]
    kept &= ~above | (np.arange(len(gain)) > firsts[:, None])  # each pair once
    for limit, costs, own in bounds:
        kept &= _inside(limit, (costs[firsts] - own)[:, None] + costs)
    row, second = np.nonzero(kept)
    first, together = firsts[row], together[row, second]
    best = _highest(together, PAIRS)
    return first[best], second[best]


def _highest(values: Floats, number: int) -> Ints:
    """Where the highest values are, the highest first."""
    if len(values) > number:
        among = np.flatnonzero(values >= np.partition(values, -number)[-number])
    else:
        among = np.arange(len(values))
    return among[np.argsort(-values[among], kind="stable")[:number]]
