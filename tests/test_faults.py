"""Kills at random moments lose nothing, and damage of any kind of file is noticed: a little of benchmarks/faults.py."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def test_kills_and_damage(tmp_path: Path) -> None:
    quick = ["train", "sample", "build-lut", "export", "export --finetune-epochs"]
    options = ["--kills", "3", "--mutations", "25", "--out", str(tmp_path), *(f"--command={name}" for name in quick)]
    command = [sys.executable, "benchmarks/faults.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    damage = pd.read_csv(tmp_path / "faults_damage.csv")
    assert set(damage.outcome) == {"refused", "harmless"}, damage[~damage.outcome.isin(["refused", "harmless"])]
    assert damage.kind.nunique() >= 13
    kills = pd.read_csv(tmp_path / "faults_kills.csv")
    promises = ["resumed", "ended", "outputs_whole", "nothing_left_over", "identical"]
    assert kills[promises].all(axis=None), kills[~kills[promises].all(axis=1)]
    assert (kills.groupby("command").killed.sum() >= 2).all()
    assert kills.kept.sum() >= 3
