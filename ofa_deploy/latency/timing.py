"""The measuring protocol: cold weights, warm input, samples that were preempted thrown away.

Inside a network the weights of a block are not in the nearest caches, since the other blocks ran in between; so a
buffer is read between runs, which pushes them out, while the input, just computed by the block before, is touched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.runtimes import Session

FLUSH_BYTES = 16 * 2**20
PREEMPTED_SHARE, PREEMPTED_MS = 0.02, 0.002


@dataclass(frozen=True)
class Visit:
    """Times of one visit to one graph.

    Attributes:
        median_ms: median of the samples kept.
        minimum_ms: their minimum.
        runs: how many were kept.
        dropped: how many were thrown away as preempted.
    """

    median_ms: float
    minimum_ms: float
    runs: int
    dropped: int


class Flusher:
    """Reads a buffer larger than the near caches, a word a cache line."""

    def __init__(self, size: int = FLUSH_BYTES) -> None:
        self._lines = np.ones(size // 8)[::8]  # ones: pages never written would all be one page of zeros

    def __call__(self) -> None:
        """Read it."""
        self._lines.sum()


def visit(
    session: Session, x: npt.NDArray[np.float32], threads: int, flush: Flusher | None, runs: int, seconds: float
) -> Visit:
    """Time a session on one input.

    Args:
        session: what to run.
        x: its input.
        threads: that it uses; with one, samples whose wall time exceeds CPU time by 2 % (and 2 µs) are dropped.
        flush: called before each run, or None to keep everything warm.
        runs: samples wanted.
        seconds: end early when the samples sum to this much, but not before three.

    Raises:
        MeasureError: the output is not finite.
    """
    if not np.isfinite(session(x)).all():
        raise MeasureError("the runtime returned values that are not finite; its latency means nothing")
    session(x)
    kept: list[float] = []
    spent: list[float] = []
    limit = time.perf_counter() + max(1.0, 10 * seconds)
    while len(kept) < runs and (len(kept) < 3 or sum(spent) < 1e3 * seconds) and time.perf_counter() < limit:
        if flush is not None:
            flush()
            x.sum()
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        session(x)
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        wall_ms, cpu_ms = wall * 1e-6, cpu * 1e-6
        spent.append(cpu_ms if threads == 1 else wall_ms)
        if threads > 1 or wall_ms - cpu_ms <= PREEMPTED_SHARE * wall_ms + PREEMPTED_MS:
            kept.append(wall_ms)
    dropped = len(spent) - len(kept)
    times = np.array(kept if kept else spent)  # all preempted: CPU time is the best that is left
    return Visit(float(np.median(times)), float(times.min()), len(kept), dropped)
