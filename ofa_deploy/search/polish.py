"""Local search: single changes of a network and pairs of them, until none helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.costs import Floats, Genes
from ofa_deploy.search.evolve import Archive, allowed_resolutions
from ofa_deploy.search.limits import SLACK, Limit, over
from ofa_deploy.space import SearchSpace

PAIRS = 24
"""Pairs that are evaluated, of those that are best if their gains add up."""
SINGLES = 8
"""Single changes that are evaluated where their gains are those of a network before."""
ROUNDS = 60
"""At most."""
_Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Changes:
    """What can be changed of networks of the same depths: one block, a stage's depth by one block, a width, resolution.

    Attributes:
        columns: of the gene that changes, shape (n,).
        values: that it can have, shape (n,), its present one among them.
        spans: the first and the last column that each takes for itself, shape (n, 2).
        apart: whether the columns of two changes are apart, so that they can be made together, shape (n, n).
    """

    columns: _Ints
    values: _Ints
    spans: _Ints
    apart: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, space: SearchSpace, row: Genes, allowed: Sequence[int]) -> Changes:
        """Those of a network with genes of shape (columns,) at the resolutions with the indices `allowed`."""
        whole = (0, space.columns)
        found = [(whole, 0, r) for r in allowed]  # columns, column, value
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
        spans, taken, values = (np.array(part, np.intp) for part in zip(*found, strict=True))
        before = spans[:, 1][:, None] < spans[:, 0]
        return cls(taken, values, spans, before | before.T)

    def applied(self, row: Genes) -> Genes:
        """The network after each change, shape (n, columns)."""
        out = np.repeat(row[None], len(self.columns), axis=0)
        out[np.arange(len(out)), self.columns] = self.values
        return out


@dataclass
class _Climber:
    """A network on its way.

    Attributes:
        number: in the archive.
        gains: in score by each value of each gene, shape (columns, values): 0 for its own, NaN where that is not known;
            None where nothing is.
        around: numbers of the networks after each change, where all of them were evaluated; else None, and the gains
            are guessed.
    """

    number: int
    gains: Floats | None = None
    around: _Ints | None = None


class LocalSearch:
    """Improves networks.

    Args:
        space: of the networks.
        archive: what is evaluated is added to it.
        limits: that the networks should keep: those of the archive or others.
    """

    def __init__(self, space: SearchSpace, archive: Archive, limits: Sequence[Limit]) -> None:
        self._space, self._archive, self.limits = space, archive, limits
        self._allowed = allowed_resolutions(space, limits)
        self._changes: dict[bytes, Changes] = {}
        self._ended: dict[int, Floats] = {}  # the gains of networks that nothing improves
        choices = (1 + len(stage.choices) for stage in space.stages)
        self._values = max(len(space.resolutions), *choices, *map(len, space.widths))

    def improve(self, numbers: Sequence[int], parents: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Improve networks, each until no single change and no pair of changes helps.

        All are improved in step, so that what they ask for is evaluated together. What a change gains is taken to be
        what it gained before the last step, or what it gains for the parents, and only those changes are evaluated that
        would be best; where none of them helps, all single changes are. Where two come to one network, one goes on.

        Args:
            numbers: of the networks in the archive.
            parents: for each, two networks that were improved before, which it resembles; may be empty.

        Returns:
            numbers of what they ended with, each once, ascending.
        """
        climbers = [_Climber(number) for number in numbers]
        for climber, pair in zip(climbers, parents, strict=False):
            known = [self._shifted(self._ended[one], climber.number) for one in pair if one in self._ended]
            if known:
                climber.gains = _mean(known)
        ends: set[int] = set()
        for _ in range(ROUNDS):
            apart = {climber.number: climber for climber in reversed(climbers)}
            ends |= apart.keys() & self._ended.keys()
            climbers = [climber for number, climber in apart.items() if number not in ends]
            if not climbers:
                break
            self._step(climbers)
        return sorted(ends | {climber.number for climber in climbers})

    def _shifted(self, gains: Floats, number: int) -> Floats:
        """The gains of one network as those of another."""
        row = self._archive.genes[number]
        return np.asarray(gains - gains[np.arange(len(row)), row][:, None])

    def _changes_of(self, row: Genes) -> Changes:
        key = (row[1 : 1 + len(self._space.slots)] > 0).tobytes()
        if key not in self._changes:
            self._changes[key] = Changes.of(self._space, row, self._allowed)
        return self._changes[key]

    def _step(self, climbers: Sequence[_Climber]) -> None:
        """Move each to the best network that it finds; the gains of those that are at their end are kept."""
        archive = self._archive
        own = np.array([climber.number for climber in climbers])
        rows = archive.genes[own]
        about = [self._changes_of(row) for row in rows]
        around = [changes.applied(row) for changes, row in zip(about, rows, strict=True)]
        self._learn(climbers, rows, about, around)
        ends = np.cumsum([len(genes) for genes in around])
        everything = np.concatenate([*around, rows])
        costs = [np.split(limit.cost(everything), ends) for limit in self.limits]
        inside = self._outside(own) == 0
        tried = []
        for i, (climber, row, changes) in enumerate(zip(climbers, rows, about, strict=True)):
            assert climber.gains is not None
            gain = climber.gains[changes.columns, changes.values]
            gain = np.where((changes.values == row[changes.columns]) | np.isnan(gain), -np.inf, gain)
            least = 0.0 if inside[i] else -np.inf
            bounds = [(limit, cost[i], cost[-1][i]) for limit, cost in zip(self.limits, costs, strict=True)]
            first, second = _promising(gain, least, changes.apart, bounds)
            found = np.where(around[i][first] != row, around[i][first], around[i][second])
            if climber.around is None:
                found = np.concatenate([around[i][_best_alone(gain, least, bounds)], found])
            tried.append(found)
        evaluated = archive.add(np.concatenate(tried))
        parts = np.split(evaluated, np.cumsum([len(genes) for genes in tried])[:-1])
        candidates = [
            np.concatenate([[climber.number], part, () if climber.around is None else climber.around]).astype(np.intp)
            for climber, part in zip(climbers, parts, strict=True)
        ]
        outside = self._outside(np.concatenate(candidates))
        split = np.split(outside, np.cumsum([len(numbers) for numbers in candidates])[:-1])
        for climber, numbers, out in zip(climbers, candidates, split, strict=True):
            self._move(climber, numbers, out)

    def _outside(self, numbers: _Ints) -> Floats:
        """How far networks are outside of the limits, shape (n,)."""
        known = self.limits is self._archive.limits
        return self._archive.over[numbers] if known else over(self.limits, self._archive.genes[numbers])

    def _learn(
        self, climbers: Sequence[_Climber], rows: Genes, about: Sequence[Changes], around: Sequence[Genes]
    ) -> None:
        """Evaluate all changes of those networks of which no gains are known."""
        asking = [i for i, climber in enumerate(climbers) if climber.gains is None]
        if not asking:
            return
        evaluated = self._archive.add(np.concatenate([around[i] for i in asking]))
        parts = np.split(evaluated, np.cumsum([len(around[i]) for i in asking])[:-1])
        for i, numbers in zip(asking, parts, strict=True):
            gains = np.full((self._space.columns, self._values), np.nan)
            gains[np.arange(len(gains)), rows[i]] = 0
            score = self._archive.scores[numbers]
            gains[about[i].columns, about[i].values] = score - self._archive.scores[climbers[i].number]
            climbers[i].gains, climbers[i].around = gains, numbers

    def _move(self, climber: _Climber, numbers: _Ints, outside: Floats) -> None:
        """Let it move to the best of some networks, of which the first is its own."""
        assert climber.gains is not None
        best = int(np.lexsort((-self._archive.scores[numbers], outside))[0])
        if numbers[best] != climber.number:
            climber.number, climber.around = int(numbers[best]), None
            climber.gains = self._shifted(climber.gains, climber.number)
        elif climber.around is not None:
            self._ended[climber.number] = climber.gains
        else:
            climber.gains = None


def _mean(gains: Sequence[Floats]) -> Floats:
    """The mean of several networks' gains, of those that are known."""
    if len(gains) == 1:
        return gains[0]
    a, b = gains
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, (a + b) / 2))


_Bounds = Sequence[tuple[Limit, Floats, float]]
"""Limits, what a network costs after each change, shape (n,), and before."""


def _best_alone(gain: Floats, least: float, bounds: _Bounds) -> _Ints:
    """Numbers of the best single changes within the bounds, by their gains, shape (n,), which are above `least`."""
    kept = gain > least
    for limit, costs, _ in bounds:
        kept &= (costs <= limit.allowed * (1 + SLACK)) & (costs >= limit.required * (1 - SLACK))
    found = np.flatnonzero(kept)
    return found[np.argsort(-gain[found], kind="stable")[:SINGLES]]


def _promising(gain: Floats, least: float, apart: npt.NDArray[np.bool_], bounds: _Bounds) -> tuple[_Ints, _Ints]:
    """The first and the second change of the pairs that are best if their gains add up; see `_best_alone`."""
    above = gain > least / 2  # as one of the two is where both together are above `least`
    firsts = np.flatnonzero(above)
    once = ~above | (np.arange(len(gain)) > firsts[:, None])
    together = gain[firsts][:, None] + gain
    row, second = np.nonzero((together > least) & apart[firsts] & once)
    first, together = firsts[row], together[row, second]
    for limit, costs, own in bounds:
        total = costs[first] + costs[second] - own
        kept = (total <= limit.allowed * (1 + SLACK)) & (total >= limit.required * (1 - SLACK))
        first, second, together = first[kept], second[kept], together[kept]
    best = np.argsort(-together, kind="stable")[:PAIRS]
    return first[best], second[best]
