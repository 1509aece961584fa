"""Facts of this machine that artifacts keep: its processor, and the versions of what is installed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path

from ofa_deploy.files.json_text import Json
from ofa_deploy.version import __version__

MEMORY = Path("/proc/meminfo")
"""Where Linux says how much memory there is, and how much is available, in kB."""
SPARE = 0.25
"""The share of the memory that others should find available."""


def memory_is_short() -> bool:
    """Whether less than `SPARE` of this machine's memory is available; False where the system does not say."""
    with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
        lines = (line.partition(":") for line in MEMORY.read_text().splitlines())
        kilobytes = {name: int(value.split()[0]) for name, _, value in lines}
        return kilobytes["MemAvailable"] < SPARE * kilobytes["MemTotal"]
    return False


def this_machine() -> Json:
    """This machine's processor, as far as it decides latency: model, architecture, cores, system."""
    info: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            info[key.strip()] = value.strip()
    words = {"family": "cpu family", "model": "model", "implementer": "CPU implementer", "part": "CPU part"}
    board = ""
    with contextlib.suppress(OSError):  # what boards call themselves, such as "Raspberry Pi 4 Model B Rev 1.4"
        board = Path("/proc/device-tree/model").read_text().strip("\0 \n")
    name = info.get("model name") or board or platform.processor() or "unknown processor"
    numbers = [f"{key} {info[word]}" for key, word in words.items() if word in info]
    return {
        "cpu": " ".join([name, *([f"({', '.join(numbers)})"] if numbers else [])]),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
    }


def made_with() -> Json:
    """Versions and machine, for an artifact's description."""
    packages = (
        "ofa-deploy",
        "torch",
        "numpy",
        "onnx",
        "onnxruntime",
        "ai-edge-litert",
        "ai-edge-quantizer",
        "openvino",
        "scikit-learn",
        "deap",
    )
    versions = {name: installed_version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "packages": {k: v for k, v in versions.items() if v},
        "machine": this_machine(),
    }


@cache
def installed_version(package: str) -> str | None:
    """Installed version of a distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return __version__ if package == "ofa-deploy" else None
