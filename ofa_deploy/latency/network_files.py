"""Whole networks as model files, to be measured where nothing of ours runs: in a phone's app, or by a vendor's tool."""

from __future__ import annotations

from pathlib import Path

from ofa_deploy.device.devices import get_device
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.csv_text import csv_text
from ofa_deploy.graphs.formats import format_of
from ofa_deploy.latency.build import TableJob
from ofa_deploy.progress import Progress

LIST = "networks.csv"
"""Name of the list of the files."""


def write_networks(job: TableJob, name: str, *, folder: Path) -> Path:
    """Write a model file of each whole network of a job, and a list of them to fill in.

    Args:
        job: the networks, drawn by its plan's seed; weights are random.
        name: of a device, which says the format.
        folder: for the files.

    Returns:
        the list: a CSV of file, arch, and latency_ms, which is left empty for `regression.fit_file`.

    Raises:
        MeasureError: there is no such device, or its files only serve ofa-deploy.
        ArtifactError: a file cannot be written, or there is such a list already.
    """
    device = get_device(name)
    if device.usage is None:
        raise MeasureError(f"{name} runs no model files; --device cpu writes ONNX, --device tflite TFLite")
    path = folder / LIST
    if path.exists():
        raise ArtifactError(f"{path} is there already, maybe filled in; choose another --out, or remove it")
    outputs.check_folder(path)
    rows = []
    progress = Progress(len(job.networks), "networks")
    for number, arch in enumerate(job.networks, 1):
        file = f"{number:04}{format_of(device).suffix}"
        atomic.write(folder / file, job.model(job.space.walk(arch), device)[0])
        rows.append([file, arch, None])
        progress.add()
    atomic.write(path, csv_text(["file", "arch", "latency_ms"], rows))
    return path
