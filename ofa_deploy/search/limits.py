"""Limits of a search: bounds on costs of architectures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from ofa_deploy.errors import InfeasibleError, MeasureError, OfaDeployError
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.budget import UNITS, parse_range
from ofa_deploy.search.result_parts import LimitOutcome
from ofa_deploy.spaces.costs import AdditiveCost, Cost, Floats, Genes
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace

SLACK = 1e-9
"""Relative; sums of one network's costs in another order differ in their last digits."""
CUTS = 30
"""Weighted means of limits that are tried at most to prove that nothing is within all of them."""
BYTES = 4
"""Of a parameter in a model, which holds it in float32."""


@dataclass(frozen=True)
class Limit:
    """A lower and an upper bound on one cost.

    Attributes:
        name: one of `budget.UNITS`.
        cost: predicted, in the unit of `budget.UNITS`.
        lower: what a network must cost at least; minus infinity where that is open.
        upper: what a network may cost at most; infinity where that is open.
        margin_percent: the cost is raised by this before it is compared with the two.
        source: what predicts the cost, in words.
        sha256: checksum of the latency table with its calibration; empty for other costs.
    """

    name: str
    cost: Cost
    lower: float = -math.inf
    upper: float = math.inf
    margin_percent: float = 0.0
    source: str = "the architecture"
    sha256: str = ""

    @property
    def unit(self) -> str:
        """Unit of cost, lower and upper."""
        return UNITS[self.name].unit

    @property
    def allowed(self) -> float:
        """The largest predicted cost that is within the limit."""
        return self.upper / (1 + self.margin_percent / 100)

    @property
    def required(self) -> float:
        """The smallest predicted cost that is within the limit."""
        return self.lower / (1 + self.margin_percent / 100)

    def excess(self, genes: Genes) -> Floats:
        """By what share of the limit each network is outside, shape (n,); 0 within, infinity where it has no cost."""
        return self.excess_of(self.cost(genes))

    def excess_of(self, costs: Floats) -> Floats:
        """By what share of the limit each cost is outside, of any shape; 0 within, infinity where it is NaN."""
        shares = np.zeros(costs.shape)
        if math.isfinite(self.upper):
            shares += np.maximum(costs / self.allowed - 1 - SLACK, 0)
        if math.isfinite(self.lower):
            shares += np.maximum(1 - SLACK - costs / self.required, 0)
        return np.where(np.isnan(costs), np.inf, shares)

    def outcome(self, genes: Genes) -> LimitOutcome:
        """The limit, and what one network (genes of shape (1, columns)) costs by it."""
        lower, upper = (round(end, 5) if math.isfinite(end) else None for end in (self.lower, self.upper))
        return LimitOutcome(
            name=self.name,
            unit=self.unit,
            predicted=round(float(self.cost(genes)[0]), 5),
            lower=lower,
            upper=upper,
            margin_percent=self.margin_percent,
            source=self.source,
            sha256=self.sha256,
        )


def excess(limits: Sequence[Limit], genes: Genes) -> Floats:
    """By what share of its limits each network is outside of them, added up, shape (n,); 0 within all."""
    return excess_of(limits, np.array([limit.cost(genes) for limit in limits]).reshape(len(limits), len(genes)).T)


def excess_of(limits: Sequence[Limit], costs: Floats) -> Floats:
    """The `excess` of networks, shape (n,), from what each costs by each limit, shape (n, limits)."""
    shares = (limit.excess_of(cost) for limit, cost in zip(limits, costs.T, strict=True))
    return np.asarray(sum(shares, np.zeros(len(costs))))


def latency_limit(table: LatencyTable, text: str, margin_percent: float | None = None) -> Limit:
    """A limit on a device's latency.

    Args:
        table: of the device.
        text: the budget as users type it, see `budget.parse_range`; shares are of predictions raised by the margin.
        margin_percent: by which predictions are raised; None takes the error below which 95 % of the table's test
            networks stay.

    Raises:
        OfaDeployError: the budget is no latency, or the margin no percentage.
        MeasureError: the table is unusable.
    """
    margin = table.error["p95_percent"] if margin_percent is None else margin_percent
    if not 0 <= margin < 100:
        if margin_percent is not None:
            raise OfaDeployError(f"--margin must be between 0 and 100 percent, not {margin}")
        raise OfaDeployError(f"the table's own error is {margin:.3g} %; build it anew, or set a --margin")
    factor = 1 + margin / 100
    (_, fastest_ms), (_, slowest_ms) = extreme(table.space, table.cost), extreme(table.space, table.cost, dearest=True)
    if fastest_ms <= 0:
        raise MeasureError(f"the table predicts {fastest_ms:.4g} ms for the fastest network; build it anew")
    lower, upper = parse_range("latency", text, factor * fastest_ms, factor * slowest_ms)
    return Limit("latency", table.cost, lower, upper, margin, source=table.label, sha256=table.identity)


def cost_limit(space: SearchSpace, name: str, text: str) -> Limit:
    """A limit on multiply-accumulates, parameters, or the size of the weights.

    Args:
        space: of the networks.
        name: `macs`, `params` or `size` (of the weights in float32: a file holds its graph as well).
        text: as users type it, see `budget.parse_range`.

    Raises:
        OfaDeployError: there is no such limit, or the text cannot be understood.
    """
    costs = {"macs": (space.macs, 1e-6), "params": (space.params, 1e-6), "size": (space.params, BYTES * 1e-6)}
    if name not in costs:
        raise OfaDeployError(f"no limit on {name!r}; choose one of {', '.join(costs)}, or see latency_limit")
    cost, factor = costs[name]
    cost = cost.scaled(factor)
    (_, least), (_, most) = extreme(space, cost), extreme(space, cost, dearest=True)
    return Limit(name, cost, *parse_range(name, text, least, most))


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
