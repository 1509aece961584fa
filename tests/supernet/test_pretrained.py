"""Official weight files: named as they were released, exact, and never run."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.spaces.families import get_space
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.pretrained import FILES, convert, file_of, read
from tests.conftest import Run, refused, succeeded
from tests.supernet.test_network import noise, official, trained_norms

OFFICIAL = pytest.mark.parametrize("name", FILES)


def released(name: str, *, legacy: bool) -> dict[str, dict[str, Tensor]]:
    """A file as the official project writes it: its names, in its nesting, from weights of ours."""
    state = trained_norms(Supernet(get_space(name)).initialise(0)).state_dict()
    assert list(state) == list(official(name))
    old = OrderedDict(
        (key.replace(".conv.", ".mobile_inverted_conv.", 1) if legacy and key.startswith("blocks.") else key, value)
        for key, value in state.items()
    )
    return {"state_dict": old}


@OFFICIAL
@pytest.mark.parametrize("legacy", [False, True])
def test_imported_weights_give_the_same_logits(name: str, tmp_path: Path, *, legacy: bool) -> None:
    if legacy and name == "resnet50d":
        pytest.skip("it was released under today's names")
    torch.save(released(name, legacy=legacy), tmp_path / "official")
    path = convert(tmp_path / "official", out=tmp_path / "w.safetensors")
    space = get_space(name)
    net, again = trained_norms(Supernet(space).initialise(0)), checkpoint.load_supernet(path, space)
    arch = space.extreme(largest=False)
    x = noise(2, arch, 3)
    with torch.no_grad():
        assert torch.equal(net(x, arch), again(x, arch))


def test_command_finds_the_space(ofa: Run, tmp_path: Path, space: Any) -> None:
    torch.save(Supernet(get_space("fmnist-7classes")).state_dict(), tmp_path / "w.pth")
    done = ofa("import-weights", "w.pth", "--licence", "MIT")
    assert succeeded(done).strip() == "supernets/fmnist-7classes.safetensors"
    assert checkpoint.provenance(Path("supernets/fmnist-7classes.safetensors"))["licence"] == "MIT"
    refused(ofa("import-weights", "w.pth"), "is there already", "--out")
    refused(ofa("import-weights", "w.pth", "--space", "fmnist"), "of another shape: classifier.linear.weight")
    refused(ofa("import-weights", "w.pth", "--space", "resnet50d"), "missing: input_stem.0.conv.conv.weight", "more")
    refused(ofa("import-weights", "none.pth"), "no file none.pth")
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "w.pth")
    refused(ofa("import-weights", "w.pth"), "none of", "--space")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize("nesting", ["object", "value"])
def test_hostile_pickle_is_not_run(nesting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile() if nesting == "object" else {"state_dict": {"a": Hostile()}}, "w.pth")
    with pytest.raises(ArtifactError, match="could run code"):
        read(Path("w.pth"))
    Path("w.pth").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ArtifactError, match="could run code"):
        read(Path("w.pth"))
    assert not Path("owned").exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = Supernet(get_space("fmnist")).initialise(0).state_dict()
    torch.save(state, path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 50):
        path.write_bytes(whole[:cut])
        with pytest.raises(ArtifactError, match="cannot be loaded"):
            read(path)
    for content in ([1, 2], {"state_dict": [torch.zeros(1)]}, {"state_dict": {"a": 1}}, {1: torch.zeros(1)}):
        torch.save(content, path)
        with pytest.raises(ArtifactError, match="no state dict"):
            read(path)
    odd = [torch.zeros(10).to_sparse(), torch.zeros(10, device="meta"), torch.zeros(10, dtype=torch.complex64)]
    for value in odd:
        torch.save(state | {"classifier.linear.bias": value}, path)
        with pytest.raises(ArtifactError, match=r"classifier\.linear\.bias is not a plain tensor|cannot be loaded"):
            read(path)
    torch.save(state | {"classifier.linear.bias": torch.full((10,), float("nan"))}, path)
    with pytest.raises(ArtifactError, match=r"not finite: classifier\.linear\.bias"):
        convert(path, out=tmp_path / "w.safetensors")
    torch.save({k: v for k, v in state.items() if "blocks.3." not in k}, path)
    with pytest.raises(ArtifactError, match=r"missing: blocks\.3\.conv.* and [0-9]+ more"):
        convert(path, space=get_space("fmnist"), out=tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_list_and_no_network(ofa: Run) -> None:
    listed = succeeded(ofa("weights")).splitlines()
    assert [line.split()[0] for line in listed] == list(FILES)
    assert all("https://" in line for line in listed)
    offline = {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    refused(ofa("weights", "mbv3-w1.0", env=offline), "cannot download", "without a network", "import-weights")
    with pytest.raises(OfaDeployError, match=r"there are for mbv3-w1\.0"):
        file_of("fmnist")
