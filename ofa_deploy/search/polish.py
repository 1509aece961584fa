"""Local search: single changes of a network and pairs of them, until none helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ofa_deploy.costs import Floats, Genes
from ofa_deploy.search.evolve import Archive, allowed_resolutions
from ofa_deploy.search.limits import Limit, over
from ofa_deploy.space import SearchSpace

PAIRS = 24
"""Pairs that are evaluated, of those that are best if their effects add up."""
ROUNDS = 30
"""At most."""


def polish(space: SearchSpace, archive: Archive, limits: Sequence[Limit], numbers: Sequence[int]) -> list[int]:
    """Improve networks, each until no single change and no pair of changes helps.

    All are improved in step, so that what each asks for is evaluated together.

    Args:
        space: of the networks.
        archive: what is evaluated is added to it.
        limits: that the networks should keep; they may be closer than those of the archive.
        numbers: of the networks in the archive.

    Returns:
        numbers of what they ended with.
    """
    ends = list(numbers)
    moving = list(range(len(ends)))
    for _ in range(ROUNDS):
        if not moving:
            break
        found = dict(zip(moving, _step(space, archive, limits, [ends[i] for i in moving]), strict=True))
        moving = [i for i in moving if found[i] != ends[i]]
        for i in moving:
            ends[i] = found[i]
    return ends


def neighbours(space: SearchSpace, genes: Genes, allowed: Sequence[int]) -> tuple[Genes, npt.NDArray[np.intp]]:
    """Every network that differs in one block, one stage's depth (by one block), one width, or the resolution.

    Args:
        space: of the network.
        genes: shape (1, columns).
        allowed: indices of resolutions.

    Returns:
        genes, shape (n, columns), and the first and the last column that each takes for itself, shape (n, 2): changes
        whose columns are apart can be made together.
    """
    row, whole = genes[0], (0, space.columns)
    found = [(whole, 0, r) for r in allowed if r != row[0]]  # columns, column, value
    for stage, columns in zip(space.stages, space.stage_columns, strict=True):
        depth = int((row[columns] > 0).sum())
        choices = range(1, len(stage.choices) + 1)
        last = columns.start + depth
        found += [((c, c), c, g) for c in range(columns.start, last) for g in choices if g != row[c]]
        longer = depth + 1 in stage.depths
        if longer:
            found += [((last, last), last, g) for g in choices]
        if depth - 1 in stage.depths:
            found.append(((last - 1, last - 1 + longer), last - 1, 0))
    for i, widths in enumerate(space.widths, 1 + len(space.slots)):
        found += [(whole, i, w) for w in range(len(widths)) if w != row[i]]
    out = np.repeat(genes, len(found), axis=0)
    for changed, (_, column, value) in zip(out, found, strict=True):
        changed[column] = value
    return out, np.array([span for span, _, _ in found], np.intp).reshape(-1, 2)


def _step(space: SearchSpace, archive: Archive, limits: Sequence[Limit], numbers: Sequence[int]) -> list[int]:
    """For each network the number of its best neighbour, or its own where none is better."""
    allowed = allowed_resolutions(space, limits)
    rows = archive.genes[list(numbers)]
    around = [neighbours(space, row[None], allowed) for row in rows]
    known = archive.add(np.concatenate([genes for genes, _ in around]))
    ends = np.cumsum([len(genes) for genes, _ in around])[:-1]
    singles = np.split(known, ends)
    costs = [np.split(limit.cost(archive.genes[known]), ends) for limit in limits]
    own = [limit.cost(rows) for limit in limits]
    tried = []
    for i, (genes, spans) in enumerate(around):
        gain = archive.scores[singles[i]] - archive.scores[numbers[i]]
        bounds = [(limit, cost[i], base[i]) for limit, cost, base in zip(limits, costs, own, strict=True)]
        a, b = _promising(gain, spans, bounds)
        tried.append(np.where(genes[a] != rows[i], genes[a], genes[b]))
    pairs = np.split(archive.add(np.concatenate(tried)), np.cumsum([len(genes) for genes in tried])[:-1])
    out = []
    for number, first, second in zip(numbers, singles, pairs, strict=True):
        candidates = np.array([number, *first, *second])
        outside = over(limits, archive.genes[candidates])
        out.append(int(candidates[np.lexsort((-archive.scores[candidates], outside))[0]]))
    return out


def _promising(
    gain: Floats, spans: npt.NDArray[np.intp], bounds: Sequence[tuple[Limit, Floats, float]]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pairs of changes that are best if their effects add up: the first and the second of each.

    Args:
        gain: in score of each change, shape (n,).
        spans: see `neighbours`.
        bounds: limits, what the network costs after each change, shape (n,), and before.
    """
    a, b = np.triu_indices(len(gain), 1)
    fits = ((spans[a, 1] < spans[b, 0]) | (spans[b, 1] < spans[a, 0])) & (gain[a] + gain[b] > 0)
    a, b = a[fits], b[fits]
    fits = np.ones(len(a), bool)
    for limit, costs, own in bounds:
        total = costs[a] + costs[b] - own
        fits &= (total <= limit.allowed * (1 + 1e-9)) & (total >= limit.lower)
    a, b = a[fits], b[fits]
    best = np.argsort(-(gain[a] + gain[b]), kind="stable")[:PAIRS]
    return a[best], b[best]
