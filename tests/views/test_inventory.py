"""What there is: `list` and `lut show`; what this machine can do: `doctor`."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.files.json_text import Json
from ofa_deploy.files.machine import installed_version
from ofa_deploy.spaces.families import get_space
from ofa_deploy.views import doctor, inventory
from tests.conftest import Run, made_up_table, refused, succeeded


def test_what_ships_and_what_is_here(ofa: Run) -> None:
    made_up_table(get_space("fmnist")).save(Path("lut/mine.csv"), {})
    inventory_json = json.loads(succeeded(ofa("list", "--json")))
    assert list(inventory_json) == ["spaces", "supernets", "samples", "predictors", "tables"]
    assert {item["space"] for item in inventory_json["spaces"]} >= {"fmnist", "mbv3-w1.0", "resnet50d"}
    mine, *others = inventory_json["tables"]
    assert (mine["path"], mine["origin"], mine["space"], mine["error"]["mape_percent"]) == (
        "lut/mine.csv",
        "here",
        "fmnist",
        1.0,
    )
    assert {item["origin"] for item in others} == {"shipped"}
    assert [item["model"] for item in inventory_json["predictors"] if item["space"] == "fmnist"] == ["gp"]
    assert [item["number"] for item in inventory_json["samples"]] == [16000, 1000]
    assert all(Path(item["path"]).is_file() for kind in list(inventory_json)[1:] for item in inventory_json[kind])
    shown = succeeded(ofa("list"))
    assert all(item["path"] in shown for kind in list(inventory_json)[1:] for item in inventory_json[kind])
    assert "2.2e+19" in shown
    assert json.loads(succeeded(ofa("lut", "show", "--json"))) == inventory_json["tables"]


def test_damaged_artifacts_are_named_and_the_others_listed(ofa: Run) -> None:
    made_up_table(get_space("fmnist")).save(Path("lut/torn.csv"), {})
    Path("lut/torn.csv").write_text("torn")
    Path("lut/half.json").write_text('{"kind": "latency-tab')
    Path("lut/notes.json").write_text("{}")
    Path("supernets").mkdir()
    record = {"kind": "supernet", "space": "fmnist", "schema": 1, "file": "../gone.safetensors", "sha256": "0"}
    Path("supernets/gone.json").write_text(json.dumps(record))
    listed = json.loads(succeeded(ofa("list", "--json")))
    problems = {
        Path(item["path"]).name: item["problem"] for kind in listed for item in listed[kind] if "problem" in item
    }
    assert "checksum" in problems.pop("torn.csv")
    assert "is not JSON" in problems.pop("half.json")
    assert "cannot read supernets/gone.safetensors" in problems.pop("gone.safetensors"), "not of a folder above"
    assert problems == {}
    for command in ("list", "lut show"):
        shown = succeeded(ofa(*command.split()))
        assert "lut/torn.csv is damaged" in shown
        assert shown.count("shipped") >= 4, "the others are listed"
        assert "notes" not in shown


def test_numbers_of_networks() -> None:
    assert inventory.networks(get_space("fmnist")) == (9**2 + 9**3 + 9**4) ** 5 == 7371**5
    assert inventory.networks(get_space("proxyless-w1.3")) == 9 * 7371**5


def test_doctor(ofa: Run) -> None:
    made_up_table(get_space("fmnist")).save(Path("lut/mine.csv"), {})
    findings = json.loads(succeeded(ofa("doctor", "--json")))
    assert findings["runtimes"]["onnxruntime"]["providers"]
    assert findings["runtimes"]["torch"]["version"] == torch.__version__
    assert findings["packages"]["numpy"] == installed_version("numpy")
    assert 1 <= findings["machine"]["usable_cores"] <= findings["machine"]["cores"]
    assert findings["clock"]["samples"] >= 20
    assert 0 <= findings["clock"]["preempted_percent"] <= 100
    mine = findings["tables"][0]
    assert (mine["path"], mine["of_this_machine"], mine["differs"]) == ("lut/mine.csv", True, [])
    shown = succeeded(ofa("doctor"))
    assert "lut/mine.csv: of this machine" in shown
    theirs = sum(not table["of_this_machine"] for table in findings["tables"])
    assert theirs == 0 or f"{theirs} that ship are of another machine" in shown
    assert findings["clock"]["verdict"].split(":")[0].split()[0] in ("quiet", "usable", "noisy", "interrupted")


def test_doctor_says_in_what_a_table_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = made_up_table(get_space("fmnist"))
    table.save(Path("lut/a.csv"), {})
    record = json.loads(Path("lut/a.json").read_text())
    for name, change in {"a": {"threads": 3}, "b": {"runtime_version": "0.1"}, "c": {"device": "pi"}}.items():
        Path(f"lut/{name}.csv").write_bytes(Path("lut/a.csv").read_bytes())
        Path(f"lut/{name}.json").write_text(json.dumps({**record, "file": f"{name}.csv", **change}))
    differences = {
        Path(compared["path"]).name: compared["differs"] for compared in doctor.tables() if compared["origin"] == "here"
    }
    assert differences == {"a.csv": [], "b.csv": ["runtime_version"], "c.csv": ["device"]}
    assert conditions("cpu", 3)["threads"] == 3


@pytest.mark.parametrize("module", ["onnxruntime", "torch", "ai_edge_litert.interpreter"])
def test_doctor_survives_what_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    runtimes = doctor.examine(0)["runtimes"]
    name = {"ai_edge_litert.interpreter": "LiteRT"}.get(module, module)
    assert runtimes[name]["version"] is None
    assert runtimes[name]["problem"]

    def broken() -> Json:
        raise OSError("libcuda.so: wrong ELF class\nmore")

    monkeypatch.setitem(DEVICES, "torch", dataclasses.replace(DEVICES["torch"], probe=broken))
    assert doctor.examine(0)["runtimes"]["torch"]["problem"] == "libcuda.so: wrong ELF class"


@pytest.mark.parametrize(
    ("spread", "preempted", "word"), [(1, 0, "quiet"), (8, 0, "usable"), (30, 0, "noisy"), (1, 50, "interrupted")]
)
def test_what_noise_means(spread: float, preempted: float, word: str) -> None:
    assert doctor.verdict({"cpu_spread_percent": spread, "preempted_percent": preempted}).startswith(word)


def test_each_command_has_an_example(ofa: Run) -> None:
    for command in ("report", "list", "doctor"):
        assert f"Example: ofa-deploy {command}" in succeeded(ofa(command, "--help"))


def test_report_refuses(ofa: Run) -> None:
    made_up_table(get_space("fmnist")).save(Path("t.csv"), {})
    refused(ofa("report", "t.json"), "t.json is not a search result")
    refused(ofa("report", "t.json", "--out", "x.pdf"), "must end in .html")
    assert not Path("report.html").exists()
