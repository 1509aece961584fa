"""Latency of whole models, measured side by side and beside networks of a table that tell the machine's state."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_deploy.device.devices import get_device
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.device.timing import Array, Session, Visit
from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.arch import Arch

logger = logging.getLogger(__name__)

YARDSTICKS = 4
"""Networks of the table that are timed with the models, to tell the state of the machine."""
RUNS, SECONDS = 50, 0.1
"""Samples of a visit, and what it takes at most."""


@dataclass(frozen=True)
class ComparisonPlan:
    """How models are measured side by side.

    Attributes:
        rounds: visits to each model.
        pause_seconds: between rounds, so that a short disturbance does not meet them all.
        slower_percent: how much slower than the table says its networks may run; beyond, all is measured again.
        passes: how often all is measured at most.

    Raises:
        MeasureError: there would be no round or no pass.
    """

    rounds: int = 16
    pause_seconds: float = 0.5
    slower_percent: float = 5.0
    passes: int = 4

    def __post_init__(self) -> None:
        if min(self.rounds, self.passes) < 1:
            raise MeasureError(f"a comparison has at least 1 round and 1 pass, not {self.rounds} and {self.passes}")


DEFAULT_PLAN = ComparisonPlan()
"""Of whoever names no other."""


def side_by_side(
    sessions: Mapping[str, tuple[Session, Array]], threads: int, *, plan: ComparisonPlan | None = None
) -> dict[str, Any]:
    """Latency of sessions, in rounds interleaved over all of them, run back to back as an application would.

    Args:
        sessions: by name: a session, and its input.
        threads: that the sessions use.
        plan: rounds and pauses; None takes `DEFAULT_PLAN`.

    Returns:
        by name: latency_ms (the smallest of the rounds' medians: that of the machine's fast state), typical_ms (the
        median of the rounds' medians), spread_percent over the rounds, runs.
    """
    plan = plan or DEFAULT_PLAN
    rng = np.random.default_rng(0)
    visits: dict[str, list[Visit]] = {name: [] for name in sessions}
    for _ in range(plan.rounds):
        time.sleep(plan.pause_seconds)
        for name in rng.permutation(list(sessions)).tolist():
            session, x = sessions[name]
            visits[name].append(session.time(x, runs=RUNS, seconds=SECONDS, threads=threads))
    return {name: _latency(visits_of_name) for name, visits_of_name in visits.items()}


def _latency(visits: Sequence[Visit]) -> dict[str, Any]:
    """The figures of one session from its visits."""
    medians = np.array([visit.median_ms for visit in visits])
    return {
        "latency_ms": round(float(medians.min()), 5),
        "typical_ms": round(float(np.median(medians)), 5),
        "spread_percent": round(float(100 * (medians.max() / medians.min() - 1)), 2),
        "runs": sum(visit.runs for visit in visits),
    }


def beside_table(
    sessions: Mapping[str, tuple[Session, Array]],
    table: LatencyTable,
    *,
    threads: int,
    plan: ComparisonPlan | None = None,
) -> tuple[dict[str, Any], float]:
    """Latencies of models, and how much slower the machine was than when its table was measured, in percent.

    Some of the table's networks are timed in the same rounds. Where they take `slower_percent` longer than when the
    table was measured, everything is measured again; the pass in which the machine was fastest counts.

    Args:
        sessions: by name: a session, and its input.
        table: of this machine.
        threads: that the sessions use.
        plan: rounds, pauses and passes; None takes `DEFAULT_PLAN`.

    Returns:
        latencies by name, as `side_by_side` gives them, of models and yardsticks, and the percentage.
    """
    plan = plan or DEFAULT_PLAN
    yardsticks = _yardsticks(table)
    job = TableJob(table.space, table.resolutions, plan=MeasurePlan(threads=threads), batch=table.conditions["batch"])
    timed = dict(sessions)
    for arch in yardsticks:
        timed[arch] = job.started(table.space.walk(Arch.parse(arch)), get_device(table.conditions["device"]))
    passes: list[tuple[float, dict[str, Any]]] = []
    for number in range(1, plan.passes + 1):
        latencies = side_by_side(timed, threads, plan=plan)
        ratios = [latencies[arch]["latency_ms"] / table_ms for arch, table_ms in yardsticks.items()]
        slower_percent = round(100 * (float(np.median(ratios)) - 1), 1) if ratios else 0.0
        passes.append((slower_percent, latencies))
        if slower_percent < plan.slower_percent:
            break
        logger.info(
            f"the machine runs {slower_percent:.0f} % slower than when its table was measured"
            + ("; measuring again" if number < plan.passes else "")
        )
    slower_percent, latencies = min(passes, key=lambda measured: measured[0])
    return latencies, slower_percent


def _yardsticks(table: LatencyTable) -> dict[str, float]:
    """Some of a table's networks, from fast to slow, and what they took when it was measured, in ms."""
    networks = sorted(table.networks, key=lambda network: float(network["measured_ms"]))
    spaced = networks[:: max(1, len(networks) // YARDSTICKS)][:YARDSTICKS]
    return {network["arch"]: float(network["measured_ms"]) for network in spaced}
