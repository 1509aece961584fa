"""Every command, run as a user runs it."""

import dataclasses
import functools
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import typer

from ofa_deploy.accuracy.predictors import kinds
from ofa_deploy.accuracy.predictors.concave import Concave
from ofa_deploy.accuracy.predictors.mlp import MLP
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.cli import app
from ofa_deploy.data.loading import load_data
from ofa_deploy.delivery import measuring, searches
from ofa_deploy.device import rounds, tflite
from ofa_deploy.device.conditions import conditions
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.latency import table_files as tables
from ofa_deploy.progress import telling
from ofa_deploy.search.result import load_results
from ofa_deploy.spaces.families import get_space
from tests.conftest import Run, made_up_table, refused, succeeded

ROOT = Path(__file__).parents[1]
LED = ("search", "export", "report", "list", "doctor")
SMALL = "r16_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3"


def test_search_works_as_typed_in_an_empty_folder(ofa: Run) -> None:
    done = ofa("search", "--latency", "30ms")
    out = succeeded(done)
    assert "predicted top-1" in out
    assert "30 ms" in out
    assert re.search(r"architecture +r(16|20|24|28)_k", out)
    if done.stderr:
        assert "not this machine's table" in done.stderr
        assert "ofa-deploy build-lut --device cpu --space fmnist" in done.stderr


@pytest.mark.usefixtures("few_images")
def test_search_result_feeds_export(ofa: Run, tmp_path: Path) -> None:
    result = json.loads(succeeded(ofa("search", "--latency", "20%", "--generations", 5, "--out", "r.json", "--json")))
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert isinstance(result["inputs"]["table_of_this_machine"], bool)
    out = succeeded(ofa("export", "--result", "r.json", "--out", "m.onnx"))
    assert out.strip() == "m.onnx"
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["arch"] == result["arch"]
    assert card["predicted"]["limits"][0]["predicted"] == result["limits"][0]["predicted"]
    assert card["agreement_with_torch"]["max_difference"] < 1e-4
    assert card["agreement_with_torch"]["agreement_percent"] == 100
    model = onnx.load(tmp_path / "m.onnx")
    assert {p.key: p.value for p in model.metadata_props}["arch"] == result["arch"]
    size = card["input"]["shape"][2]
    data = load_data(None, get_space("fmnist"))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    x = data.tensor(data.heldout.pixels[:100], size).numpy()
    right = [session.run(None, {"image": image[None]})[0].argmax() for image in x] == data.heldout.labels[:100]
    assert np.mean(right) > 0.7


@pytest.mark.usefixtures("few_images")
def test_tflite_from_a_table_to_a_model(ofa: Run, tmp_path: Path) -> None:
    built = json.loads(succeeded(ofa("build-lut", "--device", "tflite", "--resolutions", 16, "--rounds", 1, "--json")))
    assert built["file"].startswith("lut/fmnist_tflite_1t_")
    done = ofa("search", "--device", "tflite", "--latency", "50%", "--margin", 5, "--generations", 3, "--out", "r.json")
    succeeded(done)
    assert "not this machine's table" not in done.stderr
    succeeded(ofa("export", "--result", "r.json", "--out", "m.tflite"))
    card = json.loads((tmp_path / "m.json").read_text())
    assert (card["format"], card["input"]["layout"], card["input"]["shape"]) == ("tflite", "NHWC", [1, 16, 16, 1])
    assert card["agreement_with_torch"]["agreement_percent"] == 100
    data = load_data(None, get_space("fmnist"))
    session = tflite.start((tmp_path / "m.tflite").read_bytes(), 1)
    x = data.tensor(data.heldout.pixels[:100], 16).numpy()
    right = [session(image[None].transpose(0, 2, 3, 1).copy()).argmax() for image in x] == data.heldout.labels[:100]
    assert np.mean(right) > 0.7


@pytest.mark.usefixtures("few_images")
def test_search_verifies_on_this_machine(ofa: Run, tmp_path: Path) -> None:
    """With a made-up table of this machine, which the measured candidates correct."""
    space = get_space("fmnist")
    table = made_up_table(space, (16,))
    table.save(tmp_path / "lut" / tables.file_name(space, conditions("cpu", 1)), {})
    done = ofa("search", "--latency", "40%", "--verify", 1, "--json", "--generations", 5)
    result = json.loads(done.stdout)
    verified = result["verified"]
    assert done.returncode == (0 if verified["within_budget"] else 3)
    candidate = next(row for row in verified["candidates"] if row["arch"] == result["arch"])
    assert candidate["measured_ms"] == verified["measured_ms"] > 0
    assert 80 < candidate["measured_top1_percent"] < 95
    assert verified["within_budget"] == (verified["measured_ms"] <= verified["budget_ms"])
    assert result["limits"][0]["upper"] == verified["budget_ms"]


@pytest.mark.usefixtures("few_images")
def test_deploy_measures_what_it_delivers(ofa: Run, tmp_path: Path) -> None:
    """With a made-up table of this machine in lut/: it is used, and the delivered file is measured all the same."""
    space = get_space("fmnist")
    table = tables.file_name(space, conditions("cpu", 1))
    made_up_table(space).save(tmp_path / "lut" / table, {})
    done = ofa("deploy", "--latency", "10%", "--latency", "30%", "--out", "models", "--report", "page.html", "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == (0 if all(row["within_budget"] for row in rows) else 3)
    assert f"using lut/{table}" in done.stderr
    assert [row["budget"] for row in rows] == ["10%", "30%"]
    for row in rows:
        card = json.loads(Path(row["file"]).with_suffix(".json").read_text())
        assert card["measured"]["test"]["images"] == 500
        assert card["measured"]["latency"]["runs"] >= 30
        assert card["sha256"] == atomic.sha256(Path(row["file"]))
        assert abs(row["heldout_top1_percent"] - row["predicted_top1_percent"]) < 5
        assert row["measured_ms"] > 0
    assert rows[0]["macs"] < rows[1]["macs"]
    results = load_results(tmp_path / "models" / "fmnist_results.json")
    page = (tmp_path / "page.html").read_text()
    for row, result in zip(rows, results, strict=True):
        assert result.verified is not None
        assert [str(result.arch), result.verified.measured_ms] == [row["arch"], row["measured_ms"]]
        assert row["arch"] in page
    assert "Predicted and measured" in page


@pytest.mark.usefixtures("few_images")
def test_deploy_searches_again_where_a_file_takes_too_long(ofa: Run, tmp_path: Path) -> None:
    """With a table that takes this machine for ten times as fast as it is."""
    space = get_space("fmnist")
    table = dataclasses.replace(made_up_table(space), scale=0.1)
    table.save(tmp_path / "lut" / tables.file_name(space, conditions("cpu", 1)), {})
    done = ofa("deploy", "--latency", "0.1ms", "--json")
    [row] = json.loads(done.stdout)
    assert done.returncode == (0 if row["within_budget"] else 3)
    first, *more = [line for line in done.stderr.splitlines() if "exporting" in line]
    assert more, "it searched again"
    assert row["arch"] in more[-1]
    assert row["arch"] not in first
    assert "0.1 ms allowed; searching again" in done.stderr
    assert row["margin_percent"] > 100
    assert row["budget_ms"] == 0.1
    assert row["within_budget"] == (row["measured_ms"] <= 0.1)
    card = json.loads((tmp_path / "models" / "fmnist_0.1ms.json").read_text())
    assert card["arch"] == row["arch"]
    assert [str(result.arch) for result in load_results(tmp_path / "models" / "fmnist_results.json")] == [row["arch"]]


@pytest.mark.usefixtures("few_images")
def test_models_for_another_device_have_names_of_their_own(ofa: Run, tmp_path: Path) -> None:
    """So that they do not clash with those for `cpu`, of the test above, in one folder."""
    space, measured = get_space("fmnist"), conditions("tflite", 1)
    table = dataclasses.replace(made_up_table(space), conditions=measured)
    table.save(tmp_path / "lut" / tables.file_name(space, measured), {})
    assert ofa("deploy", "--latency", "5%", "--device", "tflite").returncode in (0, 3)
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert names == {f"fmnist_tflite_{end}" for end in ("5pct.tflite", "5pct.json", "5pct.md", "results.json")}


@pytest.mark.usefixtures("few_images")
def test_deploy_builds_a_table_and_ends_with_the_figures(
    ofa: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "MeasurePlan", functools.partial(rounds.MeasurePlan, rounds=2, runs=5))  # of 16 and 20
    done = ofa("deploy", "--latency", "20%")
    out = done.stdout
    assert done.returncode == (3 if "NO" in out else 0)
    assert "building lut/fmnist_cpu_1t_" in done.stderr
    assert "whole networks, each by a calibration that had not seen it" in done.stderr
    header, row = out.splitlines()[1:3]
    assert header.split() == [
        "budget",
        "predicted",
        "measured",
        "kept",
        "predicted",
        "held-out",
        "test",
        "MACs",
        "size",
        "file",
    ]
    assert row.split()[-1] == "fmnist_20pct.onnx"
    assert (tmp_path / "models" / "fmnist_20pct.onnx").exists()
    assert len(list((tmp_path / "lut").iterdir())) == 2


def test_build_lut_for_the_imagenet_space_then_search_it(ofa: Run) -> None:
    built = json.loads(
        succeeded(ofa("build-lut", "--space", "mbv3-w1.0", "--resolutions", 128, "--rounds", 1, "--json"))
    )
    assert built["operators"] == len(get_space("mbv3-w1.0").all_ops([128]))
    search = ["search", "--latency", "50%", "--margin", 5, "--space", "mbv3-w1.0", "--generations", 3, "--json"]
    result = json.loads(succeeded(ofa(*search)))
    assert 60 < result["score"] < 78, "the shipped predictor says ImageNet top-1 in percent"
    done = ofa(*search, "--objective", "macs", env={"OFA_DEPLOY_SPACE": "fmnist"})
    result = json.loads(succeeded(done))
    assert done.stderr.startswith("note: that table has 1 of the 25 resolutions of mbv3-w1.0 (128)")
    assert result["inputs"]["table_of_this_machine"] is True
    assert result["arch"].startswith("r128_")
    assert result["score"] == pytest.approx(result["macs"] / 1e6, abs=1e-3)


def test_own_images_from_training_to_a_model(
    ofa: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kinds.RECIPES, "concave", functools.partial(Concave, steps=100))  # of 3,000
    monkeypatch.setitem(kinds.RECIPES, "mlp", functools.partial(MLP, steps=100))
    with np.load(images) as some:
        np.savez(tmp_path / "few.npz", images=some["images"][:150], labels=some["labels"][:150])
    images_option = ["--data", "few.npz"]
    options = ["--epochs", 6, "--batch", 50, "--threads", 1, "--licence", "CC0-1.0", "--json"]
    trained = json.loads(succeeded(ofa("train", *images_option, *options)))
    assert (trained["file"], trained["last_epoch"]["epoch"]) == ("supernets/fmnist.safetensors", 6)
    succeeded(ofa("sample", *images_option, "--number", 24))
    fitted = json.loads(succeeded(ofa("fit-predictor", "--json")))
    assert fitted["error"]["fitted"] == 24
    assert {"ridge", "gp", "concave", "mlp", "published recipe"} < set(fitted["models"])
    assert set(fitted["model"].split("+")) <= set(fitted["models"])
    succeeded(ofa("search", "--latency", "50%", "--generations", 3))
    succeeded(ofa("export", *images_option, "--arch", SMALL))
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*") if p.is_file()}
    assert names == {
        "few.npz",
        "supernets/fmnist.safetensors",
        "supernets/fmnist.json",
        "supernets/fmnist_log.csv",
        "predictors/fmnist_samples.csv",
        "predictors/fmnist_samples.json",
        "predictors/fmnist.safetensors",
        "predictors/fmnist.json",
        "predictors/fmnist.png",
        "fmnist.onnx",
        "fmnist.json",
        "fmnist.md",
    }
    assert json.loads((tmp_path / "fmnist.json").read_text())["licences"]["weights"] == "CC0-1.0"
    record = json.loads((tmp_path / "supernets/fmnist.json").read_text())
    assert [phase["epochs"] for phase in record["recipe"]["phases"]] == [1] * 6
    assert len((tmp_path / "supernets/fmnist_log.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--recipe long", "short, imagenet"),
        ("--epochs 3", "at least 6"),
        ("--batch 0", "at least 2"),
        ("--precision fp8", "bf16"),
        ("--lr-factor -1", "positive"),
        ("--batch 5000", "350 training images"),
    ],
)
def test_train_refuses(ofa: Run, images: Path, tmp_path: Path, options: str, words: str) -> None:
    refused(ofa("train", "--data", images, *options.split()), words)
    assert not list(tmp_path.iterdir())


def test_bundle_says_as_json_what_to_type_there(ofa: Run) -> None:
    answer = json.loads(succeeded(ofa("lut", "bundle", "--networks", 5, "--resolutions", 16, "--json")))
    assert answer == {"file": "fmnist_cpu.zip", "graphs": 5, "command": "python3 fmnist_cpu.zip"}
    assert Path("fmnist_cpu.zip").exists()


def test_pack_data(ofa: Run, images: Path, tmp_path: Path) -> None:
    succeeded(ofa("pack-data", "--data", images, "--out", "p.npz"))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as packed:
        assert packed["heldout_images"].shape == (70, 1, 28, 28)
        assert len(packed["test_labels"]) == 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("deploy", ["--latency", "ofa-deploy deploy --help"]),
        ("search --latency 30ms --seed=-1", ["--seed", "ofa-deploy search --help"]),
        ("build-lut --rounds 0", ["--rounds"]),
        ("build-lut --round 3", ["--round", "--rounds"]),
        ("lut collect one.zip", ["results", "see ofa-deploy lut collect --help"]),
        ("fly", ["fly", "ofa-deploy --help"]),
    ],
)
def test_misuse_is_one_line_and_2(ofa: Run, arguments: str, words: list[str]) -> None:
    refused(ofa(*arguments.split()), *words)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ("train --epochs 6 --batch 70 --threads 1 --data {images} --out s.safetensors", "s.safetensors"),
        ("sample --number 4 --jobs 1 --data {images} --weights {weights} --out s.csv", "s.csv"),
        ("build-lut --resolutions 16 --rounds 1 --out t.csv", "t.csv"),
        (
            f"export --arch {SMALL} --finetune-epochs 1 --data {{images}} --weights {{weights}} --out f.onnx",
            "f.finetune",
        ),
    ],
    ids=["train", "sample", "build-lut", "export"],
)
def test_two_runs_on_one_output_refuse_each_other(
    ofa: Run, images: Path, weights: Path, tmp_path: Path, arguments: str, output: str
) -> None:
    with atomic.locked(tmp_path / output):
        refused(ofa(*arguments.format(images=images, weights=weights).split()), f"another run is writing {output}")
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_verbose_shows_where_an_error_comes_from(ofa: Run) -> None:
    done = ofa("-v", "search", "--latency", "1us")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ofa-deploy: no network of fmnist fits")


def test_without_arguments_it_shows_its_help(ofa: Run) -> None:
    done = ofa()
    assert done.returncode == 2
    assert "build-lut" in done.stdout + done.stderr


def test_every_command_has_an_example_and_completes(ofa: Run) -> None:
    top = re.findall(r"^  ([a-z][a-z-]+)  ", succeeded(ofa("--help")), re.MULTILINE)
    tables = re.findall(r"^  ([a-z][a-z-]+)  ", succeeded(ofa("lut", "--help")), re.MULTILINE)
    assert len(top) > 12
    assert len(tables) == 6
    for path in [[name] for name in top if name != "lut"] + [["lut", name] for name in tables]:
        assert f"Example: ofa-deploy {' '.join(path)}" in " ".join(succeeded(ofa(*path, "--help")).split())
    words = {"COMP_WORDS": "ofa-deploy b", "COMP_CWORD": "1", "_OFA_DEPLOY_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", "from ofa_deploy.cli import main; main()"]
    assert subprocess.run(command, capture_output=True, text=True, env=os.environ | words).stdout.strip() == "build-lut"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("search --latency 30", ["needs a unit", "30ms"]),
        ("search --latency 30ms --seconds 0", ["--seconds must be above 0, not 0"]),
        ("search --latency 30ms --seconds nan", ["--seconds must be above 0, not nan"]),
        ("search --latency 30ms --seconds soon", ["--seconds", "valid number"]),
        ("search --latency 30ms --evaluations 0", ["--evaluations must be at least 1, not 0"]),
        ("search --latency 30ms --generations 0", ["--generations must be at least 1, not 0"]),
        ("search --latency 30ms --space resnet", ["unknown space 'resnet'", "fmnist"]),
        ("search --latency 1us", ["the fastest", "r16_"]),
        ("search --latency 30ms --objective speed", ["accuracy, macs"]),
        ("search --latency 30ms --lut gone.csv", ["cannot read gone.csv"]),
        ("search --latency 30ms --device fridge", ["unknown device 'fridge'"]),
        ("search --latency 30ms --space mbv3-w1.2", ["build-lut --device cpu --space mbv3-w1.2"]),
        ("search --latency 30ms --generations 2 --out lut.txt/x/r.json", ["cannot write"]),
        ("search --latency 30ms --margin 200", ["--margin"]),
        ("search", ["needs a limit", "--macs 300M"]),
        ("search --macs 300ms", ["unknown unit"]),
        ("search --macs 1k", ["the smallest", "allow at least that"]),
        ("search --latency 1ms --latency 2ms", ["2 latencies do not go with 1 table", "--each"]),
        ("search --latency 30% --certify", ["only the optimum of a concave predictor", "--model concave"]),
        ("search --macs 3M --verify 2", ["--verify goes with one --latency"]),
        ("search --latency 30ms --out front.csv", ["--front"]),
        ("search --again gone.json", ["cannot read gone.json"]),
        ("search --front --each --latency 1ms --latency 2ms --out f.csv", ["only the front of one search"]),
        ("search --macs 3M --threads 2", ["--threads is about latency"]),
        ("search --latency 30ms --weights w.safetensors", ["--weights goes with --verify or --refine"]),
        ("search --latency 30ms --lut t.csv --threads 2", ["--threads is what a --lut already says"]),
        ("search --latency 30ms --risk -1", ["--risk must be between 0 and"]),
        ("predict list.csv --out list.csv", ["would overwrite the list list.csv"]),
        ("pack-data --data mine.npz --out mine.npz", ["would overwrite the images mine.npz"]),
        ("search --latency 30ms --lut .", ["is no file"]),
        ("build-lut --out lut.json", ["must end in .csv"]),
        ("sample --out .", ["must end in .csv"]),
        ("fit-predictor --out p.csv", ["must end in .safetensors"]),
        ("deploy --latency 30", ["needs a unit"]),
        ("export", ["just one of --arch TEXT, --result FILE, --config FILE and --family"]),
        ("export --arch nonsense", ["not an architecture"]),
        (f"export --arch {SMALL} --out model.pb", ["must end in .onnx or .tflite"]),
        (f"export --arch {SMALL.replace('r16', 'r17')}", ["resolution 17"]),
        (f"export --arch {SMALL} --weights gone.safetensors", ["cannot read gone.safetensors"]),
        (f"export --arch {SMALL} --data gone", ["no images at gone"]),
        (f"export --arch {SMALL} --data empty", ["0 class folders"]),
        ("train --data empty", ["0 class folders"]),
        ("sample --number 0", ["at least 1"]),
        ("sample --space mbv3-w1.0", ["ofa-deploy weights mbv3-w1.0"]),
        ("sample --space fmnist-3classes", ["ofa-deploy train --space fmnist-3classes"]),
        ("fit-predictor --space mbv3-w1.0", ["ofa-deploy sample --space mbv3-w1.0"]),
        ("fit-predictor --samples lut.txt", ["lut.txt has no rows"]),
        ("fit-predictor --samples gone.csv", ["cannot read gone.csv"]),
        ("fit-predictor --model forest", ["unknown model 'forest'", "auto, ridge"]),
        ("predict gone.csv", ["cannot read gone.csv"]),
        ("predict lut.txt --space mbv3-w1.2", ["ofa-deploy fit-predictor --space mbv3-w1.2"]),
        ("build-lut --resolutions 16,x", ["--resolutions wants whole numbers"]),
        ("build-lut --resolutions 17", ["resolution 17"]),
        ("build-lut --out lut.txt/x.csv", ["cannot write"]),
        ("deploy --latency 1us --out models", ["the fastest"]),
        ("report gone.json", ["cannot read gone.json"]),
        ("report lut.txt", ["lut.txt is damaged: it is not JSON"]),
        ("report lut.txt --out page.pdf", ["must end in .html"]),
        ("report gone.json --out lut.txt/x.html", ["cannot write"]),
    ],
)
def test_bad_input_is_one_line_and_2(ofa: Run, tmp_path: Path, arguments: str, words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "lut.txt").touch()
    if arguments.startswith("deploy"):
        space = get_space("fmnist")
        path = tmp_path / "lut" / tables.file_name(space, conditions("cpu", 1))
        made_up_table(space).save(path, {})
    before = sorted(tmp_path.rglob("*"))
    done = ofa(*arguments.split())
    if "using lut/" in done.stderr:
        done.stderr = done.stderr.split("\n", 1)[1]  # the line that names the table
    if "not this machine's table" in done.stderr:
        done.stderr = done.stderr.split("\n", 1)[1]
    refused(done, *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_there_is_not_overwritten(ofa: Run, tmp_path: Path) -> None:
    """A card lies beside its model, and a table's JSON beside it: not in the place of something else."""
    search = ("search", "--latency", "30%", "--population", 8, "--generations", 2, "--out", "mine.json")
    succeeded(ofa(*search))
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "lut").mkdir()
    (tmp_path / "card.json").write_text('{"file": "m.onnx"}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused(ofa(*search[:-1], "card.json"), "card.json describes m.onnx and would be overwritten")
    refused(ofa("export", "--result", "mine.json", "--out", "mine.onnx"), "mine.json does not belong to mine.onnx")
    refused(ofa("export", "--result", "mine.json", "--out", "README.onnx"), "README.md is not a card of README.onnx")
    refused(ofa("build-lut", "--out", "mine.csv"), "mine.json does not belong to mine.csv")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "fmnist_1.json").write_text("{}")
    before[tmp_path / "models" / "fmnist_1.json"] = b"{}"
    refused(ofa("export", "--family", "mine.json"), "models/fmnist_1.json does not belong to models/fmnist_1.onnx")
    (tmp_path / "models" / "fmnist_10pct.json").write_text("{}")
    before[tmp_path / "models" / "fmnist_10pct.json"] = b"{}"
    refused(ofa("deploy", "--latency", "10%"), "fmnist_10pct.json does not belong to models/fmnist_10pct.onnx")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--out r.csv", "only the front of one search is written as CSV"),
        ("--out folder.json", "is a folder"),
        ("--out plain", "must end in .json or .csv"),
        ("--verify 3 --refine 2", "two searches"),
        ("--verify 3 --margin 2", "leave out --margin"),
        ("--certify-seconds 5", "goes with --certify"),
        ("--objective macs --risk 1", "--risk is about accuracy"),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_once(
    ofa: Run, tmp_path: Path, options: str, words: str
) -> None:
    (tmp_path / "folder.json").mkdir()
    refused(ofa("search", "--latency", "30%", *options.split()), words)


def test_damaged_table_is_named(ofa: Run, tmp_path: Path) -> None:
    made_up_table(get_space("fmnist")).save(tmp_path / "t.csv", {})
    (tmp_path / "t.csv").write_text("torn")
    refused(ofa("search", "--latency", "30ms", "--lut", "t.csv"), "t.csv is damaged")
    made_up_table(get_space("mbv3-w1.0"), (128,)).save(tmp_path / "t.csv", {})
    done = ofa("search", "--latency", "30ms", "--lut", "t.csv", "--space", "fmnist")
    refused(done, "of the space mbv3-w1.0, not of fmnist")
    refused(ofa("search", "--latency", "30ms", "--lut", "t.json"), "t.json describes t.csv; name that one")
    (tmp_path / "mine.csv").write_text("a,b\n")
    refused(ofa("search", "--latency", "30ms", "--lut", "mine.csv"), "mine.csv has no mine.json beside it")


@pytest.mark.usefixtures("few_images")
def test_a_user_is_told_what_makes_a_search_worth_less(ofa: Run, tmp_path: Path) -> None:
    """A table that is far off or has few resolutions, a predictor that predicts nothing, a budget without effect."""
    space = get_space("fmnist")
    off = {"networks": 36, "mape_percent": 9.0, "p95_percent": 28.0, "worst_percent": 40.0, "spearman": 0.9}
    dataclasses.replace(made_up_table(space, (16, 28)), error=off).save(tmp_path / "t.csv", {})
    weak = dataclasses.replace(Predictor.load(artifacts.shipped("predictors") / "fmnist.safetensors", space), error={})
    dataclasses.replace(weak, error={"kendall_tau": 0.1}).save(tmp_path / "p.safetensors", {})
    quick = ("--population", 8, "--generations", 2)
    done = ofa("search", "--latency", "1s", "--lut", "t.csv", "--predictor", "p.safetensors", *quick)
    succeeded(done)
    for words in (
        "off by 28 % or more",
        "2 of the 4 resolutions",
        "this budget excludes none",
        "Kendall's tau 0.10",
    ):
        assert words in done.stderr
    made_up_table(space).save(tmp_path / "t.csv", {})
    assert "note:" not in succeeded(ofa("search", "--latency", "30%", "--lut", "t.csv", "--margin", 0, *quick))


@pytest.mark.usefixtures("few_images")
def test_a_promise_that_is_not_kept_has_an_exit_code_of_its_own(
    ofa: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = get_space("fmnist")
    made_up_table(space, (16,)).save(tmp_path / "lut" / tables.file_name(space, conditions("cpu", 1)), {})

    def slow(sessions: Mapping[str, Any], *_: Any, **__: Any) -> tuple[dict[str, Any], float]:
        return {name: {"latency_ms": 9.0, "spread_percent": 1.0} for name in sessions}, 0.0

    monkeypatch.setattr(measuring, "beside_table", slow)
    options = ("search", "--latency", "40%", "--objective", "macs", "--verify", 1, "--generations", 2, "--json")
    done = ofa(*options)
    assert done.returncode == 3
    assert json.loads(done.stdout)["verified"]["within_budget"] is False
    assert "NO: no measured network" in ofa(*options[:-1]).stdout
    each = ofa(*options[:-1], "--latency", "60%", "--each")
    assert each.returncode == 3
    assert [row.split().count("NO") for row in each.stdout.splitlines()[1:]] == [1, 1]


def test_a_search_that_is_interrupted_says_how_to_go_on(ofa: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "search_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    done = ofa("search", "--latency", "30%")
    assert done.returncode == 130
    assert done.stderr == "ofa-deploy: interrupted; repeat the command: what left a .partial goes on from there\n"


def test_the_space_is_that_of_the_files_that_are_named(ofa: Run, tmp_path: Path) -> None:
    made_up_table(get_space("mbv3-w1.0"), (128,)).save(tmp_path / "t.csv", {})
    search = ("search", "--latency", "30%", "--lut", "t.csv", "--population", 8, "--generations", 2, "--out", "r.json")
    succeeded(ofa(*search))
    assert load_results(tmp_path / "r.json")[0].space == "mbv3-w1.0"
    scored = succeeded(ofa("predict", "r.json", "--lut", "t.csv"))
    assert scored.splitlines()[1].startswith(str(load_results(tmp_path / "r.json")[0].arch))
    refused(ofa("export", "--result", "r.json"), "no supernets/mbv3-w1.0.safetensors", "ofa-deploy weights mbv3-w1.0")


@pytest.mark.parametrize("options", ["", "--front", "--each --latency 40%"])
def test_a_search_says_what_ended_it(ofa: Run, tmp_path: Path, options: str) -> None:
    search = ("search", "--latency", "30%", "--margin", 5, "--out", "r.json", *options.split())
    for rule, value, words in (("seconds", "0.01", "0.01"), ("evaluations", "2000", "2000")):
        printed = succeeded(ofa(*search, f"--{rule}", value))
        if "--each" not in options:
            assert re.search(rf"searched +\d+ architectures, ended by --{rule} {words}\n", printed)
        for result in load_results(tmp_path / "r.json"):
            assert result.stopped_by == rule
            assert all(limit.predicted <= limit.upper for limit in result.limits)


def test_a_repeated_search_finds_the_table_of_then(ofa: Run, tmp_path: Path) -> None:
    """Made with the table that ships, and repeated when this machine has one of its own."""
    quick = ("search", "--latency", "30%", "--population", 8, "--generations", 2, "--out", "r.json")
    succeeded(ofa(*quick))
    space = get_space("fmnist")
    made_up_table(space).save(tmp_path / "lut" / tables.file_name(space, conditions("cpu", 1)), {})
    before = json.loads((tmp_path / "r.json").read_text())
    again = json.loads(succeeded(ofa("search", "--again", "r.json", "--json")))
    for key in ("arch", "score", "limits", "inputs"):
        assert again[key] == before[key]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(*pages: Path) -> list[str]:
    blocks = [b for page in pages for b in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)]
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.startswith("ofa-deploy")]


def test_every_command_of_the_documents_is_understood(ofa: Run) -> None:
    """Each is parsed as it would be, with its values; those that take minutes are run by other tests."""
    listed = commands_of(*PAGES)
    commands = set(re.findall(r"^  ([a-z][a-z-]+)  ", succeeded(ofa("--help")), re.MULTILINE))
    assert {shlex.split(line, comments=True)[1] for line in listed} == commands
    root = typer.main.get_command(app)
    for line in listed:
        _, *words = shlex.split(line, comments=True)
        command: Any = root
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)  # raises on an unknown option, a value of another type, a lack


def test_every_page_that_is_pointed_to_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).is_file(), f"{page.name}: {target}"
    entrances = "".join((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
    named = set(re.findall(r"\]\(docs/([a-z-]+\.md)\)", entrances))
    assert named == {page.name for page in PAGES[1:]}


@pytest.mark.usefixtures("few_images")
def test_quick_commands_of_the_documents_run_as_typed(ofa: Run) -> None:
    pages = [ROOT / "README.md", ROOT / "docs" / "search.md", ROOT / "docs" / "export.md"]
    quick = [line for line in commands_of(*pages) if line.split()[1] in LED]
    elsewhere = ("mbv3", "--lut", "--verify", "--refine", "--certify", "--device", "pt2")  # other tests run these
    ran = [line for line in quick if not any(word in line for word in elsewhere)]
    assert len(ran) >= 8
    for line in ran:
        succeeded(ofa(*shlex.split(line, comments=True)[1:]))


def test_predictor_of_other_weights_is_refused(ofa: Run, weights: Path) -> None:
    refused(ofa("deploy", "--latency", "30%", "--weights", weights), "other weights", "ofa-deploy sample")


def test_a_line_is_printed_once_whatever_handlers_a_library_gives_the_root_logger(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime's quantisation calls `logging.warning`, which gives it one."""
    handler = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    with telling():
        logging.getLogger("ofa_deploy.export").info("written")
    assert capsys.readouterr().err == "written\n"
    logging.getLogger("ofa_deploy.export").warning("heard by who listens")
    assert capsys.readouterr().err == "heard by who listens\n"


def test_version() -> None:
    command = [sys.executable, "-m", "ofa_deploy", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "ofa-deploy 0.1.0\n"
