"""What several tests share: small images, a small supernet, a made-up table, and the command line."""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from joblib.externals.loky import reusable_executor

from ofa_deploy.accuracy.predictors import fit as fitting
from ofa_deploy.cli import main
from ofa_deploy.data.dataset import Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.data.packing import pack, pack_name
from ofa_deploy.device.conditions import conditions
from ofa_deploy.latency import comparison
from ofa_deploy.latency.comparison import ComparisonPlan
from ofa_deploy.latency.machine_state import Estimate
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.families import get_space, mobilenet_v3
from ofa_deploy.spaces.parts import Stage
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start, as in this one
comparison.DEFAULT_PLAN = ComparisonPlan(rounds=4, pause_seconds=0.02)  # no test is about how good they are
SHARED = Path(__file__).parents[2] / "shared" / "data"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_processes_left() -> Iterator[None]:
    """No test inherits processes that another has started, nor what they have grown to."""
    yield
    if (executor := reusable_executor._executor) is not None:
        executor.shutdown(wait=True, kill_workers=True)


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return get_space("fmnist")


@pytest.fixture(scope="session")
def tiny() -> SearchSpace:
    """A space small enough to be searched whole: 2 * (4 + 16) * (4 + 16) = 800 networks."""
    shape = {"depths": (1, 2), "kernels": (3, 5), "expands": (2, 3)}
    stages = (Stage(8, 2, "relu", False, **shape), Stage(8, 1, "hswish", True, **shape))
    return mobilenet_v3("tiny", (8, 12), 1, 3, stem=8, stages=stages, final=16, feature=16)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `.npz` of 420 grey images in ten classes that can be told apart, and 40 for testing."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("images") / "images.npz"
    patterns = rng.integers(0, 200, (10, 28, 28))
    labels = np.arange(460) % 10
    pixels = (patterns[labels] + rng.integers(0, 56, (460, 28, 28))).astype(np.uint8)
    np.savez(path, images=pixels[:420], labels=labels[:420], test_images=pixels[420:], test_labels=labels[420:])
    return path


@pytest.fixture(scope="session")
def dataset(images: Path, space: SearchSpace) -> Dataset:
    return load_data(str(images), space)


@pytest.fixture(autouse=True, scope="session")
def short_baseline() -> Iterator[None]:
    """What predictors are compared with takes most of the time of fitting them, and no test is about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "PublishedMLP", functools.partial(fitting.PublishedMLP, epochs=3))
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, space: SearchSpace) -> Path:
    """A folder with some of the images that ship, packed."""
    path = tmp_path_factory.mktemp("packed") / pack_name(space)
    shipped = load_data(None, space)
    assert shipped.test is not None
    parts = {"train": shipped.train[:500], "heldout": shipped.heldout[:1000], "test": shipped.test[:500]}
    few = dataclasses.replace(shipped, **parts)
    pack(few, path, space.name)
    return path.parent


@pytest.fixture
def few_images(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder, where they come before those that ship, and no measuring again while the machine is slow.

    For tests of commands, which are about no exact accuracy or latency.
    """
    shutil.copytree(packed, tmp_path / "supernets")
    monkeypatch.setattr(comparison, "DEFAULT_PLAN", dataclasses.replace(comparison.DEFAULT_PLAN, passes=1))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, space: SearchSpace) -> Path:
    """A weight file of an untrained supernet."""
    path = tmp_path_factory.mktemp("weights") / "fmnist.safetensors"
    checkpoint.save(path, Supernet(space).initialise(0), {})
    return path


def made_up_table(space: SearchSpace, resolutions: tuple[int, ...] | None = None) -> LatencyTable:
    """A table in which an operator takes 1 µs and 1 µs for each 10,000 MACs, as if it were of this machine."""
    resolutions = resolutions or space.resolutions
    rows = {op: Estimate(round(1e-3 + op.macs * 1e-7, 6), 1e-3, 1.0, 10) for op in space.all_ops(resolutions)}
    error = {"p95_percent": 2.0, "mape_percent": 1.0, "worst_percent": 3.0, "networks": 8}
    return LatencyTable(space, rows, resolutions, conditions("cpu", 1), error=error)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first, so that no process ends up with them alone."""
    long = ("test_faults.py", "test_api.py", "test_cli.py")
    items.sort(key=lambda item: long.index(item.path.name) if item.path.name in long else len(long))


@pytest.fixture
def ofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `ofa-deploy` in an empty working folder, within this process: starting another takes two seconds."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        words, code = ["ofa-deploy", *map(str, arguments)], 0
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", words)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                torch.set_num_threads(1)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return run


def killed(command: list[str], folder: Path, partial: Path, lines: int) -> None:
    """Run a command in a folder and kill it with -9 once the file `partial` has some lines."""
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    while not partial.exists() or partial.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def killed_with(options: list[object], folder: Path, partial: Path) -> None:
    """Run `ofa-deploy` in a folder and kill it with -9 once the file `partial` is there."""
    killed([sys.executable, "-m", "ofa_deploy", *map(str, options)], folder, partial, 0)


def killed_build(options: list[object], folder: Path, lines: int) -> int:
    """Kill a command that writes `t.csv` once it has visited something; returns how many visits it left."""
    killed([sys.executable, "-m", "ofa_deploy", *map(str, options)], folder, folder / "t.partial", lines)
    assert not (folder / "t.csv").exists()
    return (folder / "t.partial").read_bytes().count(b"\n") - 1


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the package logs during a test, a line each, as it comes."""
    logged: list[str] = []
    handler, root = logging.Handler(), logging.getLogger("ofa_deploy")
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield logged
    root.removeHandler(handler)
    root.setLevel(logging.NOTSET)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command ended with 2 and one line that holds all the words."""
    assert done.returncode == 2, done.stderr + done.stdout
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("ofa-deploy: ")
    for word in words:
        assert word in lines[0]
