"""Measuring elsewhere: one zip, run with nothing but numpy and the runtime, and the table that comes of it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import journals
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.bundle import collect, write_bundle
from ofa_deploy.latency.remote import build_over_ssh
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import Run, killed, made_up_table, refused, succeeded

QUICK = MeasurePlan(rounds=2, runs=3, seconds=0.005, networks=12)
ABSENT = (
    "torch",
    "onnx",
    "scipy",
    "sklearn",
    "pandas",
    "deap",
    "typer",
    "safetensors",
    "joblib",
    "flatbuffers",
    "yaml",
)


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that lacks what only this side needs, and ofa-deploy itself."""
    blocked = tmp_path / "absent"
    for name in ABSENT:
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is not there')")
    forget = "sys.meta_path[:] = [finder for finder in sys.meta_path if '__editable__' not in repr(finder)]"
    (blocked / "sitecustomize.py").write_text(f"import sys\n{forget}\n")
    return os.environ | {"PYTHONPATH": str(blocked)}


@pytest.fixture(scope="module")
def job(space: SearchSpace) -> TableJob:
    return TableJob(space, (16,), plan=QUICK)


@pytest.fixture(scope="module")
def made(job: TableJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "b.zip"
    write_bundle(job, "cpu", out=path)
    return path


@pytest.fixture(scope="module")
def results(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, made], cwd=folder, check=True, capture_output=True)
    return folder / "b.results"


@pytest.mark.parametrize("device", ["cpu", "tflite"])
def test_round_trip(job: TableJob, device: str, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    path, far = tmp_path / "b.zip", tmp_path / "far"
    far.mkdir()
    write_bundle(job, device, out=path)
    again = tmp_path / "again.zip"
    write_bundle(job, device, out=again)
    assert path.read_bytes() == again.read_bytes()
    shutil.copy(path, far)
    done = subprocess.run([sys.executable, "b.zip"], cwd=far, env=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in far.iterdir()) == ["b.results", "b.zip"]
    table, out = collect(path, far / "b.results", out=tmp_path / "t.csv")
    loaded = LatencyTable.load(out, job.space)
    assert set(loaded.rows) == set(job.space.all_ops([16]))
    assert loaded.conditions["device"] == device
    assert loaded.error["networks"] == QUICK.networks
    genes = job.space.sample(np.random.default_rng(0), 20, [16])
    assert (loaded.latency_ms(genes) > 0).all()
    assert loaded.latency_ms(genes) == pytest.approx(table.latency_ms(genes), rel=1e-3)


def test_a_bundle_is_small(made: Path, job: TableJob) -> None:
    with zipfile.ZipFile(made) as file:
        models = [info for info in file.infolist() if info.filename.startswith("models/")]
    assert len(models) == len(job.entries) + 1
    assert made.stat().st_size < sum(info.file_size for info in models) / 10


def test_killed_on_the_device_it_goes_on(made: Path, tmp_path: Path) -> None:
    command, partial = [sys.executable, str(made)], tmp_path / "b.results.partial"
    killed(command, tmp_path, partial, 20)
    kept = partial.read_bytes().count(b"\n") - 1
    with pytest.raises(ArtifactError, match="is not complete: .* repeat the run on the device"):
        collect(made, partial, out=tmp_path / "t.csv")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"resuming: {kept} visits" in done.stderr
    collect(made, tmp_path / "b.results", out=tmp_path / "t.csv")
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "b.results is there already" in refused.stderr


def test_a_missing_runtime_is_one_line(made: Path, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    absent = Path(elsewhere["PYTHONPATH"]) / "onnxruntime"
    absent.mkdir()
    (absent / "__init__.py").write_text("raise ModuleNotFoundError")
    done = subprocess.run([sys.executable, made], cwd=tmp_path, env=elsewhere, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "b.zip: onnxruntime is not installed; pip install onnxruntime\n"
    assert not (tmp_path / "b.results.partial").exists()


def test_results_of_another_bundle_are_refused(results: Path, space: SearchSpace, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    write_bundle(TableJob(space, (20,), plan=QUICK), "cpu", out=other)
    with pytest.raises(ArtifactError, match="was measured with another bundle"):
        collect(other, results, out=tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def changed(line: str, key: int, value: object, number: int = 1) -> str:
    values = json.loads(line.partition("\t")[0])
    values[key] = value
    return journals.numbered(number, json.dumps(values)).rstrip("\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: lines[:5], "damaged"),  # the last line is torn
        (lambda lines: [*lines[:5], ""], "not complete"),
        (lambda lines: [lines[0], changed(lines[1], 2, -1.0), *lines[2:]], "damaged"),
        (lambda lines: [lines[0], changed(lines[1], 2, float("nan")), *lines[2:]], "damaged"),
        (lambda lines: [*lines[:-1], changed(lines[1], 1, "another", len(lines) - 1), ""], "visits to 'another'"),
        (lambda lines: [lines[0].replace('"threads": 1', '"threads": 2'), *lines[1:]], "damaged"),
        (lambda lines: ["no JSON", *lines[1:]], "not JSON"),
        (lambda lines: [lines[0], changed(lines[1], 4, 3.5), *lines[2:]], "damaged"),
        (lambda lines: [lines[0], lines[1].replace("[0", "[1", 1), *lines[2:]], "damaged"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "damaged"),
        (lambda lines: [lines[0], *lines[2:]], "damaged"),
        (lambda lines: [lines[0], lines[1] + "0", *lines[2:]], "damaged"),
        (lambda lines: [lines[0], journals.numbered(1, "[" * 100_000)[:-1], *lines[2:]], "damaged"),
        (lambda lines: [lines[0], journals.numbered(1, "[Infinity, 1]")[:-1], *lines[2:]], "damaged"),
        (lambda lines: [lines[0].replace('"precision"', '"another"'), *lines[1:]], "damaged"),
        (lambda lines: [lines[0].replace('"cpu": "', '"cpu": "\\ud800', 1), *lines[1:]], "half a character"),
    ],
)
def test_damaged_results_are_refused(made: Path, results: Path, tmp_path: Path, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    bad = tmp_path / "bad.results"
    bad.write_text("\n".join(damage(results.read_text().split("\n"))))
    with pytest.raises(ArtifactError, match=words):
        collect(made, bad, out=tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_a_bundle_with_a_flipped_bit_is_refused(made: Path, results: Path, tmp_path: Path) -> None:
    """On the device and here; where the bit is in what is not read, it does no harm."""
    content = made.read_bytes()
    with zipfile.ZipFile(made) as file:
        places = [file.getinfo(name).header_offset + 200 for name in ("manifest.json", "models/3.onnx")]
    for place in places:
        bad = tmp_path / "bad.zip"
        bad.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        done = subprocess.run([sys.executable, bad], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "is damaged" in done.stderr.splitlines()[-1]
    bad.write_bytes(content[: places[0]] + bytes([content[places[0]] ^ 16]) + content[places[0] + 1 :])
    with pytest.raises(ArtifactError, match="is no bundle"):
        collect(bad, results, out=tmp_path / "t.csv")


def test_what_a_bundle_carries_runs_on_python_3_9(made: Path, tmp_path: Path) -> None:
    """Of the language and its library; numpy 1.17 and old runtimes are not to be had here."""
    with zipfile.ZipFile(made) as file:
        file.extractall(tmp_path, [name for name in file.namelist() if name.endswith(".py")])
    command = [sys.executable, "-c", "from vermin import main; main()", "-t=3.9-", "--violations", "--no-tips"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_whole_networks_alone_through_the_commands(ofa: Run, tmp_path: Path) -> None:
    options = ("--resolutions", "16", "--networks", "6", "--rounds", "2")
    assert succeeded(ofa("lut", "bundle", *options, "--out", "b.zip")).strip() == "b.zip"
    subprocess.run([sys.executable, "b.zip"], cwd=tmp_path, check=True, capture_output=True)
    made_up_table(get_space("fmnist")).save(tmp_path / "other.csv", {})
    out = succeeded(ofa("lut", "collect", "b.zip", "b.results", "--from", "other.csv")).strip()
    assert out.endswith("_fitted.csv")
    assert LatencyTable.load(tmp_path / out, get_space("fmnist")).resolutions == (16,)
    refused(ofa("lut", "collect", "b.zip", "none.results"), "cannot read none.results")


def test_what_is_no_bundle_is_refused(results: Path, tmp_path: Path) -> None:
    for content in (b"", b"no zip"):
        (tmp_path / "b.zip").write_bytes(content)
        with pytest.raises(ArtifactError, match="is no bundle"):
            collect(tmp_path / "b.zip", results, out=tmp_path / "t.csv")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("manifest.json", '{"kind": "something"}')
    with pytest.raises(ArtifactError, match="is no bundle that this release reads"):
        collect(tmp_path / "b.zip", results, out=tmp_path / "t.csv")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine called `far` that ssh reaches: a server of our own on the loopback, with an empty home."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server here (apt-get install openssh-server)")
    home = tmp_path / "home"
    home.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nForceCommand cd {home} && "
        'eval "$SSH_ORIGINAL_COMMAND"\n'
    )
    (tmp_path / "ssh_config").write_text(
        f"Host far\n HostName 127.0.0.1\n Port {port}\n IdentityFile {tmp_path}/user\n IdentitiesOnly yes\n"
        f" StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n BatchMode yes\n"
    )
    client = tmp_path / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/ssh_config "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)
    Path("/run/sshd").mkdir(exist_ok=True)
    log = tmp_path / "sshd.log"
    process = subprocess.Popen([server, "-D", "-E", log, "-f", tmp_path / "sshd_config"])
    for _ in range(100):
        if process.poll() is not None:
            pytest.skip(f"the OpenSSH server does not start: {log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield home
    process.terminate()
    process.wait()


def test_over_ssh(host: Path, job: TableJob, tmp_path: Path, elsewhere: dict[str, str], lines: list[str]) -> None:
    python = tmp_path / "python"  # as it is there: without torch and the others
    python.write_text(f'#!/bin/sh\nPYTHONPATH={elsewhere["PYTHONPATH"]} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    table, out = build_over_ssh(job, "cpu", host="far", python=str(python), out=tmp_path / "t.csv")
    assert set(LatencyTable.load(out, job.space).rows) == set(table.rows) == set(job.space.all_ops([16]))
    assert not [path for path in host.rglob("*") if path.is_file()], "nothing is left there"
    with pytest.raises(MeasureError, match=r"on far: .*no-such-python.* repeat the command"):
        build_over_ssh(job, "cpu", host="far", python="no-such-python", out=tmp_path / "t2.csv")
    with pytest.raises(MeasureError, match="repeat the command"):
        build_over_ssh(job, "cpu", host="far", python="python3; touch owned #", out=tmp_path / "t2.csv")
    assert not list(tmp_path.rglob("owned")), "no shell reads what the user says"
    with pytest.raises(MeasureError, match="on nowhere.invalid: "):
        build_over_ssh(job, "cpu", host="nowhere.invalid", python="python3", out=tmp_path / "t2.csv")
    assert not (tmp_path / "t2.csv").exists()


def test_an_option_is_no_host(job: TableJob, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="is no host"):
        build_over_ssh(job, "cpu", host="-oProxyCommand=touch", python="python3", out=tmp_path / "t.csv")
