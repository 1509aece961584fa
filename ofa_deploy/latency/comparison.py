"""Latency of whole models, measured side by side and beside networks of a table that tell the machine's state."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ofa_deploy.device.devices import get_device
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.device.timing import Array, Session
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.arch import Arch

logger = logging.getLogger(__name__)

YARDSTICKS = 4
"""Networks of the table that are timed with the models, to tell the state of the machine."""
ROUNDS = 16
"""Visits to each model."""
PAUSE = 0.5
"""Seconds between rounds, so that a short disturbance does not meet them all."""
SLOWER_PERCENT = 5.0
PASSES = 4
"""See `beside_table`."""


def side_by_side(
    sessions: Mapping[str, tuple[Session, Array]], threads: int, rounds: int | None = None, pause: float | None = None
) -> dict[str, Any]:
    """Latency of sessions, in rounds interleaved over all of them, run back to back as an application would.

    Args:
        sessions: by name: a session, and its input.
        threads: that the sessions use.
        rounds: visits to each; None takes `ROUNDS`.
        pause: seconds between rounds; None takes `PAUSE`.

    Returns:
        by name: latency_ms (the smallest of the rounds' medians: that of the machine's fast state), typical_ms (the
        median of the rounds' medians), spread_percent over the rounds, runs.
    """
    rng = np.random.default_rng(0)
    visits = {name: [] for name in sessions}  # type: dict[str, list[Any]]
    for _ in range(ROUNDS if rounds is None else rounds):
        time.sleep(PAUSE if pause is None else pause)
        for name in rng.permutation(list(sessions)).tolist():
            session, x = sessions[name]
            visits[name].append(session.time(x, runs=50, seconds=0.1, threads=threads))
    found = {}
    for name, several in visits.items():
        medians = np.array([v.median_ms for v in several])
        found[name] = {
            "latency_ms": round(float(medians.min()), 5),
            "typical_ms": round(float(np.median(medians)), 5),
            "spread_percent": round(float(100 * (medians.max() / medians.min() - 1)), 2),
            "runs": sum(v.runs for v in several),
        }
    return found


def beside_table(
    sessions: Mapping[str, tuple[Session, Array]], table: LatencyTable, threads: int
) -> tuple[dict[str, Any], float]:
    """Latencies of models, and how much slower the machine was than when its table was measured, in percent.

    Some of the table's own networks are timed in the same rounds. Where they take `SLOWER_PERCENT` longer than then,
    everything is measured again, up to `PASSES` times; the pass in which the machine was fastest counts.

    Args:
        sessions: see `side_by_side`.
        table: of this machine.
        threads: that the sessions use.
    """
    known = sorted(table.networks, key=lambda network: float(network["measured_ms"]))
    yardsticks = {n["arch"]: float(n["measured_ms"]) for n in known[:: max(1, len(known) // YARDSTICKS)][:YARDSTICKS]}
    job = TableJob(table.space, table.resolutions, MeasurePlan(threads=threads), batch=table.conditions["batch"])
    timed = dict(sessions)
    for arch in yardsticks:
        timed[arch] = job.started(table.space.walk(Arch.parse(arch)), get_device(table.conditions["device"]))
    passes: list[tuple[float, dict[str, Any]]] = []
    for number in range(PASSES):
        found = side_by_side(timed, threads)
        ratios = [found[arch]["latency_ms"] / then for arch, then in yardsticks.items()]
        slower = round(100 * (float(np.median(ratios)) - 1), 1) if ratios else 0.0
        passes.append((slower, found))
        if slower < SLOWER_PERCENT:
            break
        logger.info(
            f"the machine runs {slower:.0f} % slower than when its table was measured"
            + ("; measuring again" if number + 1 < PASSES else "")
        )
    slower, found = min(passes, key=lambda one: one[0])
    return found, slower
