"""Kills at random moments lose nothing, and damage of any kind of file is noticed: a little of benchmarks/faults.py."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
KILLS = 5
RESUMING = ("train", "sample", "build-lut", "search --verify")
"""Commands that nearly always have something on disk by which they go on."""


def faults(out: Path, *options: str) -> None:
    command = [sys.executable, "benchmarks/faults.py", "--out", str(out), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_damage_is_noticed(tmp_path: Path) -> None:
    faults(tmp_path, "--kills=0", "--mutations=25")
    damage = pd.read_csv(tmp_path / "faults_damage.csv")
    assert set(damage.outcome) == {"refused", "harmless"}, damage[~damage.outcome.isin(["refused", "harmless"])]
    assert damage.kind.nunique() >= 13


@pytest.mark.parametrize("name", [*RESUMING, "export", "export --finetune-epochs"])
def test_kills_lose_nothing(name: str, tmp_path: Path) -> None:
    faults(tmp_path, f"--kills={KILLS}", "--in-a-row", "--mutations=0", f"--command={name}", "--images=140")
    kills = pd.read_csv(tmp_path / "faults_kills.csv")
    promises = ["resumed", "ended", "outputs_whole", "nothing_left_over", "identical"]
    assert kills[promises].all(axis=None), kills[~kills[promises].all(axis=1)]
    assert kills.killed.sum() >= KILLS - 2
    assert kills.kept.any() or name not in RESUMING
