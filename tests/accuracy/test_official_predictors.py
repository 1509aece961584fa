"""The once-for-all project's accuracy predictors: imported, they say what they said."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ofa_deploy.accuracy.predictors import official_files
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import ArtifactError
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.official import to_ofa
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import Run

RESNET_SIZES = (128, 144, 160, 176, 192, 224, 240, 256)


def one_hot(value: Any, choices: Any) -> list[float]:
    return [float(value == choice) for choice in choices]


def mobile(config: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Kernels and expansions, one-hot, zeros where a block is inactive."""
    active = [i % 4 < config["d"][i // 4] for i in range(20)]
    kernels = [v for k, a in zip(config["ks"], active, strict=True) for v in one_hot(k if a else 0, (3, 5, 7))]
    expands = [v for e, a in zip(config["e"], active, strict=True) for v in one_hot(e if a else 0, (3, 4, 6))]
    return kernels, expands


def tutorial(config: dict[str, Any]) -> list[float]:
    kernels, expands = mobile(config)
    return kernels + expands + one_hot((config["r"][0] - 112) // 16, range(8))


def nas(config: dict[str, Any]) -> list[float]:
    kernels, expands = mobile(config)
    return one_hot(config["r"][0], range(128, 225, 4)) + kernels + expands


def resnet(config: dict[str, Any]) -> list[float]:
    out = one_hot(config["r"][0], RESNET_SIZES) + one_hot(config["d"][0] > 0, (False, True))
    out += [v for w in config["w"] for v in one_hot(w, (0, 1, 2))]
    slot = 0
    for base, extra in zip((2, 2, 4, 2), config["d"][1:], strict=True):
        for i in range(base + 2):
            out += one_hot(config["e"][slot] if i < base + extra else None, (0.2, 0.25, 0.35))
            slot += 1
    return out


def sequential(inputs: int, last_bias: bool) -> nn.Sequential:
    torch.manual_seed(0)
    widths = [inputs, 40, 40, 40]
    hidden = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(40, 1, bias=last_bias))


def nas_state(net: nn.Sequential, base: float) -> dict[str, torch.Tensor]:
    linear = [m for m in net if isinstance(m, nn.Linear)]
    state = {f"layers.{i}.0.{k}": v for i, m in enumerate(linear[:-1]) for k, v in m.state_dict().items()}
    return {**state, "layers.3.weight": linear[-1].weight.detach(), "base_acc": torch.tensor([base])}


def drawn(space: SearchSpace, resolutions: tuple[int, ...] | None = None) -> np.ndarray:
    return space.sample(np.random.default_rng(0), 60, resolutions)


def said(net: nn.Module, encode: Any, space: SearchSpace, genes: np.ndarray, base: float = 0.0) -> np.ndarray:
    x = torch.tensor([encode(to_ofa(space, arch)) for arch in space.archs(genes)])
    with torch.inference_mode():
        return 100 * (net(x)[:, 0].double().numpy() + base)


def test_tutorial_predictor(tmp_path: Path, ofa: Run) -> None:
    space = get_space("mbv3-w1.2")
    net = sequential(128, True)
    torch.save(net.state_dict(), tmp_path / "acc_predictor.pth")
    done = ofa("import-predictor", "acc_predictor.pth")
    assert done.returncode == 0, done.stderr
    genes = drawn(space)
    found = Predictor.load(tmp_path / done.stdout.strip(), space)
    assert found.predict(genes) == pytest.approx(said(net, tutorial, space, genes), abs=1e-4)
    assert found.predict(genes, return_std=True)[0] == pytest.approx(found.predict(genes))
    assert found.predict(genes[:0]).shape == (0,)
    (tmp_path / "a.csv").write_text(f"arch\n{space.extreme(largest=True)}\n")
    row = ofa("predict", "a.csv", "--space", "mbv3-w1.2").stdout.splitlines()[1]
    assert row.endswith(",,"), "it does not say how sure it is"


def test_nas_predictor(tmp_path: Path) -> None:
    space = get_space("mbv3-w1.0")
    net = sequential(145, False)
    torch.save({"state_dict": nas_state(net, 0.75)}, tmp_path / "p.pth")
    official_files.convert(tmp_path / "p.pth", space, tmp_path / "p.safetensors")
    genes = drawn(space)
    found = Predictor.load(tmp_path / "p.safetensors", space).predict(genes)
    assert found == pytest.approx(said(net, nas, space, genes, 0.75), abs=1e-4)


def test_resnet_predictor(tmp_path: Path) -> None:
    space = get_space("resnet50d")
    net = sequential(82, False)
    torch.save(nas_state(net, 0.7), tmp_path / "p.pth")
    official_files.convert(tmp_path / "p.pth", space, tmp_path / "p.safetensors")
    genes = drawn(space, (128, 160, 224, 256))
    found = Predictor.load(tmp_path / "p.safetensors", space).predict(genes)
    assert found == pytest.approx(said(net, resnet, space, genes, 0.7), abs=1e-4)


class _Hostile:
    def __reduce__(self) -> Any:
        return exec, ("open('run', 'w')",)


def test_what_is_no_official_predictor_is_refused(tmp_path: Path, ofa: Run) -> None:
    good = sequential(128, True).state_dict()
    bad = {
        "hostile.pth": (None, "without running code"),
        "other.pth": ({"weight": torch.zeros(2, 2)}, "has the entry 'weight'"),
        "list.pth": ([1, 2], "no dictionary of real tensors"),
        "nan.pth": (good | {"2.weight": torch.full((40, 40), torch.nan)}, "not numbers"),
        "bias.pth": ({k: v for k, v in good.items() if k != "4.bias"}, "no bias of its width"),
        "chain.pth": (good | {"2.weight": torch.zeros(40, 30)}, "do not follow"),
        "narrow.pth": (sequential(100, True).state_dict(), "takes 100 inputs"),
    }
    for name, (content, message) in bad.items():
        if content is None:
            (tmp_path / name).write_bytes(pickle.dumps(_Hostile()))
        else:
            torch.save(content, tmp_path / name)
        with pytest.raises(ArtifactError, match=message):
            official_files.read(tmp_path / name, get_space("mbv3-w1.2"))
    assert not (tmp_path / "run").exists()
    done = ofa("import-predictor", "absent.pth")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot read absent.pth" in done.stderr
