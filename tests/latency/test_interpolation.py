"""Which resolutions are measured and which entries interpolated, on devices that are made up; and a real build."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.device.timing import Visit
from ofa_deploy.errors import MeasureError
from ofa_deploy.latency import build
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.interpolation import CHECKED, Filled, Visits, fill
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import Run, killed_build, refused, succeeded

SIZES = (128, 132, 136, 140, 144, 148, 152, 156, 160)


def straight(op: Op) -> float:
    """A call and a term for the work."""
    return 0.01 + 1e-7 * (op.macs or op.size**2)


def stepped(op: Op) -> float:
    """Slower above maps of 70 pixels."""
    return straight(op) * (1.5 if op.size > 70 else 1.0)


def filled(device: Callable[[Op], float], tolerance: float) -> tuple[Filled, list[str], dict[Op, str]]:
    space = get_space("mbv3-w1.0")
    names = {op: f"op{i}" for i, op in enumerate(space.all_ops(SIZES))}
    of = {name: op for op, name in names.items()}
    asked: list[str] = []

    def visit(some: Sequence[str]) -> Visits:
        asked[:] = some
        return {(0, name): Visit(device(of[name]), device(of[name]), 5, 0) for name in some}

    _, found = fill(space, SIZES, names=names, tolerance_percent=tolerance, seed=0, visit=visit)
    return found, asked, names


def test_a_straight_device_is_measured_at_three_resolutions() -> None:
    found, asked, names = filled(straight, 0.5)
    space = get_space("mbv3-w1.0")
    assert found.measured == (128, 144, 160)
    assert [c.resolution for c in found.checks] == [136, 152]
    assert all(c.interpolated and c.error_percent < 0.5 for c in found.checks)
    assert len(asked) <= len(space.all_ops([128, 144, 160])) + 2 * CHECKED
    assert {names[op] for op in found.rows} == set(names.values()) - set(asked)
    for op, row in found.rows.items():
        assert row.latency_ms == pytest.approx(straight(op), rel=2e-3)
        assert row.runs == 0


def test_where_interpolation_is_off_resolutions_are_measured() -> None:
    found, _, _ = filled(stepped, 1.0)
    assert {136, 140, 144} <= set(found.measured)
    assert 152 not in found.measured
    last = {c.resolution: c.interpolated for c in found.checks}
    assert not last[136]
    assert last[152]
    for op, row in found.rows.items():
        assert row.latency_ms == pytest.approx(stepped(op), rel=0.02)


def test_what_a_killed_run_has_visited_later_decides_nothing(space: SearchSpace) -> None:
    """A resumed run is given the visits to all that it will ask for: it decides as if they were not there."""
    job = TableJob(space, space.resolutions, plan=MeasurePlan(rounds=3, networks=6))

    def visited(names: Sequence[str], state: float) -> dict[tuple[int, str], Visit]:
        """The machine becomes slower from round to round, and what it runs with it."""
        slower = {r: state * (1 + 0.1 * r) for r in range(3)}
        took = {name: stepped(job.operators[name]) if name in job.operators else 0.1 for name in names}
        return {(r, n): Visit(t * s, t * s, 5, 0, s) for r, s in slower.items() for n, t in took.items()}

    def alone(names: Sequence[str]) -> dict[tuple[int, str], Visit]:
        return visited(names, 1.0)

    def resumed(names: Sequence[str]) -> dict[tuple[int, str], Visit]:
        """Later the machine was faster than ever before."""
        return alone(names) | visited([name for name in job.operators if name not in names], 0.2)

    whole, again = (build._filled(job, 5.0, visit) for visit in (alone, resumed))
    assert again == whole


def test_a_tolerance_that_is_none_is_refused() -> None:
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(MeasureError, match="positive percentage"):
            filled(straight, bad)


def test_a_build_that_interpolates_goes_on_after_a_kill(ofa: Run, space: SearchSpace, tmp_path: Path) -> None:
    options = ["build-lut", "--rounds", 1, "--resolutions", "16,20,24,28", "--interpolate", 1000, "--out", "t.csv"]
    kept = killed_build(options, tmp_path, 40)
    again = ofa(*options)
    succeeded(again)
    assert f"resuming: {kept} visits" in again.stderr
    table = LatencyTable.load(tmp_path / "t.csv", space)
    assert table.resolutions == (16, 20, 24, 28)
    assert np.isfinite(table.latency_ms(space.sample(np.random.default_rng(0), 20))).all()
    rows = [row for row in table.rows.values() if not row.runs]
    shown = succeeded(ofa("lut", "show", "t.csv"))
    assert f"{len(rows)} of them interpolated between those of 16, 24, 28" in shown
    assert "slower than in its fast state" in shown
    assert "% at 20" in shown
    refused(ofa("build-lut", "--interpolate", 1, "--networks", 10), "leave out --interpolate")
