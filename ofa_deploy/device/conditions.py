"""Under which conditions a device measures: its name, runtime, threads, batch, machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ofa_deploy.device import onnxruntime, tflite, torch
from ofa_deploy.device.timing import Session
from ofa_deploy.errors import MeasureError
from ofa_deploy.files.machine import installed_version, this_machine

DEVICES = {
    "cpu": "onnxruntime",
    "tflite": "tflite",
    "torch": "torch",
    "gpu": "torch-cuda",
    "gpu-fp16": "torch-cuda-fp16",
    "ort-cuda": "onnxruntime-cuda",
    "tensorrt": "onnxruntime-tensorrt",
    "cpu-int8": "onnxruntime-int8",
    "tflite-int8": "tflite-int8",
}
"""The runtime behind each friendly device name."""
PRECISIONS = ("fp32", "fp16", "int8")
PACKAGES = {
    "onnxruntime": ("onnxruntime",),
    "tflite": ("ai-edge-litert", "tflite-runtime"),
    "torch": ("torch",),
    "torch-cuda": ("torch",),
    "torch-cuda-fp16": ("torch",),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
    "onnxruntime-tensorrt": ("onnxruntime-gpu",),
    "onnxruntime-int8": ("onnxruntime",),
    "tflite-int8": ("ai-edge-litert", "tflite-runtime"),
}
"""The distributions that a runtime may come from; the first one installed is used."""
START: dict[str, Callable[[bytes, int], Session]] = {
    **onnxruntime.START,
    **torch.START,
    "tflite": tflite.start,
    "onnxruntime-int8": onnxruntime.start,
    "tflite-int8": tflite.start,
}
"""How each runtime gets ready: from the content of a model file and a number of threads to a session."""
GPUS: dict[str, Callable[[], str]] = {
    "torch-cuda": torch.gpu_name,
    "torch-cuda-fp16": torch.gpu_name,
    **onnxruntime.GPUS,
}
"""For each runtime that needs a GPU, what tells its name."""


def conditions(device: str, threads: int, batch: int = 1) -> dict[str, Any]:
    """The conditions under which this machine measures now.

    Args:
        device: a friendly device name, see `DEVICES`.
        threads: of the runtime.
        batch: images a run.

    Raises:
        MeasureError: no runtime serves that device, or the GPU that it needs is not here.
    """
    runtime = runtime_of(device)
    machine = this_machine()
    if runtime in GPUS:
        machine = {**machine, "gpu": GPUS[runtime]()}
    versions = [version for name in PACKAGES[runtime] if (version := installed_version(name))]
    return {
        "device": device,
        "runtime": runtime,
        "runtime_version": versions[0] if versions else "unknown",
        "threads": threads,
        "batch": batch,
        "precision": precision_of(runtime),
        "machine": machine,
    }


def precision_of(runtime: str) -> str:
    """That a runtime computes in."""
    return next((name for name in PRECISIONS if runtime.endswith(name)), PRECISIONS[0])


def elsewhere(device: str, runtime: str, version: str, batch: int = 1, precision: str = "fp32") -> dict[str, Any]:
    """The conditions of a table that others have measured, on a device of which nothing more is known.

    Raises:
        MeasureError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise MeasureError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    return {
        "device": device,
        "runtime": runtime,
        "runtime_version": version,
        "threads": 1,
        "batch": batch,
        "precision": precision,
        "machine": {"cpu": "a device that is elsewhere", "cores": 0},
    }


def with_precision(device: str, precision: str | None) -> str:
    """The name of a device that computes in a precision: `tflite` in `int8` is `tflite-int8`.

    Raises:
        MeasureError: it does not compute in that.
    """
    if precision is None or precision == precision_of(runtime_of(device)):
        return device
    name = f"{device}-{precision}"
    if name not in DEVICES:
        known = sorted(one for one in DEVICES if precision_of(DEVICES[one]) == precision)
        others = f"; with it go {', '.join(known)}" if known else "; choose fp32, fp16 or int8"
        raise MeasureError(f"{device} is not measured in {precision}{others}")
    return name


def runtime_of(device: str) -> str:
    """The runtime behind a friendly device name.

    Raises:
        MeasureError: there is none.
    """
    if device not in DEVICES:
        raise MeasureError(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    return DEVICES[device]
