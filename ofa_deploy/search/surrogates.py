"""Where a search begins: networks that were the best if accuracy were a sum over blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from ofa_deploy.search.knapsack import best_within
from ofa_deploy.search.problem import Problem
from ofa_deploy.spaces.costs import AdditiveCost, Floats, Genes
from ofa_deploy.spaces.space import SearchSpace

SHARES = (1.0, 0.97, 0.9)
"""Of a limit, within each of which the best networks are looked for: the surrogate errs differently close to it."""
RIDGE = 1e-3
"""Penalty of the squared effects, relative to the number of networks."""


def seeds(problem: Problem, sample: Genes, shares: Sequence[float] = SHARES) -> Genes:
    """The best networks of each resolution under each upper limit and under all together, by a linear surrogate.

    Args:
        problem: of the search.
        sample: genes that the surrogate is fitted to, shape (n, columns).
        shares: of the limits, for each of which there is a best network.

    Returns:
        genes, shape (m, columns); none where no limit has an upper end.
    """
    upper = [limit for limit in problem.limits if np.isfinite(limit.upper)]
    if not upper:
        return sample[:0]
    costs = [cost.scaled(1 / limit.allowed) for limit in upper for cost in limit.cost.sums]
    if len(costs) > 1:
        costs.append(reduce(add, costs).scaled(1 / len(costs)))
    value = surrogate(problem.space, sample, problem.score(sample), costs[0])
    return np.concatenate([best_within(problem.space, value, cost, shares) for cost in costs])


def surrogate(space: SearchSpace, genes: Genes, scores: Floats, form: AdditiveCost) -> AdditiveCost:
    """A sum over blocks, fitted to scores by ridge regression.

    Args:
        space: of the networks.
        genes: of some networks, shape (n, columns).
        scores: of these networks, shape (n,).
        form: a cost of the space, whose shape the sum has.

    Returns:
        the sum in the form of a cost; choices that none of the networks has are worth nothing.
    """
    effects = _effects(space, genes, scores)
    most = effects.shape[1]
    fixed, blocks = np.zeros_like(form.fixed), np.zeros_like(form.blocks)
    fixed[: min(most, len(fixed))] = effects[0, : len(fixed)]
    widths_done: set[int] = set()
    for i, (column, _, width_out, widths) in enumerate(form.places):
        if column >= 0:
            choices = min(most, blocks.shape[3])
            blocks[:, i, :, 1:choices] += effects[column, 1:choices] - effects[column, 0]
        if width_out >= 0 and width_out not in widths_done:  # the effect of a width counts once, where it begins
            widths_done.add(width_out)
            for context in range(blocks.shape[2]):
                blocks[:, i, context, 1:] += effects[width_out, context % widths]
    return AdditiveCost(fixed, blocks, form.places)


def _effects(space: SearchSpace, genes: Genes, scores: Floats) -> Floats:
    """What each value of each gene adds to the scores, shape (columns, values); 0 for values that no network has."""
    values = genes.max(axis=0).astype(np.intp) + 1  # of each gene
    starts = np.cumsum(values) - values
    one_hot = np.zeros((len(genes), int(values.sum())))
    one_hot[np.arange(len(genes))[:, None], starts + genes] = 1
    normal = one_hot.T @ one_hot
    normal[np.diag_indices(len(normal))] += RIDGE * len(genes)
    most = int(values.max())
    effects = np.zeros((space.columns, most))
    effects[np.arange(most) < values[:, None]] = np.linalg.solve(normal, one_hot.T @ (scores - scores.mean()))
    return effects
