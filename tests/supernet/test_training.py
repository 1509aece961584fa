"""Training: it learns, it is seeded, and a kill loses nothing that was finished."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import atomic
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.batches import augment, batches
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.processes import Processes, together
from ofa_deploy.supernet.recipes import Phase, Recipe, get_recipe
from ofa_deploy.supernet.training import train_supernet

TEACHER = Phase("teacher", 1, 0.02)
EVERYTHING = Phase("expand", 1, 0.01, kernels=3, depths=3, expands=3, subnets=2)
RECIPE = Recipe((TEACHER, replace(EVERYTHING, epochs=2)), batch=50, erase=0.2)


@pytest.fixture(scope="module")
def learner(tiny: SearchSpace) -> SearchSpace:
    return replace(tiny, classes=10)


def run(space: SearchSpace, data: Dataset, path: Path, recipe: Recipe = RECIPE) -> dict[str, torch.Tensor]:
    train_supernet(space, data, recipe=recipe, out=path)
    return dict(checkpoint.load_supernet(path, space).state_dict())


def test_loss_falls_in_both_phases(learner: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    recipe = Recipe((replace(TEACHER, epochs=5, lr=0.06), replace(EVERYTHING, epochs=3)), batch=50)
    description = train_supernet(learner, dataset, recipe=recipe, out=tmp_path / "w.safetensors")
    log = pd.read_csv(tmp_path / "w_log.csv")
    assert list(log.phase) == ["teacher"] * 5 + ["expand"] * 3
    assert list(log.epoch) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert log.loss[4] < log.loss[0] - 0.03
    assert log.loss[7] < log.loss[5]
    assert description["last_epoch"]["loss"] == log.loss[7]
    assert Recipe.from_json(description["recipe"]) == recipe


def test_instalments_give_the_same_weights(learner: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    whole = run(learner, dataset, tmp_path / "a.safetensors")
    for stop in (1, 2):  # before there is a teacher, and after
        progress = train_supernet(learner, dataset, recipe=RECIPE, out=tmp_path / "b.safetensors", stop_after=stop)
        assert progress["epochs"] == stop
    assert not (tmp_path / "b.safetensors").exists()
    (tmp_path / ".b.checkpoint.k1ll3d00").touch()
    parts = run(learner, dataset, tmp_path / "b.safetensors")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not list(tmp_path.glob("*.checkpoint*"))
    assert not list(tmp_path.glob(".*"))


def test_checkpoint_of_another_run_is_refused(learner: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    train_supernet(learner, dataset, recipe=RECIPE, out=out, stop_after=1)
    with pytest.raises(ArtifactError, match=r"another run \(another recipe\)"):
        train_supernet(learner, dataset, recipe=RECIPE.scaled(lr_factor=0.5), out=out)
    with pytest.raises(ArtifactError, match=r"another run \(another images sha256\)"):
        train_supernet(learner, dataclasses.replace(dataset, train=dataset.train[::-1]), recipe=RECIPE, out=out)
    out.with_suffix(".checkpoint").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="damaged"):
        train_supernet(learner, dataset, recipe=RECIPE, out=out)


def test_weights_that_are_there_are_not_replaced(
    learner: SearchSpace, dataset: Dataset, tmp_path: Path, lines: list[str]
) -> None:
    """Repeating what was finished does nothing; another recipe or other images need another place."""
    out = tmp_path / "w.safetensors"
    recipe = Recipe((TEACHER,), 50)
    made, before = train_supernet(learner, dataset, recipe=recipe, out=out), sorted(tmp_path.iterdir())
    content = [path.read_bytes() for path in before]
    assert train_supernet(learner, dataset, recipe=recipe, out=out)["sha256"] == made["sha256"]
    assert "is there already, made like this" in lines[-1]
    backwards = replace(dataset, train=dataset.train[::-1])
    for what, space, images, other, licence in (
        ("recipe", learner, dataset, replace(recipe, seed=1), None),
        ("training images", learner, replace(dataset, train=dataset.train[:100]), recipe, None),
        ("images sha256", learner, backwards, recipe, None),
        ("space", replace(learner, name="another"), dataset, recipe, None),
        ("licence", learner, dataset, recipe, "MIT"),
    ):
        with pytest.raises(ArtifactError, match=rf"made otherwise \(.*{what}.*\); remove it"):
            train_supernet(space, images, recipe=other, out=out, licence=licence)
    assert sorted(tmp_path.iterdir()) == before
    assert [path.read_bytes() for path in before] == content


def test_second_run_on_the_same_output_is_refused(learner: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    with atomic.locked(out), pytest.raises(ArtifactError, match="another run is writing"):
        train_supernet(learner, dataset, recipe=RECIPE, out=out)
    assert train_supernet(learner, dataset, recipe=RECIPE, out=out, stop_after=1)["epochs"] == 1


def test_diverging_run_says_so(learner: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OfaDeployError, match=r"diverged in epoch 1.*--lr-factor"):
        train_supernet(learner, dataset, recipe=Recipe((replace(TEACHER, lr=1e9),), 50), out=tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.json", "w.checkpoint", "w"])
def test_output_that_would_be_overwritten_is_refused(
    learner: SearchSpace, dataset: Dataset, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ArtifactError, match="must end in .safetensors"):
        train_supernet(learner, dataset, recipe=RECIPE, out=tmp_path / name)


TOGETHER = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from ofa_deploy.data.loading import load_data
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.parts import Layer, Stage
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import training as module
from ofa_deploy.supernet.processes import together
from ofa_deploy.supernet.recipes import get_recipe

torch.set_num_threads(1)
states, train_epoch = [], module.train_epoch
module.train_epoch = lambda state, *arguments: states.append(state) or train_epoch(state, *arguments)
space = SPACE
data = load_data(sys.argv[1], get_space("fmnist"))
recipe = replace(get_recipe("short").scaled(12), batch=100)
with together() as p:
    def train(name, stop=None):
        module.train_supernet(space, data, recipe=recipe, out=Path(name), stop_after=stop, processes=p)
    train("whole.safetensors")
    torch.save(dict(states[0].net.named_parameters()), f"rank{p.rank}.pt")
    train("halves.safetensors", 6)
    torch.distributed.barrier()
    train("halves.safetensors")
    torch.distributed.barrier()
    train("halves.safetensors")  # nothing is left to do, for any of them
    train("apart.safetensors", 1)
    torch.distributed.barrier()
    try:
        train("apart.safetensors" if p.rank == 0 else "elsewhere.safetensors")
    except OfaDeployError as error:
        Path(f"error{p.rank}").write_text(str(error))
    try:
        module.train_supernet(space, data, recipe=replace(recipe, batch=101), out=Path("odd.safetensors"), processes=p)
    except OfaDeployError as error:
        Path(f"odd{p.rank}").write_text(str(error))
"""


def test_two_processes_have_the_same_weights_learn_and_resume(
    learner: SearchSpace, images: Path, tmp_path: Path
) -> None:
    script = tmp_path / "both.py"
    script.write_text(TOGETHER.replace("SPACE", repr(learner)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script), str(images)]
    done = subprocess.run(
        torchrun, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = checkpoint.load_supernet(tmp_path / "whole.safetensors", learner)
    assert all(torch.equal(first[name], p) for name, p in saved.named_parameters())
    start = Supernet(learner).initialise(0)
    assert all(not torch.equal(first[name], p) for name, p in start.named_parameters() if p.ndim == 4)
    log = pd.read_csv(tmp_path / "whole_log.csv")
    assert log.loss[log.phase == "teacher"].iloc[-1] < log.loss[0]
    assert (tmp_path / "whole.safetensors").read_bytes() == (tmp_path / "halves.safetensors").read_bytes()
    for rank in (0, 1):
        assert "different states (1, 0)" in (tmp_path / f"error{rank}").read_text()
        assert "101 cannot be shared by 2 processes" in (tmp_path / f"odd{rank}").read_text()


def test_world_size_without_torchrun_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OfaDeployError, match="RANK, .* not set: start with torchrun"), together():
        pass


def test_bf16_and_sandwich_run(learner: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    plain = run(learner, dataset, tmp_path / "a.safetensors")
    for name, change in {"b": {"precision": "bf16"}, "c": {"sandwich": True}}.items():
        other = run(learner, dataset, tmp_path / f"{name}.safetensors", replace(RECIPE, **change))
        assert not torch.equal(plain["classifier.linear.weight"], other["classifier.linear.weight"])


# -- recipes


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 1}, {"phases": ()}, {"precision": "fp8"}, {"erase": 2.0}, {"smoothing": 1.0}, {"distill": -1.0}],
)
def test_recipe_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(OfaDeployError, match="at least|precision|share"):
        replace(RECIPE, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"subnets": 0}, {"warmup": -1}])
def test_phase_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(OfaDeployError, match="phase teacher"):
        replace(TEACHER, **wrong)  # type: ignore[arg-type]


def test_imagenet_recipe_is_the_papers() -> None:
    space = get_space("mbv3-w1.0")
    recipe = get_recipe("imagenet")
    assert [p.epochs for p in recipe.phases] == [180, 120, 25, 120, 25, 120]
    assert [p.subnets for p in recipe.phases] == [1, 1, 2, 2, 4, 4]
    allowed = [p.subspace_of(space) for p in recipe.phases]
    assert [part.kernels for part in allowed] == [(7,)] + [(3, 5, 7)] * 5
    assert [part.stages[0].depths for part in allowed] == [(4,), (4,), (3, 4), (2, 3, 4), (2, 3, 4), (2, 3, 4)]
    assert [part.expands for part in allowed] == [(6,), (6,), (6,), (6,), (4, 6), (3, 4, 6)]
    resnet = [p.subspace_of(get_space("resnet50d")).widths[-1] for p in recipe.phases]
    assert resnet == [(2048,)] * 4 + [(1640, 2048), (1328, 1640, 2048)]
    assert recipe.phase_at(179) == (0, 179)
    assert recipe.phase_at(180) == (1, 0)
    assert recipe.phase_at(589) == (5, 119)
    assert recipe.teacher_epochs == 180
    assert Recipe((EVERYTHING,)).teacher_epochs is None


def test_scaled_recipe_keeps_every_phase() -> None:
    recipe = get_recipe("short")
    assert recipe.scaled() == recipe
    for epochs in (6, 7, 12, 40, recipe.epochs, 100):
        assert recipe.scaled(epochs).epochs == epochs
        assert min(phase.epochs for phase in recipe.scaled(epochs).phases) >= 1
    assert [p.epochs for p in recipe.scaled(2 * recipe.epochs).phases] == [2 * p.epochs for p in recipe.phases]
    with pytest.raises(OfaDeployError, match="at least 6 epochs"):
        recipe.scaled(5)
    with pytest.raises(OfaDeployError, match="positive, not 0"):
        recipe.scaled(lr_factor=0)
    with pytest.raises(OfaDeployError, match="choose one of short, imagenet"):
        get_recipe("long")


# -- batches


def test_processes_share_a_batch(dataset: Dataset) -> None:
    device, options = torch.device("cpu"), {"batch": 100, "erase": 0.0, "seed": (3,)}
    parts = [list(batches(dataset, **options, processes=Processes(rank, 2, device))) for rank in (0, 1)]
    whole = list(batches(dataset, **options, processes=Processes(0, 1, device)))
    for (_, labels), (_, first), (_, second) in zip(whole, *parts, strict=True):
        assert len(first) == len(second) == 50
        assert torch.equal(labels[::2], first)
        assert torch.equal(labels[1::2], second)


def test_augmentation_shifts_flips_and_erases() -> None:
    pixels = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    pixels[:, :, 10, 5] = 255
    rng = np.random.default_rng(0)
    moved = augment(pixels, (0.2,), erase=0.0, rng=rng)
    assert moved.shape == pixels.shape
    assert moved.dtype == torch.uint8
    where = moved[:, 0].nonzero()
    assert len(where) == 400  # nothing is lost two pixels from an edge
    assert set(where[:, 1].tolist()) == {8, 9, 10, 11, 12}
    assert set(where[:, 2].tolist()) == {3, 4, 5, 6, 7, 20, 21, 22, 23, 24}
    erased = augment(torch.full_like(pixels, 255), (0.2,), erase=0.5, rng=rng)[:, 0, 2:-2, 2:-2] == round(0.2 * 255)
    share = erased.flatten(1).any(1).float().mean()
    assert 0.4 < share < 0.6
    assert erased.flatten(1).sum(1).max() <= 14 * 14
