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
from ofa_deploy.spaces.costs import Cost, Floats, Genes
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace

SLACK = 1e-9
"""Relative; sums of one network's costs in another order differ in their last digits."""
CUTS = 30
"""Weighted means of limits that are tried at most to prove that nothing is within all of them."""
BYTES = 4
"""Of a parameter: models are written in float32."""


@dataclass(frozen=True)
class Limit:
    """A lower and an upper bound on one cost.

    Attributes:
        name: one of `budget.UNITS`.
        cost: predicted, in the unit of `budget.UNITS`.
        lower: what a network must cost at least; minus infinity where that is open.
        upper: and at most.
        margin_percent: the cost is raised by this before it is compared with the two.
        of: what predicts the cost, in words.
        sha256: checksum of the latency table with its calibration; empty for other costs.
    """

    name: str
    cost: Cost
    lower: float = -math.inf
    upper: float = math.inf
    margin_percent: float = 0.0
    of: str = "the architecture"
    sha256: str = ""

    @property
    def unit(self) -> str:
        """Of cost, lower and upper."""
        return UNITS[self.name][0]

    @property
    def allowed(self) -> float:
        """The largest predicted cost that is within the limit."""
        return self.upper / (1 + self.margin_percent / 100)

    @property
    def required(self) -> float:
        """The smallest predicted cost that is within the limit."""
        return self.lower / (1 + self.margin_percent / 100)

    def over(self, genes: Genes) -> Floats:
        """By what share of the limit each network is outside, shape (n,); 0 within, infinity where it has no cost."""
        return self.beyond(self.cost(genes))

    def beyond(self, cost: Floats) -> Floats:
        """By what share of the limit each cost is outside; see `over`."""
        out = np.zeros(cost.shape)
        if math.isfinite(self.upper):
            out += np.maximum(cost / self.allowed - 1 - SLACK, 0)
        if math.isfinite(self.lower):
            out += np.maximum(1 - SLACK - cost / self.required, 0)
        return np.where(np.isnan(cost), np.inf, out)

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
            source=self.of,
            sha256=self.sha256,
        )


def over(limits: Sequence[Limit], genes: Genes) -> Floats:
    """How far each network is outside of all the limits together, shape (n,); 0 within."""
    return outside(limits, np.array([limit.cost(genes) for limit in limits]).reshape(len(limits), len(genes)).T)


def outside(limits: Sequence[Limit], costs: Floats) -> Floats:
    """The same as `over`, from what each network costs by each limit, shape (n, limits)."""
    each = (limit.beyond(cost) for limit, cost in zip(limits, costs.T, strict=True))
    return np.asarray(sum(each, np.zeros(len(costs))))


def latency_limit(table: LatencyTable, text: str, margin_percent: float | None = None) -> Limit:
    """A limit on a device's latency.

    Args:
        table: of the device.
        text: the budget as users type it, see `budget.parse_range`; shares are of predictions raised by the margin.
        margin_percent: see `Limit`; None takes the error that 95 % of the table's test networks stay under.

    Raises:
        OfaDeployError: the budget is no latency, or the margin no percentage.
        MeasureError: the table is unusable.
    """
    margin = table.error["p95_percent"] if margin_percent is None else margin_percent
    if not 0 <= margin < 100:
        if margin_percent is not None:
            raise OfaDeployError(f"--margin must be between 0 and 100 percent, not {margin}")
        raise OfaDeployError(f"the table's own error is {margin:.3g} %; build it anew, or set a --margin")
    raised = 1 + margin / 100
    (_, fastest_ms), (_, slowest_ms) = extreme(table.space, table.cost), extreme(table.space, table.cost, dearest=True)
    if fastest_ms <= 0:
        raise MeasureError(f"the table predicts {fastest_ms:.4g} ms for the fastest network; build it anew")
    lower, upper = parse_range("latency", text, raised * fastest_ms, raised * slowest_ms)
    return Limit("latency", table.cost, lower, upper, margin, table.label, table.identity)


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
    """Refuse limits that no network meets: one of them, or several together as far as `_check_together` can prove it.

    Raises:
        InfeasibleError: naming the network that comes closest, and what to allow; or the costs are known at no common
            resolution.
    """
    if limits and not np.all([np.isfinite(limit.cost.fixed) for limit in limits], axis=0).any():
        covered = [np.array(space.resolutions)[np.isfinite(limit.cost.fixed)] for limit in limits if limit.sha256]
        told = "; ".join(", ".join(map(str, sizes)) for sizes in covered)
        raise InfeasibleError(
            f"the tables have no resolution in common ({told} pixels); build them for the same ones with "
            "ofa-deploy build-lut --resolutions"
        )
    for limit in limits:
        least, most = extreme(space, limit.cost), extreme(space, limit.cost, dearest=True)
        if limit.over(least[0])[0] > 0 and least[1] > limit.required:
            needs = _four_digits(least[1] * (1 + limit.margin_percent / 100), math.ceil)
            margin = f" ({limit.margin_percent:.2g} % above its prediction, see --margin)"
            raise InfeasibleError(
                f"no network of {space.name} fits {limit.upper:.4g} {limit.unit} of {limit.name}: the "
                f"{'fastest' if limit.name == 'latency' else 'smallest'}, {space.archs(least[0])[0]}, needs "
                f"{needs:.4g} {limit.unit}; allow at least that{margin * (limit.margin_percent > 0)}"
            )
        if most[1] < limit.required * (1 - SLACK):
            has = _four_digits(most[1] * (1 + limit.margin_percent / 100), math.floor)
            raise InfeasibleError(
                f"no network of {space.name} reaches {limit.lower:.4g} {limit.unit} of {limit.name}: the largest, "
                f"{space.archs(most[0])[0]}, has {has:.4g} {limit.unit}; ask for at most that"
            )
    _check_together(space, limits)


def none_within(space: SearchSpace, limits: Sequence[Limit], closest: Genes, known: str) -> InfeasibleError:
    """What to say where no network is within all limits.

    Args:
        space: of the networks.
        limits: all of them.
        closest: genes of the network that is the least outside, shape (1, columns).
        known: how sure that is, a verb.
    """
    outside = [limit for limit in limits if limit.over(closest)[0] > 0]
    missed = [f"{limit.name} {limit.cost(closest)[0]:.4g} {limit.unit}" for limit in outside]
    return InfeasibleError(
        f"no network of {space.name} {known} within all limits at once; the closest, {space.archs(closest)[0]}, has "
        f"{' and '.join(missed)}; relax one of the limits"
    )


def _check_together(space: SearchSpace, limits: Sequence[Limit]) -> None:
    """Refuse limits that no network meets at once, where that can be proved by a weighted sum of them.

    A network within the limits is within every weighted mean of them. The weights for which the least mean of any
    network (exact, see `extremes.extreme`) is greatest are looked for by cutting planes; where that is above the mean
    of the bounds, there is no network.
    """
    sides = [
        (cost.scaled(sign / bound), sign)
        for limit in limits
        for bound, sign in ((limit.allowed, 1.0), (limit.required, -1.0))
        if math.isfinite(bound) and not (sign < 0 and (bound <= 0 or len(limit.cost.sums) > 1))
        for cost in limit.cost.sums
    ]
    if len(sides) < 2:
        return
    from scipy.optimize import linprog

    weights = np.full(len(sides), 1 / len(sides))
    seen: list[Genes] = []
    excess: list[list[float]] = []
    for _ in range(CUTS):
        mean = reduce(add, (cost.scaled(weight) for (cost, _), weight in zip(sides, weights, strict=True)))
        if not np.isfinite(mean.fixed).any():
            return
        genes, least = extreme(space, mean)
        if least > weights @ [sign for _, sign in sides] + SLACK:
            closest = min([*seen, genes], key=lambda one: float(over(limits, one)[0]))
            raise none_within(space, limits, closest, "is")
        seen.append(genes)
        excess.append([float(cost(genes)[0]) - sign for cost, sign in sides])
        if max(excess[-1]) <= 0:
            return
        rows = np.column_stack([-np.array(excess), np.ones(len(excess))])
        ones = np.ones((1, len(sides) + 1))
        ones[0, -1] = 0
        found = linprog(
            [0.0] * len(sides) + [-1.0],
            rows,
            np.zeros(len(rows)),
            ones,
            [1.0],
            bounds=[(0, 1)] * len(sides) + [(None, None)],
        )
        if found.x is None or found.x[-1] <= SLACK:
            return
        weights = found.x[:-1]


def _four_digits(value: float, towards: Callable[[float], int]) -> float:
    """Rounded to a side, so that a user who types it is within the limit."""
    unit = 10 ** (math.floor(math.log10(value)) - 3)
    return float(towards(value / unit) * unit)
