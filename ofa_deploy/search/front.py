"""Fronts of score against a cost: which networks are on one, and the area that it dominates."""

from __future__ import annotations

import numpy as np

from ofa_deploy.spaces.costs import Floats, Ints


def front_of(scores: Floats, costs: Floats) -> Ints:
    """Numbers of the networks for which no other has a score as high at a cost as low, cheapest first.

    Args:
        scores: what is maximised, shape (n,).
        costs: what is minimised, shape (n,).
    """
    order = np.lexsort((-scores, costs))
    best = np.maximum.accumulate(scores[order])
    rising = np.concatenate([[True], best[1:] > best[:-1]]) if len(order) else np.zeros(0, bool)
    return np.asarray(order[rising])


def hypervolume(scores: Floats, costs: Floats, worst_score: float, worst_cost: float) -> float:
    """Area between a front and a reference point (doi 10.1109/4235.797969), in units of score times cost.

    Args:
        scores: of the front, shape (n,).
        costs: of the front, shape (n,).
        worst_score: of the reference point; networks below it do not count.
        worst_cost: of the reference point; networks above it do not count.
    """
    kept = (scores > worst_score) & (costs < worst_cost)
    scores, costs = scores[kept], costs[kept]
    front = front_of(scores, costs)
    ends = np.append(costs[front][1:], worst_cost)
    return float(((ends - costs[front]) * (scores[front] - worst_score)).sum())
