"""A delivered model: what was predicted of it, and what was measured of its file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_deploy.device.timing import Run
from ofa_deploy.files.json_text import Json
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import Candidate, Verified


@dataclass(frozen=True)
class Deployed:
    """One model that was delivered.

    Attributes:
        budget: as the user typed it.
        file: the model.
        result: of the last search.
        card: of the exported model, with what was measured.
        run: the model, takes (1, channels, resolution, resolution).
        searches: for this budget.
    """

    budget: str
    file: Path
    result: SearchResult
    card: Json
    run: Run
    searches: int

    @property
    def latency_ms(self) -> float:
        """As measured."""
        return float(self.card["measured"]["latency"]["latency_ms"])

    @property
    def budget_ms(self) -> float:
        """The largest latency that is allowed."""
        upper = self.result.limits[0].upper
        assert upper is not None
        return upper

    @property
    def within_budget(self) -> bool:
        """Whether the file kept its budget when it was measured."""
        return self.latency_ms <= self.budget_ms

    def row(self) -> dict[str, Any]:
        """The figures side by side: latencies in ms, accuracies in percent."""
        measured, limit = self.card["measured"], self.result.limits[0]
        heldout, test = measured["heldout"], measured["test"] or {}
        return {
            "budget": self.budget,
            "budget_ms": self.budget_ms,
            "arch": str(self.result.arch),
            "predicted_ms": limit.predicted,
            "measured_ms": self.latency_ms,
            "within_budget": self.within_budget,
            "margin_percent": limit.margin_percent,
            "searches": self.searches,
            "machine_slower_percent": measured["latency"]["machine_slower_percent"],
            "predicted_top1_percent": self.result.score,
            "heldout_top1_percent": heldout["top1_percent"],
            "test_top1_percent": test.get("top1_percent"),
            "heldout_interval95_points": heldout["interval95_points"],
            "test_interval95_points": test.get("interval95_points"),
            "macs": self.result.macs,
            "params": self.result.params,
            "bytes": self.card["bytes"],
            "file": str(self.file),
        }

    def measured(self) -> SearchResult:
        """The result with what was measured of its file in `verified`."""
        latency, heldout = self.card["measured"]["latency"], self.card["measured"]["heldout"]
        candidate = Candidate(
            arch=self.result.arch,
            predicted_ms=self.result.limits[0].predicted,
            measured_ms=self.latency_ms,
            spread_percent=latency["spread_percent"],
            predicted_top1_percent=self.result.score,
            measured_top1_percent=heldout["top1_percent"],
            interval95_points=heldout["interval95_points"],
        )
        verified = Verified(
            budget_ms=self.budget_ms,
            measured_ms=self.latency_ms,
            within_budget=self.within_budget,
            machine_slower_percent=latency["machine_slower_percent"],
            rounds=self.searches,
            conditions=latency["conditions"],
            candidates=(candidate,),
        )
        return replace(self.result, verified=verified)
