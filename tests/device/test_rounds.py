"""Rounds of visits: how often graphs are started, and how many of them memory holds."""

import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.device.rounds import MeasurePlan, Started, measure
from ofa_deploy.device.timing import Array, Visit
from ofa_deploy.files import machine

NAMES = [f"op{i}" for i in range(10)]


class Timed:
    """A session that takes 1 ms."""

    def __call__(self, x: Array) -> Array:
        return x

    def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
        return Visit(1.0, 1.0, runs, 0)


class Counted:
    """Starts sessions, and counts for each entry how often, and how many sessions there are."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        self.alive: weakref.WeakSet[Timed] = weakref.WeakSet()
        self.most = 0

    def start(self, name: str) -> Started:
        session = Timed()
        self.starts[name] += 1
        self.alive.add(session)
        self.most = max(self.most, len(self.alive))
        return Started(session, np.zeros(1, np.float32))


def measured(folder: Path, rounds: int, keep: Callable[[str], bool]) -> Counted:
    counted = Counted()
    plan = MeasurePlan(rounds=rounds)
    sentinel = Started(Timed(), np.zeros(1, np.float32))
    partial = folder / "t.partial"
    visits = measure(NAMES, counted.start, sentinel=sentinel, plan=plan, partial=partial, header={}, keep=keep)
    assert len(visits) == rounds * len(NAMES)
    return counted


def test_what_stays_ready_is_started_once(tmp_path: Path) -> None:
    counted = measured(tmp_path, 3, lambda name: True)
    assert counted.starts == dict.fromkeys(NAMES, 1)
    assert not counted.alive


def test_nothing_stays_ready_after_its_last_visit(tmp_path: Path) -> None:
    """What is visited once is never in memory together: a table has 72 whole networks, of up to 50 MB each."""
    assert measured(tmp_path, 1, lambda name: True).most <= 2


def test_where_memory_is_short_a_build_holds_two_graphs_at_most(tmp_path: Path) -> None:
    counted = measured(tmp_path, 3, lambda name: False)
    assert counted.starts == dict.fromkeys(NAMES, 3)
    assert counted.most <= 2


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 1999 kB\n", True),
        ("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 2001 kB\n", False),
        ("MemTotal: 8000 kB\nHugePages_Total:\n", False),
        ("", False),
        (None, False),
    ],
)
def test_memory_is_short(text: str | None, short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "meminfo")
    if text is not None:
        machine.MEMORY.write_text(text)
    assert machine.memory_is_short() is short
