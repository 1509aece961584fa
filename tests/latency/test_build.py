"""Building a table: really measured, resumable, and refused where it would mislead."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.device import onnxruntime, timing
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.graphs import onnx as graphs
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.machine_state import estimates
from ofa_deploy.latency.machine_state import states as machine_states
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import file_name, select
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import killed_build

QUICK = MeasurePlan(rounds=2, runs=3, seconds=0.005, networks=12)


def pool(channels: int, size: int) -> bytes:
    parts = [("pool", Op("pool", size, channels, channels))]
    return bytes(graphs.emit(parts, {"pool": {}}))


def test_table_of_a_small_space(tiny: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    table = build_table(TableJob(tiny, tiny.resolutions, plan=QUICK), "cpu", out=out)
    assert set(table.rows) == set(tiny.all_ops())
    assert all(row.minimum_ms <= row.latency_ms for row in table.rows.values())
    assert all(row.runs >= 3 for row in table.rows.values())
    assert table.scale > 0
    again = LatencyTable.load(out, tiny)
    genes = tiny.sample(np.random.default_rng(0), 20)
    assert again.latency_ms(genes) == pytest.approx(table.latency_ms(genes), rel=1e-3)
    assert (again.latency_ms(genes) > 0).all()
    assert not list(tmp_path.glob("*.partial"))


def test_killed_build_keeps_its_visits(tmp_path: Path) -> None:
    options = ["build-lut", "--resolutions", "16", "--rounds", "3", "--out", "t.csv"]
    kept = killed_build(options, tmp_path, 20)
    command = [sys.executable, "-m", "ofa_deploy", *options]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"resuming: {kept} visits" in again.stderr
    assert (tmp_path / "t.csv").exists()
    assert not (tmp_path / "t.partial").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(240 << 10))
    command = [
        sys.executable,
        "-m",
        "ofa_deploy",
        "build-lut",
        "--resolutions",
        "16",
        "--rounds",
        "2",
        "--out",
        "t.csv",
    ]
    done = subprocess.run(command, cwd=small_disk, capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert (
        last == "ofa-deploy: cannot write t.partial: No space left on device; mend that and repeat the command to go on"
    )
    kept = (small_disk / "t.partial").read_bytes().count(b"\n") - 1
    assert kept > 20
    assert not (small_disk / "t.csv").exists()
    (small_disk / "other").unlink()
    again = subprocess.run(command, cwd=small_disk, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"resuming: {kept} visits" in again.stderr


def test_what_lies_there_must_be_of_this_build(tiny: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    for content, word in (('{"other": 1}\n', "other options"), ("torn", "damaged")):
        out.with_suffix(".partial").write_text(content)
        with pytest.raises(ArtifactError, match=word):
            build_table(TableJob(tiny, (8,), plan=QUICK), "cpu", out=out)
    assert not out.exists()


def test_resolution_that_the_space_does_not_have(tiny: SearchSpace) -> None:
    with pytest.raises(MeasureError, match="resolution 10 is not one of tiny's: 8, 12"):
        TableJob(tiny, (8, 10), plan=QUICK)


def test_plan_is_checked() -> None:
    with pytest.raises(MeasureError, match="at least 1 round"):
        MeasurePlan(rounds=0)


def test_graph_that_the_runtime_does_not_take() -> None:
    with pytest.raises(MeasureError, match="does not take"):
        onnxruntime.start(b"no graph", 1)


def test_visit_counts_and_orders_its_samples() -> None:
    x = np.zeros((1, 4, 8, 8), np.float32)
    session = onnxruntime.start(pool(4, 8), 1)
    visit = session.time(x, runs=10, seconds=1.0, threads=1)
    assert 0 < visit.minimum_ms <= visit.median_ms
    assert 3 <= visit.runs <= 10


def test_values_that_are_not_finite_are_no_measurement() -> None:
    x = np.full((1, 1, 2, 2), np.nan, np.float32)
    session = onnxruntime.start(pool(1, 2), 1)
    with pytest.raises(MeasureError, match="not finite"):
        session.time(x, runs=3, seconds=0.01, threads=1)


def test_preempted_samples_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second run loses the processor for as long as it computes: wall time doubles, CPU time does not."""
    clock = {"wall": 0, "cpu": 0, "calls": 0}

    def session(x: np.ndarray) -> np.ndarray:
        clock["calls"] += 1
        clock["cpu"] += 1_000_000
        clock["wall"] += 2_000_000 if clock["calls"] % 2 else 1_000_000
        return x

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: clock["wall"])
    monkeypatch.setattr(timing.time, "thread_time_ns", lambda: clock["cpu"])
    x = np.zeros((1, 1, 1, 1), np.float32)
    single = timing.time_on_cpu(session, x, runs=6, seconds=1.0, threads=1)
    assert (single.median_ms, single.minimum_ms, single.runs) == (1.0, 1.0, 6)
    assert single.dropped >= 5
    assert timing.time_on_cpu(session, x, runs=6, seconds=1.0, threads=2).median_ms == 1.5


@pytest.mark.parametrize("threads", [1, 2])
def test_samples_of_a_clock_that_jumps_are_dropped(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """One sample ends an hour before it began, one an hour late, as after a sleep."""
    clock = {"wall": 10**15, "calls": 0}

    def session(x: np.ndarray) -> np.ndarray:
        clock["calls"] += 1
        clock["wall"] += {4: -3600 * 10**9, 6: 3600 * 10**9}.get(clock["calls"], 1_000_000)
        return x

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: clock["wall"])
    monkeypatch.setattr(timing.time, "thread_time_ns", lambda: clock["wall"])
    found = timing.time_on_cpu(session, np.zeros((1, 1, 1, 1), np.float32), runs=8, seconds=1e9, threads=threads)
    assert (found.median_ms, found.minimum_ms, found.dropped) == (1.0, 1.0, 2)


def test_a_clock_that_stands_still_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: 5)
    monkeypatch.setattr(timing.time, "thread_time_ns", lambda: 5)
    with pytest.raises(MeasureError, match="does not advance"):
        timing.time_on_cpu(lambda x: x, np.zeros((1, 1, 1, 1), np.float32), runs=5, seconds=1.0, threads=1)


def test_a_runtime_that_returns_nan_ends_the_build_with_one_line(
    tiny: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = timing.CpuSession(lambda x: x * np.nan)
    broken = dataclasses.replace(DEVICES["cpu"], start=lambda content, threads: session)
    monkeypatch.setitem(DEVICES, "cpu", broken)
    with pytest.raises(MeasureError, match="not finite"):
        build_table(TableJob(tiny, (8,), plan=QUICK), "cpu", out=tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("device", ["cpu", "tflite", "cpu-int8", "tflite-int8"])
def test_a_table_of_batches_is_measured_named_and_found_as_one(
    tiny: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.chdir(tmp_path)
    job = TableJob(tiny, (8,), plan=QUICK, batch=3)
    assert job.started(job.sentinel, DEVICES[device]).x.shape[0] == 3
    wanted = conditions(device, 1, batch=3)
    out = Path("lut") / file_name(tiny, wanted)
    assert "_1t_b3_" in out.name
    build_table(job, device, out=out)
    table, own = select(tiny, wanted)
    assert own
    assert table.conditions["batch"] == 3
    assert "batches of 3" in table.label
    with pytest.raises(ArtifactError, match=r"no latency table of tiny for .*, batches of 2; run: .* --batch 2"):
        select(tiny, conditions(device, 1, batch=2))
    with pytest.raises(MeasureError, match="at least 1 image"):
        TableJob(tiny, (8,), plan=QUICK, batch=0)


def test_everything_is_visited_once_a_round_in_an_order_of_its_own(
    tiny: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a clock: the protocol's calls are recorded, the figures made up."""
    calls: list[bytes] = []

    @dataclasses.dataclass(frozen=True)
    class Recorded:
        graph: bytes

        def __call__(self, x: np.ndarray) -> np.ndarray:
            return x

        def time(self, x: np.ndarray, *, runs: int, seconds: float, threads: int) -> timing.Visit:
            calls.append(self.graph)
            return timing.Visit(1.0 + len(self.graph) * 1e-6, 0.5, 3, 0)

    bare = dataclasses.replace(DEVICES["cpu"], start=lambda graph, threads: Recorded(graph))
    monkeypatch.setitem(DEVICES, "cpu", bare)
    build_table(TableJob(tiny, tiny.resolutions, plan=QUICK), "cpu", out=tmp_path / "t.csv")
    number = 2 * (len(tiny.all_ops()) + QUICK.networks)  # the sentinel before each
    assert calls[:number] != calls[number : 2 * number]
    assert sorted(calls[:number]) == sorted(calls[number : 2 * number])
    assert len(set(calls[::2])) == 1


@pytest.mark.parametrize("states", [[1.0, 1.1, 1.2], [1.0, 1.02, 1.9], [1.0]], ids=["slower", "two speeds", "quiet"])
def test_visits_are_carried_to_the_fast_state(states: list[float]) -> None:
    """Networks answer to the machine's state as the sentinel does, operators half as much; its state lasts a while."""
    rng = np.random.default_rng(0)
    visits, state, made = {}, 1.0, []
    for r in range(12):
        for i in rng.permutation(20):
            state = float(rng.choice(states)) if rng.random() < 0.1 else state
            made.append(state ** (1 if i >= 10 else 0.5))
            latency, sentinel = (1 + i) * made[-1], 2 * state * rng.choice([1.0, 1.0, 1.0, 1.4])  # it is disturbed
            visits[r, f"{'net' if i >= 10 else 'op'}{i}"] = timing.Visit(latency, latency, 5, 0, sentinel)
    found = estimates(visits, lambda name: name.startswith("op"))
    for name, estimate in found.items():
        own = [visit.median_ms for (_, entry), visit in visits.items() if entry == name]
        assert estimate.latency_ms == pytest.approx(1 + int(name.strip("opnet")), rel=0.03)
        assert estimate.spread_percent == pytest.approx(100 * (max(own) / min(own) - 1), abs=0.1)
        assert estimate.runs == 60
    off = np.abs(machine_states(visits, lambda name: name.startswith("op")) / made - 1)
    assert np.quantile(off, 0.8) < 0.03


def test_one_visit_each_is_carried_by_the_sentinel() -> None:
    """Nothing tells then how an entry answers to the state: as the sentinel does."""
    visits = {(0, str(i)): timing.Visit(1.5 if i < 20 else 1.0, 1.0, 5, 0, 3.0 if i < 20 else 2.0) for i in range(40)}
    assert [one.latency_ms for one in estimates(visits).values()] == pytest.approx(40 * [1.0], rel=1e-3)
