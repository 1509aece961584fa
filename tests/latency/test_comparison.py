"""Whole models: the machine's state is told from the networks of its own table."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from ofa_deploy.device.timing import Array, Visit
from ofa_deploy.latency import comparison
from ofa_deploy.latency.comparison import ComparisonPlan
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table


@pytest.fixture
def table(tiny: SearchSpace) -> LatencyTable:
    archs = tiny.archs(tiny.sample(np.random.default_rng(0), 9))
    networks = [{"arch": str(arch), "measured_ms": 1.0 + i} for i, arch in enumerate(archs)]
    return dataclasses.replace(made_up_table(tiny), networks=tuple(networks))


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        ([1.02], 1.02),
        ([1.3, 1.4, 1.01], 1.01),  # slow for a while
        ([1.5, 1.3, 1.4, 1.6], 1.3),  # slow all the time
    ],
)
def test_a_slow_machine_is_noticed_and_measured_again(
    table: LatencyTable, states: list[float], kept: float, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Without a clock: the state of the machine slows the model and the table's networks alike."""
    known = {network["arch"]: network["measured_ms"] for network in table.networks}
    left = iter(states)

    def side_by_side(sessions: dict[str, Any], threads: int, *, plan: ComparisonPlan) -> dict[str, Any]:
        assert 3 <= len(set(sessions) & set(known)) <= 5
        state = next(left)
        return {name: {"latency_ms": state * known.get(name, 10.0)} for name in sessions}

    monkeypatch.setattr(comparison, "side_by_side", side_by_side)
    model = {"model": (lambda x: x, np.zeros(1, np.float32))}
    found, slower = comparison.beside_table(model, table, threads=1)
    assert found["model"]["latency_ms"] == pytest.approx(10 * kept)
    assert slower == pytest.approx(100 * (kept - 1), abs=0.1)
    assert len(lines) == sum(state > 1.05 for state in states)
    assert next(left, None) is None


def test_models_are_measured_in_interleaved_rounds() -> None:
    order: list[str] = []
    medians = {"a": iter([3.0, 2.0, 4.0]), "b": iter([1.0, 1.5, 1.1])}

    @dataclasses.dataclass(frozen=True)
    class Recorded:
        name: str

        def __call__(self, x: Array) -> Array:
            return x

        def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
            order.append(self.name)
            return Visit(next(medians[self.name]), 0.5, runs, 0)

    sessions = {name: (Recorded(name), np.zeros(1, np.float32)) for name in medians}
    found = comparison.side_by_side(sessions, 1, plan=ComparisonPlan(rounds=3, pause_seconds=0.0))
    assert [set(order[i : i + 2]) for i in (0, 2, 4)] == [{"a", "b"}] * 3
    assert {n: (f["latency_ms"], f["typical_ms"], f["spread_percent"], f["runs"]) for n, f in found.items()} == {
        "a": (2.0, 3.0, 100.0, 150),
        "b": (1.0, 1.1, 50.0, 150),
    }


def test_a_table_without_networks_tells_nothing(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "side_by_side", lambda sessions, threads, plan: {"model": {"latency_ms": 1.0}})
    bare = dataclasses.replace(table, networks=())
    assert comparison.beside_table({}, bare, threads=1) == ({"model": {"latency_ms": 1.0}}, 0.0)
