"""The command: names of files, all or nothing, bad input in one line."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import MeasureError
from ofa_deploy.export import run
from ofa_deploy.export.formats import output_files
from ofa_deploy.files import atomic
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from tests.conftest import Run, refused, succeeded
from tests.spaces.test_arch_lists import net_config

SMALL = "r16_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3"


def test_several_formats_at_once(ofa: Run, tmp_path: Path) -> None:
    done = ofa("export", "--arch", SMALL, "--format", "onnx,onnx-int8,safetensors")
    assert succeeded(done).split() == ["fmnist_onnx.onnx", "fmnist_onnx-int8.onnx", "fmnist_safetensors.safetensors"]
    assert "top-1 " in done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    stems = ("fmnist_onnx", "fmnist_onnx-int8", "fmnist_safetensors")
    assert names == {f"{stem}{end}" for stem in stems for end in (".json", ".md")} | set(succeeded(done).split())
    cards = {stem: json.loads((tmp_path / f"{stem}.json").read_text()) for stem in stems}
    assert cards["fmnist_onnx"]["agreement_with_torch"]["max_difference"] < 1e-4
    assert cards["fmnist_onnx-int8"]["accuracy"]["images"] == 2000
    assert cards["fmnist_onnx"]["measured"]["memory"]["model_mb"] > 0
    at = cards["fmnist_onnx-int8"]["measured"]["latency"]["conditions"]
    assert (at["runtime"], at["precision"], at["threads"]) == ("onnxruntime-int8", "int8", 1)
    assert cards["fmnist_safetensors"]["measured"] == {}
    assert cards["fmnist_onnx"]["licences"]["weights"].startswith("MIT")
    assert checkpoint.load_subnet(tmp_path / "fmnist_safetensors.safetensors").arch.resolution == 16


@pytest.mark.parametrize(
    ("formats", "out", "files"),
    [
        (None, None, {"onnx": "s.onnx"}),
        (None, "m.tflite", {"tflite": "m.tflite"}),
        (None, "m.pt2", {"pt2": "m.pt2"}),
        ("tflite-int8", "m.tflite", {"tflite-int8": "m.tflite"}),
        ("onnx-int8", None, {"onnx-int8": "s_onnx-int8.onnx"}),
        ("pt2, onnx,pt2", "a.b", {"pt2": "a.b_pt2.pt2", "onnx": "a.b_onnx.onnx"}),
    ],
)
def test_names(
    formats: str | None, out: str | None, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = output_files(formats, Path(out) if out else None, space="s")
    assert {name: str(path) for name, path in found.items()} == files


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--format onnx,tfjs", ["unknown format 'tfjs'", "onnx-int8, tflite, tflite-int8, pt2, pte, safetensors"]),
        ("--out m.bin", ["must end in .onnx or .tflite or .pt2 or .pte or .safetensors"]),
        ("--format tflite --out m.onnx", ["must end in .tflite"]),
        ("--out folder.onnx", ["folder.onnx is a folder"]),
        ("--format onnx --out folder.onnx", ["folder.onnx is a folder"]),
        ("--format onnx,pt2 --out folder.onnx", ["is a folder", "begin with"]),
        ("--format onnx,pt2 --out m.onnx", ["is one file", "begin with"]),
        ("--format onnx-int8 --max-drop=-1", ["--max-drop"]),
        ("--recalibration 3", ["at least 32 images, not 3"]),
    ],
)
def test_bad_input(ofa: Run, tmp_path: Path, arguments: str, words: list[str]) -> None:
    (tmp_path / "folder.onnx").mkdir()
    refused(ofa("export", "--arch", SMALL, *arguments.split()), *words)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder.onnx"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (f"--config net.json --arch {SMALL}", ["just one of --arch TEXT, --result FILE, --config FILE and --family"]),
        ("--config net.json", ["net.json: it does not say the resolution", "--resolution"]),
        ("--config net.json --resolution 17", ["net.json", "17"]),
        ("--config none.json", ["cannot read none.json"]),
        (f"--arch {SMALL} --resolution 16", ["--resolution goes with --config"]),
    ],
)
def test_bad_configurations(ofa: Run, tmp_path: Path, space: SearchSpace, arguments: str, words: list[str]) -> None:
    (tmp_path / "net.json").write_text(json.dumps(net_config(space, Arch.parse(SMALL))))
    refused(ofa("export", *arguments.split()), *words)


def test_an_official_configuration(ofa: Run, tmp_path: Path, space: SearchSpace) -> None:
    (tmp_path / "net.json").write_text(json.dumps(net_config(space, Arch.parse(SMALL))))
    few = ("--resolution", 16, "--out", "m.safetensors", "--recalibration", 300)
    succeeded(ofa("export", "--config", "net.json", *few))
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["arch"] == SMALL
    assert card["recalibrated_on"].startswith("300 training images")


def test_int8_that_loses_too_much_writes_nothing(
    space: SearchSpace, images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drop: dict[str, Any] = {"images": 70, "drop_points": 2.25, "top1_percent": 8.0, "interval95_points": 1.0}
    monkeypatch.setattr(run, "accuracy_drop", lambda *_: drop)
    source = run.NetworkSource(SMALL)
    files = partial(run.export_files, space, source, data=str(images), weights=weights, formats="onnx,onnx-int8")
    with pytest.raises(MeasureError, match=r"loses 2\.25 points .* 70 held-out .* --max-drop 3 would"):
        files()
    assert not list(tmp_path.iterdir())
    cards = files(settings=run.ExportSettings(max_drop=2.5))
    assert [card["format"] for card in cards.values()] == ["onnx", "onnx-int8"]
    assert [path.exists() for path in cards] == [True, True]
    assert cards[Path("fmnist_onnx-int8.onnx")]["licences"] == {"data": "the user's own", "weights": "not stated"}
    assert atomic.read(Path("fmnist_onnx.md")).startswith(b"# fmnist_onnx.onnx")
