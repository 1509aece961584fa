"""The layers of the package, what the search does without, and the length of modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "ofa_deploy").rglob("*.py"))
HEAVY = {"torch", "onnx", "onnxruntime", "sklearn", "pandas", "scipy"}


def test_imports_go_to_lower_layers() -> None:
    """The contracts are in pyproject.toml: layers, and the island that bundles carry to other devices."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_search_needs_neither_torch_nor_runtimes() -> None:
    modules = "ofa_deploy.delivery.requests, ofa_deploy.report.page, ofa_deploy.views.doctor, ofa_deploy.cli"
    code = f"import sys, {modules}; print(sorted({HEAVY!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
