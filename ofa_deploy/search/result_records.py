"""What a search result is made of: limits with what they cost, points of a front, what was proved and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ofa_deploy.files import records
from ofa_deploy.files.records import stored
from ofa_deploy.spaces.arch import Arch


@dataclass(frozen=True, kw_only=True)
class LimitOutcome:
    """A limit of a search, and what one network is predicted to cost by it.

    Attributes:
        name: of the limit, one of `budget.UNITS`.
        unit: of the predicted cost and of both bounds.
        predicted: cost of the network.
        lower: the least that was allowed; None where that is open.
        upper: the most that was allowed; None where that is open.
        margin_percent: by this, predictions were raised before they were compared with the bounds.
        source: what predicts the cost, in words.
        sha256: checksum of the latency table with its calibration; empty for other costs.
    """

    name: str
    unit: str
    predicted: float
    lower: float | None
    upper: float | None
    margin_percent: float
    source: str = stored(key="of")
    sha256: str

    @property
    def in_words(self) -> str:
        """What the network is predicted to cost, and what is allowed."""
        low = "" if self.lower is None else f"at least {self.lower:.4g} {self.unit}"
        high = "" if self.upper is None else f"at most {self.upper:.4g} {self.unit}"
        allowed = " and ".join(end for end in (low, high) if end) or "any"
        margin = f" (+{self.margin_percent:.2g} % margin)" if self.margin_percent else ""
        return f"{self.predicted:.4g} {self.unit}{margin}, allowed {allowed}"


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A network for which no other is better in score and first cost.

    Attributes:
        arch: the network.
        score: what was maximised: predicted top-1 in percent, or millions of multiply-accumulates.
        costs: predicted, by limit, with the unit in the name: `latency_ms`, `macs_millions`, `params_millions`,
            `size_mb`; the second of a name is `latency_ms_2`. The front is against the first.
        macs: multiply-accumulates.
        params: learned numbers.
    """

    arch: Arch
    score: float
    costs: Mapping[str, float]
    macs: int
    params: int

    @property
    def cost(self) -> float:
        """The cost that the front is against."""
        return next(iter(self.costs.values()))

    def to_json(self) -> dict[str, Any]:
        """The point as JSON values, its costs between score and multiply-accumulates."""
        plain = {"arch": str(self.arch), "score": self.score}
        return plain | dict(self.costs) | {"macs": self.macs, "params": self.params}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FrontPoint:
        """The point that `to_json` wrote: what it does not name otherwise is a cost.

        Raises:
            ValueError, OverflowError, OfaDeployError: a figure is missing or malformed, or there is no cost.
        """
        costs = {key: value for key, value in values.items() if key not in ("arch", "score", "macs", "params")}
        if not costs:
            raise ValueError("a point of the front has no cost")
        return records.from_json(cls, {**values, "costs": costs})


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is proved about the best prediction in a space; not about true accuracy.

    Attributes:
        bound_percent: no network of the space within the limits is predicted better.
        found_percent: predicted accuracy of the best network that the search or the proof came across.
        gap_points: between the two, at least 0.
        proven: whether the gap is at most `certificates.TOLERANCE`.
        seconds: CPU time of this process that it took.
        relaxation_percent: the bound of the linear relaxations alone.
        arch: the network of `found_percent`.
    """

    bound_percent: float
    found_percent: float
    gap_points: float
    proven: bool
    seconds: float
    relaxation_percent: float
    arch: Arch

    def rounded(self) -> Certificate:
        """The certificate as a result has it: five decimal places."""
        names = ("bound_percent", "found_percent", "gap_points", "seconds", "relaxation_percent")
        return replace(self, **{name: round(getattr(self, name), 5) for name in names})


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network that was measured on this machine because a search believed in it.

    Attributes:
        arch: the network.
        predicted_ms: latency by the table, as it was corrected when the network was chosen.
        spread_percent: of repeated measurements of its latency.
        predicted_top1_percent: None without a predictor.
        measured_top1_percent: on held-out images; None where it was not measured.
        interval95_points: half the length of that accuracy's 95 % interval; None where it was not measured.
        measured_ms: latency; the largest of those measured.
        times_measured: how often its latency was measured; None where a delivered file was measured instead.
    """

    arch: Arch
    predicted_ms: float
    spread_percent: float
    predicted_top1_percent: float | None
    measured_top1_percent: float | None
    interval95_points: float | None
    measured_ms: float
    times_measured: int | None = stored(optional=True)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was measured of candidates until the budget was kept.

    Attributes:
        budget_ms: the largest latency that was allowed.
        within_budget: whether the chosen network's measured latency is allowed.
        measured_ms: latency of the chosen network.
        rounds: searches for this budget.
        table_correction_percent: by this, the table's latencies were raised in the end; None where a margin was kept
            instead.
        machine_slower_percent: how much slower the machine was than when its table was measured.
        conditions: of measuring, those of the table.
        candidates: that were measured.
    """

    budget_ms: float
    within_budget: bool
    measured_ms: float
    rounds: int
    table_correction_percent: float | None = stored(optional=True)
    machine_slower_percent: float
    conditions: Mapping[str, Any]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, kw_only=True)
class MeasuredAccuracy:
    """Accuracy of a network, predicted and measured on held-out images.

    Attributes:
        arch: the network.
        predicted_top1_percent: by the predictor of that time.
        measured_top1_percent: on held-out images.
        interval95_points: half the length of the measured accuracy's 95 % interval.
    """

    arch: Arch
    predicted_top1_percent: float
    measured_top1_percent: float
    interval95_points: float


@dataclass(frozen=True, kw_only=True)
class RefinedRound:
    """How far a predictor was off on the networks that a search believed in.

    Attributes:
        number: of the round, from 1; None of the network that was chosen in the end.
        bias_points: mean of predicted minus measured accuracy.
        bias_interval95_points: half the length of that mean's 95 % interval; None of a single network.
        networks: that were measured.
    """

    number: int | None = stored(key="round", optional=True)
    bias_points: float
    bias_interval95_points: float | None
    networks: tuple[MeasuredAccuracy, ...]


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What was predicted and measured of fronts while the predictor was fitted anew.

    Attributes:
        rounds: of measuring and fitting.
        final: what was measured of the network that the search gives in the end.
    """

    rounds: tuple[RefinedRound, ...]
    final: RefinedRound = stored(key="chosen")
