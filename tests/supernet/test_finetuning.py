"""Fine-tuning: it learns, goes on where it was killed, and leaves the supernet alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import ArtifactError
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import finetuning as tuning
from ofa_deploy.supernet.finetuning import RECIPE, finetune
from ofa_deploy.supernet.network import Supernet
from tests.conftest import Run, killed_with, refused, succeeded

SMALL = Arch.parse("r16_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3")
RECIPE_2 = replace(RECIPE.scaled(2), batch=50, seed=3)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_and_leaves_the_supernet_alone(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    net, dataset = Supernet(space).initialise(0), replace(dataset, train=dataset.train[:200])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recipe = replace(RECIPE.scaled(10, 40.0), batch=25, erase=0.0, distill=0.0)
    tuned, about = finetune(net, SMALL, dataset, recipe, tmp_path / "s.finetune", "")
    assert about["heldout_top1_percent"] > about["heldout_top1_percent_before"] + 20
    assert (about["epochs"], about["heldout_images"]) == (10, len(dataset.heldout))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert tuned.arch == SMALL
    assert not tuned.training


def test_stopped_after_an_epoch_it_goes_on_to_the_same_result(
    space: SearchSpace, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    net, saved = Supernet(space).initialise(0), tmp_path / "s.finetune"
    expected, about = finetune(net, SMALL, dataset, RECIPE_2, tmp_path / "other.finetune", "w")
    write = tuning._save

    def torn(*args: object) -> None:
        write(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuning, "_save", torn)
        finetune(net, SMALL, dataset, RECIPE_2, saved, "w")
    again, figures = finetune(net, SMALL, dataset, RECIPE_2, saved, "w")
    assert "resuming after epoch 1 of fine-tuning" in lines
    assert same(again, expected)
    assert figures == about
    other, _ = finetune(net, SMALL, dataset, replace(RECIPE_2, seed=4), tmp_path / "third.finetune", "w")
    assert not same(other, expected)
    with pytest.raises(ArtifactError, match="another run"):
        finetune(net, SMALL, dataset, replace(RECIPE_2, seed=4), saved, "w")
    saved.write_bytes(saved.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="damaged"):
        finetune(net, SMALL, dataset, RECIPE_2, saved, "w")


def test_too_few_images(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    _, about = finetune(Supernet(space), SMALL, dataset, replace(RECIPE, batch=1000), tmp_path / "s", "")
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
