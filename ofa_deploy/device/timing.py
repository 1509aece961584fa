"""The measuring protocol: visits of back-to-back runs, samples that were preempted thrown away.

Operators are timed as networks are, with warm caches. In a network their weights are colder than that and the call
of the runtime is spared; what a table is calibrated with, a scale and a term for each operator, takes up both. Reading
a 16 MiB buffer between runs instead, so that weights are cold, was no better on large networks and worse on small ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ofa_deploy.errors import MeasureError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
else:
    Array = np.ndarray  # a device may have a numpy that is older than numpy.typing
Run = Callable[[Array], Array]
"""From an input batch to the output of a graph."""
PREEMPTED_SHARE = 0.02
"""Share of a sample's wall time by which it may exceed the CPU time; beyond, the thread was preempted."""
PREEMPTED_MS = 0.002
"""Milliseconds by which it may exceed that still: what the clocks themselves take."""
FEWEST_RUNS = 3
"""Samples of a visit, however long they take."""
JUMP = 10.0
"""Samples longer than this many medians are dropped."""


@dataclass(frozen=True)
class Visit:
    """Times of one visit to one graph.

    Attributes:
        median_ms: median of the samples kept.
        minimum_ms: their minimum.
        runs: how many were kept.
        dropped: how many were thrown away as preempted.
        sentinel_ms: latency of a fixed network just before; it tells the state that the machine was in.
    """

    median_ms: float
    minimum_ms: float
    runs: int
    dropped: int
    sentinel_ms: float = 1.0


class Session(Protocol):
    """A model that is ready to run on a device."""

    def __call__(self, x: Array) -> Array:
        """The output for an input batch."""

    def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
        """Times of back-to-back runs on one input.

        Args:
            x: the input batch.
            runs: samples wanted.
            seconds: end early when the samples sum to this much, but not before `FEWEST_RUNS`.
            threads: of the CPU that the session was started with.

        Raises:
            MeasureError: the output is not finite, or the clock does not advance.
        """


class CpuSession:
    """A session whose runs are done when the call returns: it computes on this processor.

    Args:
        run: from an input batch to the output.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, x: Array) -> Array:
        """The output for an input batch."""
        return self._run(x)

    def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
        """Times by this processor's clocks, see `time_on_cpu`."""
        return time_on_cpu(self._run, x, runs=runs, seconds=seconds, threads=threads)


def time_on_cpu(run: Run, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
    """Time what this processor computes, on one input.

    Args:
        run: from an input batch to the output.
        x: the input batch.
        runs: samples wanted.
        seconds: end early when the samples sum to this much, but not before `FEWEST_RUNS`.
        threads: that it uses; with one, samples whose wall time exceeds CPU time by 2 % (and 2 µs) are dropped.

    Raises:
        MeasureError: the output is not finite, or the clock does not advance.
    """
    run_checked(run, x)
    run(x)
    kept: list[float] = []
    spent: list[float] = []
    limit = time.perf_counter() + max(1.0, 10 * seconds)
    while len(spent) < FEWEST_RUNS or (
        len(kept) < runs and (len(kept) < FEWEST_RUNS or sum(spent) < 1e3 * seconds) and time.perf_counter() < limit
    ):
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        run(x)
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        wall_ms, cpu_ms = wall * 1e-6, cpu * 1e-6
        spent.append(cpu_ms if threads == 1 else wall_ms)
        if threads > 1 or not preempted(wall_ms, cpu_ms):
            kept.append(wall_ms)
    return _summary(kept, spent)  # all preempted: CPU time is the best that is left


def preempted(wall_ms: Any, cpu_ms: Any) -> Any:
    """Whether other work interrupted samples of one thread, from their wall and CPU time: numbers, or arrays."""
    return wall_ms - cpu_ms > PREEMPTED_SHARE * wall_ms + PREEMPTED_MS


def run_checked(run: Run, x: Array) -> None:
    """Run once, and look at the output.

    Raises:
        MeasureError: the output is not finite.
    """
    if not np.isfinite(run(x)).all():
        raise MeasureError("the runtime returned values that are not finite; its latency means nothing")


def time_by_samples(sample: Callable[[], float], *, runs: int, seconds: float) -> Visit:
    """A visit of samples that a device takes itself.

    Args:
        sample: takes one, in ms.
        runs: samples wanted.
        seconds: end early when the samples sum to this much, but not before `FEWEST_RUNS`.

    Raises:
        MeasureError: the clock does not advance.
    """
    kept: list[float] = []
    limit = time.perf_counter() + max(1.0, 10 * seconds)
    while len(kept) < FEWEST_RUNS or (len(kept) < runs and sum(kept) < 1e3 * seconds and time.perf_counter() < limit):
        kept.append(sample())
    return _summary(kept, kept)


def _summary(kept: list[float], spent: list[float]) -> Visit:
    """A visit of the samples kept, or of all where none is.

    Samples that end before they began, or are many times as long as the median, are of a clock that jumped or a machine
    that slept meanwhile: they are dropped.

    Raises:
        MeasureError: none is left.
    """
    times = np.array(kept if kept else spent)
    times = times[times > 0]
    times = times[times <= JUMP * np.median(times)] if len(times) else times
    if not len(times):
        raise MeasureError("the clock of this machine does not advance while it measures; set it right, and repeat")
    used = len(times) if kept else 0
    return Visit(float(np.median(times)), float(times.min()), used, len(spent) - used)
