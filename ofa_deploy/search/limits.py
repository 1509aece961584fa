"""Limits of a search: bounds on costs of architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_deploy.errors import MeasureError, OfaDeployError
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.budget import UNITS, parse_range
from ofa_deploy.search.result_records import LimitOutcome
from ofa_deploy.spaces.costs import Cost, Floats, Genes
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace

SLACK = 1e-9
"""Relative; sums of one network's costs in another order differ in their last digits."""
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


def latency_limit(table: LatencyTable, budget: str, *, margin_percent: float | None = None) -> Limit:
    """A limit on a device's latency.

    Args:
        table: of the device.
        budget: as users type it, `30ms`, `10ms..30ms` or `25%`; shares are of predictions raised by the
            margin.
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
    lower, upper = parse_range("latency", budget, factor * fastest_ms, factor * slowest_ms)
    return Limit("latency", table.cost, lower, upper, margin, source=table.label, sha256=table.identity)


def cost_limit(space: SearchSpace, name: str, *, budget: str) -> Limit:
    """A limit on multiply-accumulates, parameters, or the size of the weights.

    Args:
        space: of the networks.
        name: `macs`, `params` or `size` (of the weights in float32: a file holds its graph as well).
        budget: as users type it: `300M`, `200M..300M` or `25%`.

    Raises:
        OfaDeployError: there is no such limit, or the budget cannot be understood.
    """
    costs = {"macs": (space.macs, 1e-6), "params": (space.params, 1e-6), "size": (space.params, BYTES * 1e-6)}
    if name not in costs:
        raise OfaDeployError(f"no limit on {name!r}; choose one of {', '.join(costs)}, or see latency_limit")
    cost, factor = costs[name]
    cost = cost.scaled(factor)
    (_, least), (_, most) = extreme(space, cost), extreme(space, cost, dearest=True)
    return Limit(name, cost, *parse_range(name, budget, least, most))
