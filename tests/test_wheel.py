"""The wheel, in an environment of its own: it holds what it needs, and searches without torch."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VARIABLES = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""Environment variables of the commands, without the folder of this source."""


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def run(*command: Path | str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=VARIABLES)


def test_installed_wheel_searches_from_an_empty_folder(tmp_path: Path) -> None:
    built = pip("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path))
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("ofa_deploy-*.whl")
    assert wheel.stat().st_size < 20e6
    place = tmp_path / "environment"
    venv.create(place, with_pip=False)
    python = str(place / "bin" / "python")
    assert pip("--python", python, "install", "--quiet", "--no-deps", str(wheel)).returncode == 0
    needed = pip("--python", python, "install", "--quiet", "numpy", "deap", "safetensors", "threadpoolctl", "typer")
    if needed.returncode != 0:
        pytest.skip("no package index can be reached to fill the empty environment")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run(place / "bin" / "ofa-deploy", "search", "--latency", "30ms", folder=empty)
    assert done.returncode == 0, done.stderr
    assert "architecture" in done.stdout
    assert list(empty.iterdir()) == []
    for command in ("search --latency 30% --out r.json", "report r.json"):
        done = run(place / "bin" / "ofa-deploy", *command.split(), folder=empty)
        assert done.returncode == 0, done.stderr
    page = (empty / "report.html").read_text()
    assert "random networks" in page
    assert "data:image/png;base64," in page
