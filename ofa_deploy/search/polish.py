"""Local search: single changes of a network and pairs of them, until none helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ofa_deploy.costs import Genes
from ofa_deploy.search.evolve import Archive, allowed_resolutions
from ofa_deploy.search.limits import Limit, over
from ofa_deploy.space import SearchSpace

PAIRS = 64
"""Pairs that are evaluated, of those that are best if their effects add up."""
ROUNDS = 30
"""At most."""


def polish(space: SearchSpace, archive: Archive, limits: Sequence[Limit], number: int) -> int:
    """Improve a network until no single change and no pair of changes helps.

    Args:
        space: of the network.
        archive: what is evaluated is added to it.
        limits: that the network should keep; they may be closer than those of the archive.
        number: of the network in the archive.

    Returns:
        number of what it ended with.
    """
    for _ in range(ROUNDS):
        better = _step(space, archive, limits, number)
        if better == number:
            break
        number = better
    return number


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


def _step(space: SearchSpace, archive: Archive, limits: Sequence[Limit], number: int) -> int:
    """Number of the best neighbour, or of the network itself where none is better."""
    row = archive.genes[number : number + 1].copy()
    singles, spans = neighbours(space, row, allowed_resolutions(space, limits))
    archive.add(singles)
    numbers = archive.numbers(singles)
    gain = archive.scores[numbers] - archive.scores[number]
    a, b = np.triu_indices(len(singles), 1)
    together = (spans[a, 1] < spans[b, 0]) | (spans[b, 1] < spans[a, 0])
    a, b = a[together], b[together]
    promising = gain[a] + gain[b]
    fits = promising > 0
    for limit in limits:
        costs, own = limit.cost(singles), limit.cost(row)[0]
        total = costs[a] + costs[b] - own
        fits &= (total <= limit.allowed * (1 + 1e-9)) & (total >= limit.lower)
    a, b, promising = a[fits], b[fits], promising[fits]
    best = np.argsort(-promising, kind="stable")[:PAIRS]
    pairs = np.where(singles[a[best]] != row, singles[a[best]], singles[b[best]])
    archive.add(pairs)
    candidates = np.array([number, *numbers, *archive.numbers(pairs)])
    outside = over(limits, archive.genes[candidates])
    ranked = np.lexsort((-archive.scores[candidates], outside))
    return int(candidates[ranked[0]])
