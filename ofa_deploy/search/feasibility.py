"""Whether any network is within the limits of a search: what can be proved of it, and what a user is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import numpy as np

from ofa_deploy.errors import InfeasibleError
from ofa_deploy.search.limits import SLACK, Limit, excess
from ofa_deploy.spaces.costs import AdditiveCost, Floats, Genes
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace

CUTS = 30
"""Weighted means of limits that are tried at most to prove that nothing is within all of them."""


def check_feasible(space: SearchSpace, limits: Sequence[Limit]) -> None:
    """Refuse limits that no network keeps: one alone, or several together as far as weighted means of them prove it.

    Raises:
        InfeasibleError: naming the network that comes closest, and what to allow; or the costs are known at no common
            resolution.
    """
    _check_resolutions(space, limits)
    for limit in limits:
        _check_upper(space, limit)
        _check_lower(space, limit)
    _check_together(space, limits)


def none_within(space: SearchSpace, limits: Sequence[Limit], closest: Genes, verb: str) -> InfeasibleError:
    """What to say where no network is within all limits.

    Args:
        space: of the networks.
        limits: all of them.
        closest: genes of the network that exceeds them the least, shape (1, columns).
        verb: how sure that is: no network `is`, or `was found`.
    """
    missed = [
        f"{limit.name} {limit.cost(closest)[0]:.4g} {limit.unit}" for limit in limits if limit.excess(closest)[0] > 0
    ]
    return InfeasibleError(
        f"no network of {space.name} {verb} within all limits at once; the closest, {space.archs(closest)[0]}, has "
        f"{' and '.join(missed)}; relax one of the limits"
    )


def _check_resolutions(space: SearchSpace, limits: Sequence[Limit]) -> None:
    """Refuse costs that are known at no common resolution."""
    if limits and not np.all([np.isfinite(limit.cost.fixed) for limit in limits], axis=0).any():
        tables = [np.array(space.resolutions)[np.isfinite(limit.cost.fixed)] for limit in limits if limit.sha256]
        in_words = "; ".join(", ".join(map(str, sizes)) for sizes in tables)
        raise InfeasibleError(
            f"the tables have no resolution in common ({in_words} pixels); build them for the same ones with "
            "ofa-deploy build-lut --resolutions"
        )


def _check_upper(space: SearchSpace, limit: Limit) -> None:
    """Refuse an upper bound that the cheapest network exceeds."""
    genes, least = extreme(space, limit.cost)
    if limit.excess(genes)[0] > 0 and least > limit.required:
        needs = _four_digits(least * (1 + limit.margin_percent / 100), math.ceil)
        margin = f" ({limit.margin_percent:.2g} % above its prediction, see --margin)" if limit.margin_percent else ""
        raise InfeasibleError(
            f"no network of {space.name} fits {limit.upper:.4g} {limit.unit} of {limit.name}: the "
            f"{'fastest' if limit.name == 'latency' else 'smallest'}, {space.archs(genes)[0]}, needs "
            f"{needs:.4g} {limit.unit}; allow at least that{margin}"
        )


def _check_lower(space: SearchSpace, limit: Limit) -> None:
    """Refuse a lower bound that the dearest network does not reach."""
    genes, most = extreme(space, limit.cost, dearest=True)
    if most < limit.required * (1 - SLACK):
        has = _four_digits(most * (1 + limit.margin_percent / 100), math.floor)
        raise InfeasibleError(
            f"no network of {space.name} reaches {limit.lower:.4g} {limit.unit} of {limit.name}: the largest, "
            f"{space.archs(genes)[0]}, has {has:.4g} {limit.unit}; ask for at most that"
        )


def _check_together(space: SearchSpace, limits: Sequence[Limit]) -> None:
    """Refuse limits that no network keeps at once, where that can be proved by a weighted mean of their bounds.

    A network within the limits is within every weighted mean of them. The weights for which the least mean of any
    network (exact, see `extremes.extreme`) is greatest are looked for by cutting planes; where that is above the mean
    of the bounds, there is no network.
    """
    sides = _sides(limits)
    if len(sides) < 2:
        return
    weights = np.full(len(sides), 1 / len(sides))
    cheapest: list[Genes] = []
    excesses: list[list[float]] = []
    for _ in range(CUTS):
        mean = reduce(add, (cost.scaled(weight) for (cost, _), weight in zip(sides, weights, strict=True)))
        if not np.isfinite(mean.fixed).any():
            return
        genes, least = extreme(space, mean)
        cheapest.append(genes)
        if least > weights @ [sign for _, sign in sides] + SLACK:
            closest = min(cheapest, key=lambda row: float(excess(limits, row)[0]))
            raise none_within(space, limits, closest, "is")
        excesses.append([float(cost(genes)[0]) - sign for cost, sign in sides])
        if max(excesses[-1]) <= 0:
            return
        best_weights = _best_weights(np.array(excesses))
        if best_weights is None:
            return
        weights = best_weights


def _sides(limits: Sequence[Limit]) -> list[tuple[AdditiveCost, float]]:
    """Each bound as a sum and a sign, 1 or -1, that the sum is at most for networks within the limits.

    A lower bound on a maximum of sums is left out: no sum says what it asks for.
    """
    return [
        (cost.scaled(sign / bound), sign)
        for limit in limits
        for bound, sign in ((limit.allowed, 1.0), (limit.required, -1.0))
        if math.isfinite(bound) and not (sign < 0 and (bound <= 0 or len(limit.cost.sums) > 1))
        for cost in limit.cost.sums
    ]


def _best_weights(excesses: Floats) -> Floats | None:
    """Weights of bounds, shape (bounds,), for which the least weighted mean of networks' excesses is greatest.

    Args:
        excesses: of some networks by each bound, negative within it, shape (networks, bounds).

    Returns:
        None where that least mean is not above 0: some mixture of these networks is within all bounds.
    """
    from scipy.optimize import linprog

    networks, bounds = excesses.shape
    result = linprog(
        [0.0] * bounds + [-1.0],
        np.column_stack([-excesses, np.ones(networks)]),
        np.zeros(networks),
        np.append(np.ones((1, bounds)), [[0.0]], axis=1),
        [1.0],
        bounds=[(0, 1)] * bounds + [(None, None)],
    )
    if result.x is None or result.x[-1] <= SLACK:
        return None
    return np.asarray(result.x[:-1])


def _four_digits(value: float, towards: Callable[[float], int]) -> float:
    """Rounded to a side, so that a user who types it is within the limit."""
    unit = 10 ** (math.floor(math.log10(value)) - 3)
    return float(towards(value / unit) * unit)
