"""Whole networks as model files, to be measured where nothing of ours runs: in a phone's app, or by a vendor's tool."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ofa_deploy.device.conditions import runtime_of
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.graphs.runtimes import RUNTIMES
from ofa_deploy.latency.build import TableJob
from ofa_deploy.progress import Progress

LIST = "networks.csv"


def write_networks(job: TableJob, device: str, folder: Path) -> Path:
    """Write a model file of each whole network of a job, and a list of them to fill in.

    Args:
        job: the networks, drawn by its plan's seed; weights are random.
        device: a friendly device name, which says the format; see `device.conditions.DEVICES`.
        folder: for the files.

    Returns:
        the list: a CSV of file, arch, and latency_ms, which is left empty for `fitted.fit_file`.

    Raises:
        MeasureError: no runtime serves that device, or it takes no files.
        ArtifactError: a file cannot be written, or there is such a list already.
    """
    runtime = runtime_of(device)
    if RUNTIMES[runtime].suffix not in (".onnx", ".tflite"):
        raise MeasureError(f"{device} runs no model files; --device cpu writes ONNX, --device tflite TFLite")
    path = folder / LIST
    if path.exists():
        raise ArtifactError(f"{path} is there already, maybe filled in; choose another --out, or remove it")
    outputs.check_folder(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "arch", "latency_ms"])
    progress = Progress(len(job.networks), "networks")
    for number, arch in enumerate(job.networks, 1):
        name = f"{number:04}{RUNTIMES[runtime].suffix}"
        atomic.write(folder / name, job.model(job.space.walk(arch), runtime)[0])
        writer.writerow([name, arch, ""])
        progress.add()
    atomic.write(path, text.getvalue())
    return path
