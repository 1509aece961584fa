"""A test that hangs ends the suite with the stacks of all its threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HANGING = """
import threading

def waits_for_ever():
    threading.Event().wait()

def test_that_hangs():
    thread = threading.Thread(target=waits_for_ever, daemon=True)
    thread.start()
    thread.join()
"""


def test_hanging_test_fails_and_prints_all_stacks(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "--override-ini", "faulthandler_timeout=1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--config-file", ROOT / "pyproject.toml", *options, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )
    assert done.returncode == 1
    assert "waits_for_ever" in done.stderr
    assert "test_that_hangs" in done.stderr


def test_suite_has_a_time_out(pytestconfig: pytest.Config) -> None:
    assert 60 <= float(pytestconfig.getini("faulthandler_timeout")) <= 900
    assert pytestconfig.getini("faulthandler_exit_on_timeout")
