"""The wheel, in an environment of its own: it holds what it needs, and searches without torch."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


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
    done = subprocess.run(
        [place / "bin" / "ofa-deploy", "search", "--latency", "30ms"], cwd=empty, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "architecture" in done.stdout
    assert list(empty.iterdir()) == []
    for command in ("search --latency 30% --out r.json", "report r.json"):
        done = subprocess.run(
            [place / "bin" / "ofa-deploy", *command.split()], cwd=empty, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    page = (empty / "report.html").read_text()
    assert "random networks" in page
    assert "data:image/png;base64," in page
