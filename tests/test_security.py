"""Nothing that a user loads is run, and nothing is written where it was not asked for."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.faults import KINDS
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.bundle import collect, write_bundle
from ofa_deploy.spaces.families import get_space
from tests.conftest import Run, refused


class Hostile:
    """Whoever unpickles this makes the file `owned` in the working folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("owned"),)


def with_torch() -> bytes:
    out = io.BytesIO()
    torch.save({"state_dict": Hostile()}, out)
    return out.getvalue()


def with_numpy() -> bytes:
    out = io.BytesIO()
    np.savez(out, images=np.array([Hostile()], object), labels=np.zeros(1), about=np.array([Hostile()], object))
    return out.getvalue()


HOSTILE = {"pickle": lambda: pickle.dumps(Hostile()), "torch": with_torch, "numpy": with_numpy}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("kind", KINDS)
def test_no_loader_unpickles(
    kind: str, content: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    KINDS[kind].make(folder)
    header = next(iter(folder.glob("t.partial")), None)
    if header is not None:
        header.with_suffix(".header").write_text(header.read_text().split("\n", 1)[0])
    for file in [path for path in folder.iterdir() if path.suffix != ".header"]:
        good = file.read_bytes()
        file.write_bytes(content())
        with pytest.raises(OfaDeployError):
            KINDS[kind].load(folder)
        file.write_bytes(good)
    assert not list(tmp_path.rglob("owned"))


def test_the_hostile_files_are_hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaders: dict[str, Callable[[bytes], Any]] = {
        "pickle": pickle.loads,
        "torch": lambda content: torch.load(io.BytesIO(content), weights_only=False),
        "numpy": lambda content: np.load(io.BytesIO(content), allow_pickle=True)["images"],
    }
    for name, load in loaders.items():
        load(HOSTILE[name]())
        Path("owned").unlink()


def test_yaml_makes_no_objects(ofa: Run, tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text("!!python/object/apply:os.mkdir [owned]\n")
    refused(ofa("lut", "import", "table.yaml", "--space", "mbv3-w1.2", "--device", "phone"), "table.yaml")
    assert not (tmp_path / "owned").exists()


def test_a_bundle_writes_nothing_outside(tmp_path: Path) -> None:
    """Collecting reads the manifest alone; files that lead out of the folder stay in the zip."""
    space, folder = get_space("fmnist"), tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    write_bundle(TableJob(space, (16,), plan=MeasurePlan(rounds=1), blocks=False), "cpu", out=folder / "good.zip")
    with zipfile.ZipFile(folder / "good.zip") as good, zipfile.ZipFile(folder / "bad.zip", "w") as bad:
        for name in good.namelist():
            bad.writestr(f"../../{name}" if name.startswith("models/") else name, good.read(name))
        bad.writestr("/tmp/../../../owned", b"")
    (folder / "bad.results").write_text(json.dumps({"bundle": "another"}) + "\n")
    with pytest.raises(OfaDeployError):
        collect(folder / "bad.zip", folder / "bad.results", out=folder / "t.csv")
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["in/here/bad.results", "in/here/bad.zip", "in/here/good.zip"]
