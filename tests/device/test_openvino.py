"""OpenVINO from a table to a delivered model, by the commands."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.files.machine import installed_version
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.bundle import collect, write_bundle
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import file_name
from ofa_deploy.spaces import families
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import Run, made_up_table, refused, succeeded

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed; pip install openvino")


def test_a_table_of_this_machine_is_built_and_found(ofa: Run) -> None:
    options = ("--device", "openvino", "--threads", 2, "--batch", 2)
    built = json.loads(
        succeeded(ofa("build-lut", *options, "--resolutions", 16, "--rounds", 1, "--networks", 8, "--json"))
    )
    assert built["file"].startswith("lut/fmnist_openvino_2t_b2_")
    table = LatencyTable.load(built["file"])
    assert dict(table.conditions) == conditions("openvino", 2, batch=2)
    assert table.conditions["runtime_version"] == installed_version("openvino")
    found = ofa("search", *options, "--latency", "50%", "--margin", 5, "--generations", 3, "--json")
    assert json.loads(succeeded(found))["inputs"]["table_of_this_machine"] is True


@pytest.mark.usefixtures("few_images")
def test_deploy_delivers_a_measured_onnx_file(ofa: Run, tmp_path: Path) -> None:
    space, measured = get_space("fmnist"), conditions("openvino", 1)
    table = dataclasses.replace(made_up_table(space), conditions=measured)
    table.save(tmp_path / "lut" / file_name(space, measured), {})
    done = ofa("deploy", "--latency", "30%", "--device", "openvino", "--json")
    (row,) = json.loads(done.stdout)
    assert done.returncode == (0 if row["within_budget"] else 3)
    assert row["file"] == "models/fmnist_openvino_30pct.onnx"
    card = json.loads(Path(row["file"]).with_suffix(".json").read_text())
    assert card["format"] == "onnx"
    assert card["measured"]["latency"]["conditions"] == measured
    assert card["agreement_with_torch"]["agreement_percent"] == 100
    assert abs(row["heldout_top1_percent"] - row["predicted_top1_percent"]) < 5
    assert "import openvino" in card["run"]
    lines = "\n".join([*card["run"], "print(logits.shape)"])
    printed = subprocess.check_output([sys.executable, "-c", lines], cwd="models", text=True)
    assert printed.strip() == "(1, 10)"


def test_without_openvino_the_command_says_what_to_install(ofa: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from ofa_deploy.device import openvino as module

    module._core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    for command in (("build-lut", "--resolutions", 16), ("deploy", "--latency", "30%")):
        refused(ofa(*command, "--device", "openvino"), "OpenVINO is not installed; pip install openvino")


def test_a_bundle_runs_openvino(tiny: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families.SPACES, "tiny", tiny)
    job = TableJob(tiny, (8,), plan=MeasurePlan(rounds=1, runs=3, seconds=0.01, networks=6))
    write_bundle(job, "openvino", out=tmp_path / "b.zip")
    done = subprocess.run([sys.executable, "b.zip"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table, _ = collect(tmp_path / "b.zip", tmp_path / "b.results", out=tmp_path / "t.csv")
    assert table.conditions["runtime"] == "openvino"
