"""What this machine can do: runtimes, processor, how even its clock is, and which tables are its own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES, Device
from ofa_deploy.device.timing import preempted
from ofa_deploy.errors import MeasureError
from ofa_deploy.files.json_text import Json
from ofa_deploy.files.machine import installed_version, this_machine
from ofa_deploy.latency.table_files import differing
from ofa_deploy.views.inventory import Item, items

LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "deap",
    "safetensors",
    "onnx",
    "flatbuffers",
    "matplotlib",
    "pillow",
    "typer",
)
"""Packages whose versions are told."""
EVEN = 4.0
"""Spread of the CPU time in percent up to which a machine is quiet."""
UNEVEN = 12.0
"""Spread of the CPU time in percent above which a machine is noisy."""
INTERRUPTED = 10.0
"""Percent of the samples that were preempted, above which measuring takes longer."""


def examine(seconds: float = 1.0) -> Json:
    """What there is to know of this machine, as JSON values; what is missing or cannot be read is said, not raised.

    Args:
        seconds: time that the noise of the clock is measured for.
    """
    return {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "bits": 64 if sys.maxsize > 2**32 else 32,
        },
        "machine": {**this_machine(), **processor()},
        "load": load(),
        "clock": clock(seconds),
        "runtimes": {library: _facts(device) for library, device in libraries().items()},
        "extras": extras(),
        "packages": {name: installed_version(name) for name in ("ofa-deploy", *LIBRARIES)},
        "tables": tables(),
    }


def processor() -> Json:
    """Cores that this process may use, their governors, and memory; None where the system does not tell."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _read(Path("/sys/fs/cgroup/cpu.max")).split()
    limited = len(quota) == 2 and all(figure.isdecimal() for figure in quota) and int(quota[1]) > 0
    governors = sorted(
        {_read(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    )
    try:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    return {
        "usable_cores": usable,
        "quota_cores": round(int(quota[0]) / int(quota[1]), 2) if limited else None,
        "governors": governors or None,
        "memory_gb": memory,
    }


def load() -> float | None:
    """Processes that wanted to run over the last minute; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def clock(seconds: float) -> Json:
    """How even this machine runs: a fixed workload of about a millisecond, over and over in one thread.

    Returns:
        `cpu_spread_percent` and `wall_spread_percent`: by how much the slowest tenth is at least slower than the
        fastest sample, in CPU time of the thread and in wall time; `preempted_percent` of the samples; `verdict`.
    """
    walls: list[float] = []
    cpus: list[float] = []
    end = time.perf_counter() + seconds
    while len(walls) < 20 or time.perf_counter() < end:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        sum(i * i for i in range(20_000))
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        walls.append(wall * 1e-6)
        cpus.append(cpu * 1e-6)
    wall_ms, cpu_ms = np.array(walls), np.array(cpus)
    interrupted = 100 * np.mean(preempted(wall_ms, cpu_ms))
    noise = {
        "cpu_spread_percent": _spread(cpu_ms),
        "wall_spread_percent": _spread(wall_ms),
        "preempted_percent": round(float(interrupted), 1),
        "samples": len(walls),
    }
    return {**noise, "verdict": verdict(noise)}


def verdict(noise: Mapping[str, float]) -> str:
    """What the noise of a clock, as `clock` returns it, means for measuring latencies."""
    spread, interrupted = noise["cpu_spread_percent"], noise["preempted_percent"]
    if spread > UNEVEN:
        return (
            "noisy: the processor itself runs faster and slower (other work on it, its frequency, a shared cache); "
            "measure at a quieter time, or with more --rounds"
        )
    if interrupted > INTERRUPTED:
        return "interrupted by other work: such samples are left out, so measuring takes longer"
    return "quiet: good for measuring" if spread <= EVEN else "usable: tables visit everything several times for this"


def extras() -> Json:
    """For each optional extra, the packages it needs and their versions, None for those that are not there."""
    try:
        requirements = importlib.metadata.requires("ofa-deploy") or []
    except importlib.metadata.PackageNotFoundError:  # a plain checkout
        requirements = []
    versions: dict[str, dict[str, str | None]] = {}
    for line in requirements:
        package, extra = re.match(r"[\w.-]+", line), re.search(r"extra\s*==\s*[\"']([^\"']+)[\"']", line)
        if package and extra and extra[1] != "dev":
            versions.setdefault(extra[1], {})[package[0]] = installed_version(package[0])
    return versions


def tables() -> list[Json]:
    """Every latency table as JSON values: whether it is of this machine, and in which conditions it differs."""
    return [_compared(item) for item in items("tables")]


def _compared(table: Item) -> Json:
    differences = _differences(table.record)
    return {
        "space": table.space,
        "device": table.record.get("device"),
        "path": str(table.path),
        "origin": table.origin,
        "of_this_machine": not differences and not table.problem,
        "differs": differences,
    }


def _differences(record: Mapping[str, Any]) -> list[str]:
    """Names of the conditions in which a table, by its JSON, is not this machine's."""
    device, threads = record.get("device"), record.get("threads")
    if not (isinstance(device, str) and device in DEVICES and isinstance(threads, int)):
        return ["device"]
    try:
        here = conditions(device, threads, batch=record.get("batch", 1))
    except MeasureError:  # a GPU that is not here
        return ["machine"]
    return differing(record, here)


def libraries() -> dict[str, Device]:
    """The libraries that run networks, each by a device that uses it."""
    users: dict[str, Device] = {}
    for device in DEVICES.values():
        users.setdefault(device.library, device)
    return users


def _facts(device: Device) -> Json:
    """What the library of a device tells; what went wrong, whatever it was: a broken package is told, not fatal."""
    try:
        return device.facts()
    except Exception as error:
        return {"version": None, "problem": (str(error).splitlines() or [type(error).__name__])[0]}


def _spread(times_ms: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Percent by which the slowest tenth is at least slower than the fastest."""
    return round(float(100 * (np.quantile(times_ms, 0.9) / times_ms.min() - 1)), 2)


def _read(path: Path) -> str:
    """The text of a system file; empty where there is none."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
