"""Measuring subnetworks: the count is torch's, and a kill loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_deploy.accuracy import measure as measuring
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.data import Dataset
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.families import SPACES
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import recalibrate


def silent(line: str) -> None:
    pass


def test_count_is_that_of_torch(weights: Path, space: SearchSpace, dataset: Dataset) -> None:
    net = checkpoint.load(weights, space)
    for arch in space.archs(space.sample(np.random.default_rng(0), 3)):
        plain = net.subnet(arch)
        recalibrate(plain, dataset.recalibration(arch.resolution))
        with torch.inference_mode():
            guess = plain(dataset.tensor(dataset.heldout.pixels, arch.resolution)).argmax(1).numpy()
        assert measuring.measure(net, arch, dataset) == int((guess == dataset.heldout.labels).sum())


@pytest.fixture
def command(weights: Path, images: Path) -> list[str]:
    options = f"--number 12 --seed 4 --jobs 1 --data {images} --weights {weights}"
    return [sys.executable, "-m", "ofa_deploy", "sample", *options.split(), "--out"]


def test_killed_run_resumes_to_the_same_file(command: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen([*command, "killed.csv"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    partial = tmp_path / "killed.partial"
    while not partial.exists() or partial.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with partial.open("a") as file:
        file.write("11,r16_k3")  # a line torn by the kill
    again = subprocess.run([*command, "killed.csv"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming: " in again.stderr
    two = [word if word != "1" else "2" for word in command]  # two processes measure the same
    subprocess.run([*two, "whole.csv"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_what_lies_there_must_be_of_this_run(weights: Path, images: Path, space: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    out.with_suffix(".partial").write_text('{"another": "run"}\n')
    with pytest.raises(ArtifactError, match="other options"):
        measuring.sample(weights, space, str(images), 3, 0, 1, out, silent)
    with pytest.raises(OfaDeployError, match="at least 1"):
        measuring.sample(weights, space, str(images), 0, 0, 1, out, silent)


def test_more_than_the_space_has(tiny: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES, "tiny", tiny)
    with pytest.raises(OfaDeployError, match="fewer than 801"):
        measuring._draw(tiny, 801, 0)
    assert len(set(measuring._draw(tiny, 800, 0))) == 800


def test_samples_round_trip(space: SearchSpace, tmp_path: Path) -> None:
    genes = space.sample(np.random.default_rng(0), 5)
    Samples(space, genes, np.array([90.01, 91, 92.5, 10, 100.0])).save(tmp_path / "s.csv", {})
    again = Samples.load(tmp_path / "s.csv", space)
    assert (again.genes == genes).all()
    assert again.top1_percent.tolist() == [90.01, 91, 92.5, 10, 100.0]


@pytest.mark.parametrize("percent", [[101.0], [np.nan], [-1.0]])
def test_what_is_no_accuracy_is_refused(space: SearchSpace, tmp_path: Path, percent: list[float]) -> None:
    Samples(space, space.genes([space.extreme(True)]), np.array(percent)).save(tmp_path / "s.csv", {})
    with pytest.raises(ArtifactError, match="outside 0 to 100"):
        Samples.load(tmp_path / "s.csv", space)
