"""Fine-tuning: it learns, goes on where it was killed, and leaves the supernet alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files.json_text import Json
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint, finetuning
from ofa_deploy.supernet.finetuning import RECIPE, finetune
from ofa_deploy.supernet.network import Subnet, Supernet
from ofa_deploy.supernet.recipes import Recipe
from ofa_deploy.supernet.run_state import save_state
from tests.conftest import Run, killed_with, refused, succeeded

SMALL = Arch.parse("r16_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3")
RECIPE_2 = replace(RECIPE.scaled(2), batch=50, seed=3)


def tune(
    net: Supernet, data: Dataset, saved: Path, recipe: Recipe = RECIPE_2, weights_sha256: str = "w"
) -> tuple[Subnet, Json]:
    return finetune(net, SMALL, data=data, recipe=recipe, saved=saved, weights_sha256=weights_sha256)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_and_leaves_the_supernet_alone(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    net, dataset = Supernet(space).initialise(0), replace(dataset, train=dataset.train[:200])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recipe = replace(RECIPE.scaled(10, 40.0), batch=25, erase=0.0, distill=0.0)
    tuned, about = tune(net, dataset, tmp_path / "s.finetune", recipe)
    assert about["heldout_top1_percent"] > about["heldout_top1_percent_before"] + 20
    assert (about["epochs"], about["heldout_images"]) == (10, len(dataset.heldout))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert tuned.arch == SMALL
    assert not tuned.training


def test_stopped_after_an_epoch_it_goes_on_to_the_same_result(
    space: SearchSpace, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    net, saved = Supernet(space).initialise(0), tmp_path / "s.finetune"
    expected, about = tune(net, dataset, tmp_path / "other.finetune")

    def torn(*arguments: Any, **options: Any) -> None:
        save_state(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetuning, "save_state", torn)
        tune(net, dataset, saved)
    _, notes = checkpoint.parse(saved.read_bytes(), saved)
    (row,) = json.loads(notes["ofa_deploy"])["log"]
    assert (row["epoch"], row["phase"]) == (1, "finetune")
    assert row["loss"] > 0
    again, figures = tune(net, dataset, saved)
    assert "resuming after epoch 1, 0 minutes in" in lines
    assert same(again, expected)
    assert figures == about
    other, _ = tune(net, dataset, tmp_path / "third.finetune", replace(RECIPE_2, seed=4))
    assert not same(other, expected)
    with pytest.raises(ArtifactError, match=r"another run \(another recipe\)"):
        tune(net, dataset, saved, replace(RECIPE_2, seed=4))
    with pytest.raises(ArtifactError, match=r"another run \(another weights sha256\)"):
        tune(net, dataset, saved, weights_sha256="v")
    saved.write_bytes(saved.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="damaged"):
        tune(net, dataset, saved)


def test_too_few_images(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    _, about = tune(Supernet(space), dataset, tmp_path / "s", replace(RECIPE, batch=1000))
    assert about["batch"] == len(dataset.train), "few images are one batch"


def test_the_command_goes_on_where_it_was_killed(ofa: Run, tmp_path: Path, images: Path, weights: Path) -> None:
    options = ["export", "--arch", SMALL, "--data", images, "--weights", weights, "--finetune-epochs", 4]
    killed_with([*options, "--out", "m.safetensors"], tmp_path, tmp_path / "m.finetune")
    done = ofa(*options, "--out", "m.safetensors")
    assert succeeded(done) == "m.safetensors\n"
    assert "resuming after epoch" in done.stderr
    succeeded(ofa(*options, "--out", "whole.safetensors"))
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not list(tmp_path.glob("*.finetune"))
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["finetuned"]["epochs"] == 4
    assert "fine-tuned | 4 epochs: top-1 on 70 held-out images" in (tmp_path / "m.md").read_text()


def test_bad_input(ofa: Run) -> None:
    refused(ofa("export", "--family", "f.json", "--finetune-epochs", 1), "--finetune-epochs", "one by one")
