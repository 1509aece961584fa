"""Under which conditions a table was measured: device, runtime, threads, batch, precision, machine."""

from __future__ import annotations

from typing import Any

from ofa_deploy.device.devices import PRECISIONS, get_device
from ofa_deploy.errors import MeasureError


def conditions(name: str, threads: int, *, batch: int = 1) -> dict[str, Any]:
    """The conditions under which this machine measures now, as JSON values.

    Args:
        name: of a device, see `devices.DEVICES`.
        threads: of the runtime.
        batch: images a run.

    Raises:
        MeasureError: there is no such device, or the GPU that it needs is not here.
    """
    device = get_device(name)
    return {
        "device": name,
        "runtime": device.runtime,
        "runtime_version": device.version,
        "threads": threads,
        "batch": batch,
        "precision": device.precision,
        "machine": device.machine(),
    }


def conditions_elsewhere(
    name: str, runtime: str, *, version: str, batch: int = 1, precision: str = "fp32"
) -> dict[str, Any]:
    """The conditions of a table that others have measured, on a device of which nothing more is known.

    Args:
        name: that the user gives the device.
        runtime: in words, how the latencies came to be.
        version: of the runtime, or what stands for it.
        batch: images a run.
        precision: one of `devices.PRECISIONS`.

    Raises:
        MeasureError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise MeasureError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    return {
        "device": name,
        "runtime": runtime,
        "runtime_version": version,
        "threads": 1,
        "batch": batch,
        "precision": precision,
        "machine": {"cpu": "a device that is elsewhere", "cores": 0},
    }
