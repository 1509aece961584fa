"""The record of a loop that keeps a latency budget: every network that was measured, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ofa_deploy.search.limits import Limit
from ofa_deploy.search.result_records import Candidate
from ofa_deploy.spaces.arch import Arch

SAFE_PERCENT = 1.0
"""Networks measured as far below the budget come first: measured again, the same network differs by as much."""
USED_PERCENT = 97.0
"""Of the budget; a network that uses as much ends the loop."""
STEP_PERCENT = 1.0
"""By at least as much the table is corrected while no network is on the right side of the budget: by less, the same
networks would be found again."""


@dataclass(frozen=True)
class Measured:
    """A network, what was predicted of it, and what was measured.

    Attributes:
        arch: the network.
        table_ms: its latency by the table, uncorrected.
        predicted_ms: its latency by the table, as it was corrected when the network was found.
        predicted_score: what was maximised, less the risk; networks without a measured accuracy are compared by it.
        predicted_top1_percent: None without a predictor.
        accuracy: measured top-1 in percent, and half the length of its 95 % interval; None twice where not measured.
        latencies_ms: measured, each time.
        spread_percent: of the repeated measurements of one time, the largest of all times.
    """

    arch: Arch
    table_ms: float
    predicted_ms: float
    predicted_score: float
    predicted_top1_percent: float | None
    accuracy: tuple[float | None, float | None] = (None, None)
    latencies_ms: tuple[float, ...] = ()
    spread_percent: float = 0.0

    @property
    def latency_ms(self) -> float:
        """The largest latency that was measured."""
        return max(self.latencies_ms)

    @property
    def score(self) -> float:
        """What networks are compared by: the measured accuracy, where there is one."""
        top1_percent, _ = self.accuracy
        return self.predicted_score if top1_percent is None else top1_percent

    def timed(self, timing: Mapping[str, Any]) -> Measured:
        """The network after another measurement of its latency."""
        latencies = (*self.latencies_ms, float(timing["latency_ms"]))
        spread_percent = max(self.spread_percent, timing["spread_percent"])
        return replace(self, latencies_ms=latencies, spread_percent=spread_percent)

    def candidate(self) -> Candidate:
        """The network as a search result lists it."""
        top1_percent, half = self.accuracy
        return Candidate(
            arch=self.arch,
            predicted_ms=self.predicted_ms,
            spread_percent=self.spread_percent,
            predicted_top1_percent=self.predicted_top1_percent,
            measured_top1_percent=top1_percent,
            interval95_points=half,
            measured_ms=self.latency_ms,
            times_measured=len(self.latencies_ms),
        )


class Measurements:
    """Every network that was measured for a budget.

    Args:
        limit: the budget: a latency in ms, with an upper end.
    """

    def __init__(self, limit: Limit) -> None:
        self.least_ms, self.budget_ms = limit.lower, limit.upper
        self._networks: dict[Arch, Measured] = {}

    def __contains__(self, arch: Arch) -> bool:
        return arch in self._networks

    def __getitem__(self, arch: Arch) -> Measured:
        return self._networks[arch]

    def add(self, networks: Sequence[Measured]) -> None:
        """Record networks; those that were there before are replaced."""
        self._networks |= {network.arch: network for network in networks}

    @property
    def within(self) -> list[Measured]:
        """Those measured within the budget, best first; those that use all of it only where there are no others."""
        networks = [n for n in self._networks.values() if self.least_ms <= n.latency_ms <= self.budget_ms]
        safe = [network for network in networks if network.latency_ms <= self.budget_ms * (1 - SAFE_PERCENT / 100)]
        return sorted(safe or networks, key=lambda network: network.score, reverse=True)

    @property
    def used(self) -> bool:
        """Whether the best network uses enough of the budget."""
        best = self.within[:1]
        return bool(best) and best[0].latency_ms >= USED_PERCENT / 100 * self.budget_ms

    @property
    def best(self) -> Measured:
        """The best network within the budget; where there is none, the one that is closest to it."""
        return (self.within or sorted(self._networks.values(), key=self._outside_ms))[0]

    @property
    def in_words(self) -> str:
        """What was reached."""
        best = self.within[:1]
        if not best:
            return f"none of {len(self._networks)} measured networks is within {self.budget_ms:.4g} ms"
        return f"the best within {self.budget_ms:.4g} ms takes {best[0].latency_ms:.4g} ms"

    def factor(self, archs: Sequence[Arch], before: float) -> float:
        """What the table's latencies are to be multiplied by: the median of what was measured, by what it says.

        Args:
            archs: the networks of the last search.
            before: the factor of that search.
        """
        factor = float(np.median([self[arch].latency_ms / self[arch].table_ms for arch in archs]))
        latencies = [network.latency_ms for network in self._networks.values()]
        if min(latencies) > self.budget_ms:
            return max(factor, before * (1 + STEP_PERCENT / 100))
        if max(latencies) < self.least_ms:
            return min(factor, before * (1 - STEP_PERCENT / 100))
        return factor

    def candidates(self) -> tuple[Candidate, ...]:
        """All networks as a search result lists them, the fastest by the table first."""
        networks = sorted(self._networks.values(), key=lambda network: network.table_ms)
        return tuple(network.candidate() for network in networks)

    def _outside_ms(self, network: Measured) -> float:
        return max(network.latency_ms - self.budget_ms, self.least_ms - network.latency_ms)
