"""Training: it learns, it is seeded, and a kill loses nothing that was finished."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ofa_deploy.accuracy.data import Dataset
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.train import Recipe, train

RECIPE = Recipe(largest_epochs=1, subnet_epochs=2, batch=50, lr=0.02)


def silent(line: str) -> None:
    pass


def run(space: SearchSpace, data: Dataset, path: Path, recipe: Recipe = RECIPE) -> dict[str, torch.Tensor]:
    train(space, data, recipe, path, silent)
    return dict(checkpoint.load(path, space).state_dict())


def test_loss_falls_in_both_phases(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    recipe = Recipe(largest_epochs=3, subnet_epochs=3, batch=50, lr=0.02)
    log = train(space, dataset, recipe, tmp_path / "w.safetensors", silent)["log"]
    assert [row["phase"] for row in log] == ["largest"] * 3 + ["subnets"] * 3
    assert log[2]["loss"] < log[0]["loss"]
    assert log[5]["loss"] < log[3]["loss"]


def test_instalments_give_the_same_weights(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    whole = run(space, dataset, tmp_path / "a.safetensors")
    for stop in (1, 2):  # before there is a teacher, and after
        progress = train(space, dataset, RECIPE, tmp_path / "b.safetensors", silent, stop_after=stop)
        assert progress["epochs"] == stop
    assert not (tmp_path / "b.safetensors").exists()
    parts = run(space, dataset, tmp_path / "b.safetensors")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not list(tmp_path.glob("*.checkpoint"))


def test_killed_run_resumes_to_the_same_weights(space: SearchSpace, images: Path, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        options = f"--largest-epochs 1 --subnet-epochs 1 --batch 50 --threads 1 --data {images} --out {out}"
        return [sys.executable, "-m", "ofa_deploy", "train", *options.split()]

    process = subprocess.Popen(command("killed.safetensors"), cwd=tmp_path, stderr=subprocess.DEVNULL)
    saved = tmp_path / "killed.checkpoint"
    while not saved.exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(command("killed.safetensors"), cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch 1" in again.stderr
    subprocess.run(command("whole.safetensors"), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "killed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_checkpoint_of_another_run_is_refused(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    train(space, dataset, RECIPE, out, silent, stop_after=1)
    with pytest.raises(ArtifactError, match="another run"):
        train(space, dataset, Recipe(1, 2, 50, lr=0.01), out, silent)
    with pytest.raises(ArtifactError, match="another run"):
        train(space, dataclasses.replace(dataset, train=dataset.train[::-1]), RECIPE, out, silent)
    out.with_suffix(".checkpoint").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="damaged"):
        train(space, dataset, RECIPE, out, silent)


def test_diverging_run_says_so(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OfaDeployError, match="lower --lr"):
        train(space, dataset, Recipe(1, 0, 50, lr=1e9), tmp_path / "w.safetensors", silent)


@pytest.mark.parametrize("name", ["w.json", "w.checkpoint", "w"])
def test_output_that_would_be_overwritten_is_refused(
    space: SearchSpace, dataset: Dataset, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ArtifactError, match="must end in .safetensors"):
        train(space, dataset, RECIPE, tmp_path / name, silent)


@pytest.mark.parametrize(
    "wrong", [{"largest_epochs": 0, "subnet_epochs": 0}, {"batch": 1}, {"lr": 0.0}, {"subnets": 0}]
)
def test_recipe_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(OfaDeployError, match="at least|positive"):
        Recipe(**wrong)  # type: ignore[arg-type]
