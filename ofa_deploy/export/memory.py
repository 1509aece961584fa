"""How much memory a model takes, measured in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ofa_deploy.device.devices import DEVICES
from ofa_deploy.errors import MeasureError

STATUS = Path("/proc/self/status")
"""Where Linux tells how much memory a process has, and has had at most."""
CLEAR = Path("/proc/self/clear_refs")
"""What is written to so that Linux forgets the latter."""
RUNS = 3
"""Runs of the model."""


def measure_memory(content: bytes, device: str, shape: Sequence[int]) -> dict[str, float] | None:
    """The memory of starting a model and running it a few times on one thread.

    Args:
        content: of the model file.
        device: that runs it, by name.
        shape: of its input.

    Returns:
        model_mb: by how much the resident memory grew at most, in 10^6 bytes; process_mb: to how much, with Python,
        numpy and the runtime. None where the system does not tell (it has no /proc).
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model"
        file.write_bytes(content)
        command = [sys.executable, "-m", __name__, str(file), device, json.dumps(list(shape))]
        done = subprocess.run(command, capture_output=True, text=True)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else None


def main() -> None:
    """Print the figures of one model, in the process that `measure_memory` starts."""
    file, name, shape = sys.argv[1:]
    device = DEVICES[name]
    with contextlib.suppress(MeasureError):
        device.session(b"", 1)  # no model, but now the runtime is loaded
    CLEAR.write_text("5")  # the largest resident memory so far is forgotten
    before = _kilobytes("VmRSS")
    session = device.session(Path(file).read_bytes(), 1)
    for _ in range(RUNS):
        session(np.zeros(json.loads(shape), np.float32))
    peak = _kilobytes("VmHWM")
    print(json.dumps({"model_mb": round((peak - before) * 1.024e-3, 2), "process_mb": round(peak * 1.024e-3, 2)}))


def _kilobytes(name: str) -> int:
    """A line of the process's status."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
