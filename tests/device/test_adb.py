"""Measuring an Android phone by way of adb, with a made-up adb that answers as a phone with `benchmark_model` does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ofa_deploy.device import adb
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.bundle import collect, write_bundle
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces import families
from ofa_deploy.spaces.space import SearchSpace

PRINTED = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [1]
INFO: Graph: [{graph}]
INFO: Loaded model {graph}
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 0.26
INFO: Initialized session in 2.75ms.
INFO: Running benchmark for at least 2 iterations and at least 0 seconds but terminate if exceeding 150 seconds.
INFO: count=2 first={slow} curr={slow} min={us} max={slow} avg={slow} std=10

INFO: Running benchmark for at least {runs} iterations and at least 0 seconds but terminate if exceeding 150 seconds.
INFO: count={runs} first={slow} curr={us} min={least} max={slow} avg={mean} std=470 p5={least} median={us} p95={slow}

INFO: Inference timings in us: Init: 2750, First inference: {slow}, Warmup (avg): {slow}, Inference (avg): {mean}
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE
"""
FAKE = f"""#!{sys.executable} -IS
import re, shutil, subprocess, sys
from pathlib import Path
PRINTED = {PRINTED!r}
phone, log = Path(__file__).parent / "phone", Path(__file__).parent / "log"
given = sys.argv[1:]
with log.open("a") as file:
    file.write(" ".join(given) + "\\n")
if (Path(__file__).parent / "unplugged").exists() and len(log.read_text().splitlines()) > 40:
    sys.exit("adb: no devices/emulators found")
if given[:1] == ["-s"]:
    if given[1] != "SER1AL":
        sys.exit(f"adb: device '{{given[1]}}' not found")
    given = given[2:]
here = lambda path: path.replace("/data/local/tmp", str(phone))
if given[0] == "push":
    shutil.copy(given[1], here(given[2]))
    sys.exit(0)
command = given[1]
found = re.search("--graph=(\\\\S+)", command)
if command.startswith("getprop"):
    print({{"ro.product.manufacturer": "Maker", "ro.product.model": "Phone 6", "ro.product.cpu.abi": "arm64-v8a",
           "ro.build.version.release": "14", "ro.soc.model": "SOC1"}}[command.split()[1]], end="\\r\\n")
elif command == "nproc":
    print(8)
elif found:
    folder = Path(here(re.match("cd (\\\\S+)", command)[1]))
    us = 100 + (folder / found[1]).stat().st_size // 100
    runs = re.search("--num_runs=(\\\\d+)", command)[1]
    print(PRINTED.format(graph=found[1], runs=runs, us=us, least=us - 1, mean=us + 7, slow=us + 90))
else:
    sys.exit(subprocess.run(here(command), shell=True).returncode)
"""
QUICK = MeasurePlan(rounds=1, runs=3, networks=6)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `adb` is first on the path; `phone` in it is the phone's folder for temporary files."""
    folder = tmp_path / "bin"
    (folder / "phone").mkdir(parents=True)
    (folder / "adb").write_text(FAKE)
    (folder / "adb").chmod(0o755)
    (tmp_path / "benchmark_model").write_bytes(b"for a phone")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "b.zip", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_phone_that_is_unplugged_and_plugged_in_again(
    tiny: SearchSpace, phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(families.SPACES, "tiny", tiny)
    write_bundle(TableJob(tiny, (8,), plan=QUICK), "tflite", out=tmp_path / "b.zip", runner="adb")
    options = ("--benchmark-model", "benchmark_model", "--taskset", "f0")
    (phone / "unplugged").touch()
    done = run(tmp_path, *options)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("b.zip: adb ")
    assert "no devices/emulators found" in last
    kept = (tmp_path / "b.results.partial").read_text().count("\n") - 1
    pushed = [line for line in (phone / "log").read_text().splitlines() if line.startswith("push")]
    (phone / "unplugged").unlink()
    (phone / "log").unlink()
    done = run(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert f"resuming: {kept} visits" in done.stderr
    log = (phone / "log").read_text()
    again = {line.split("/")[-1] for line in log.splitlines() if line.startswith("push")}
    assert not again & {line.split("/")[-1] for line in pushed[:-1]}, "what is there is not pushed again"
    table, out = collect(tmp_path / "b.zip", tmp_path / "b.results", out=tmp_path / "t.csv")
    assert set(LatencyTable.load(out, tiny).rows) == set(tiny.all_ops([8]))
    assert all(0.1 < row.latency_ms < 10 for row in table.rows.values())
    assert table.conditions["machine"] == {
        "cpu": "Maker Phone 6 (SOC1, taskset f0)",
        "architecture": "arm64-v8a",
        "cores": 8,
        "system": "Android 14",
    }
    assert not list((phone / "phone" / "ofa-deploy").iterdir()), "nothing is left there"
    assert "taskset f0 ./benchmark_model-" in log
    assert "--num_threads=1 --warmup_runs=2 --warmup_min_secs=0 --min_secs=0 --num_runs=3" in log


def test_what_is_missing_is_one_line(
    tiny: SearchSpace, phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(TableJob(tiny, (8,), plan=QUICK, blocks=False), "tflite", out=tmp_path / "b.zip", runner="adb")
    given = ("--benchmark-model", "benchmark_model")
    cases = [
        ((), "--benchmark-model FILE"),
        ((*given, "--serial", "other"), "device 'other' not found"),
        ((*given, "--taskset", "f0; reboot"), "a mask in hexadecimal"),
    ]
    for options, words in cases:
        done = run(tmp_path, *options)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install Android's platform tools" in run(tmp_path, *given).stderr
    with pytest.raises(MeasureError, match="choose --device tflite"):
        write_bundle(TableJob(tiny, (8,), plan=QUICK), "cpu", out=tmp_path / "c.zip", runner="adb")


@pytest.mark.parametrize(
    ("last", "median_ms", "minimum_ms"),
    [
        ("count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450", 33.2094, 32.641),
        ("INFO: count=20 first=9 curr=9 min=8 max=2e+06 avg=1.24e+06 std=2 p5=8 median=9 p95=9", 0.009, 0.008),
        ("count=1 curr=3512391", 3512.391, 3512.391),
    ],
)
def test_what_releases_of_benchmark_model_print(last: str, median_ms: float, minimum_ms: float) -> None:
    found = adb.parse(f"Loaded model\ncount=2 first=5 curr=5 min=5 max=5 avg=5 std=0\n\n{last}\nInference timings\n")
    assert (found.median_ms, found.minimum_ms) == pytest.approx((median_ms, minimum_ms))


@pytest.mark.parametrize(
    "printed",
    ["", "Failed to load model\nBenchmarking failed.", "count=2 curr=5 avg=5\nAborted", "count=1\ncount=3"],
)
def test_a_model_that_does_not_run_is_no_measurement(printed: str) -> None:
    with pytest.raises(MeasureError, match="did not say how long it took"):
        adb.parse(printed)
