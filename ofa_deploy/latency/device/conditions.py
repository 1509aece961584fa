"""Under which conditions a device measures: its name, runtime, threads, machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ofa_deploy import artifacts
from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.device import onnxruntime, tflite
from ofa_deploy.latency.device.timing import Session

DEVICES = {"cpu": "onnxruntime", "tflite": "tflite"}
"""The runtime behind each friendly device name."""
PACKAGES = {"onnxruntime": ("onnxruntime",), "tflite": ("ai-edge-litert", "tflite-runtime")}
"""The distributions that a runtime may come from; the first one installed is used."""
START: dict[str, Callable[[bytes, int], Session]] = {"onnxruntime": onnxruntime.start, "tflite": tflite.start}
"""How each runtime gets ready: from the content of a model file and a number of threads to a session."""


def conditions(device: str, threads: int) -> dict[str, Any]:
    """The conditions under which this machine measures now.

    Args:
        device: a friendly device name, see `DEVICES`.
        threads: of the runtime.

    Raises:
        MeasureError: no runtime serves that device.
    """
    runtime = runtime_of(device)
    versions = [version for name in PACKAGES[runtime] if (version := artifacts.version(name))]
    return {
        "device": device, "runtime": runtime, "runtime_version": versions[0] if versions else "unknown",
        "threads": threads, "batch": 1, "precision": "fp32", "machine": artifacts.machine(),
    }  # fmt: skip


def elsewhere(device: str, runtime: str, version: str, batch: int = 1) -> dict[str, Any]:
    """The conditions of a table that others have measured, on a device of which nothing more is known."""
    return {
        "device": device, "runtime": runtime, "runtime_version": version, "threads": 1, "batch": batch,
        "precision": "fp32", "machine": {"cpu": "a device that is elsewhere", "cores": 0},
    }  # fmt: skip


def runtime_of(device: str) -> str:
    """The runtime behind a friendly device name.

    Raises:
        MeasureError: there is none.
    """
    if device not in DEVICES:
        raise MeasureError(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    return DEVICES[device]
