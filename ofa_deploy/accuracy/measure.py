"""Measuring the accuracy of subnetworks on the held-out images.

Each subnetwork is cut out, its batch norms are recalibrated on 2,000 training images, and it is run through the graph
that export writes, by onnxruntime.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from ofa_deploy import artifacts
from ofa_deploy import data as data_sets
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.arch import Arch
from ofa_deploy.data import Dataset, Images
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.families import get_space
from ofa_deploy.graphs import onnx as graphs
from ofa_deploy.latency.runtimes import Session, onnxruntime
from ofa_deploy.progress import Progress, Report
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Subnet, Supernet, folded, recalibrate

BATCH = 100


def specialise(net: Supernet, arch: Arch, data: Dataset) -> Subnet:
    """A subnetwork whose batch norms are recalibrated on training images at its resolution."""
    plain = net.subnet(arch)
    with torch.inference_mode():
        recalibrate(plain, data.recalibration(arch.resolution))
    return plain


def count_correct(session: Session, data: Dataset, images: Images, resolution: int, batch: int) -> int:
    """How many images a session classifies correctly.

    Args:
        session: takes (batch, channels, resolution, resolution), gives logits (batch, classes).
        data: what normalises the images.
        images: which ones.
        resolution: in pixels.
        batch: that the session is fixed to; the last one is filled up with zeros.
    """
    correct = 0
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        x = np.zeros((batch, part.pixels.shape[1], resolution, resolution), np.float32)
        x[: len(part)] = data.tensor(part.pixels, resolution).numpy()
        correct += int((session(x)[: len(part)].argmax(1) == part.labels).sum())
    return correct


def measure(net: Supernet, arch: Arch, data: Dataset) -> int:
    """How many held-out images the subnetwork `arch` classifies correctly."""
    graph = graphs.emit(net.space.walk(arch), folded(specialise(net, arch, data)), BATCH)
    session = onnxruntime.session(graph.SerializeToString(), 1)
    return count_correct(session, data, data.heldout, arch.resolution, BATCH)


def sample(
    weights: Path, space: SearchSpace, data: str | None, number: int, seed: int, jobs: int, out: Path, report: Report
) -> Samples:
    """Measure uniformly drawn subnetworks and save them; a run that was killed goes on where it was.

    Args:
        weights: file of the supernet.
        space: its space.
        data: the images, as `data.load` takes them.
        number: of distinct subnetworks.
        seed: of the draw.
        jobs: processes, each of one thread.
        out: the CSV file to write; beside it lies `<stem>.partial` while the run lasts.
        report: receives a line of progress now and then.

    Raises:
        OfaDeployError: `number` is below 1 or more than the space has, the weights or images are unusable, or the
            output belongs to another run.
    """
    if number < 1:
        raise OfaDeployError(f"--number must be at least 1, not {number}")
    archs = _draw(space, number, seed)
    images = data_sets.load(data, space)
    checkpoint.load(weights, space)
    artifacts.check_output(out, ".csv")
    header = {
        "weights_sha256": artifacts.sha256(weights), "dataset": images.name, "images": len(images.heldout),
        "images_sha256": images.sha256(data_sets.RECALIBRATION),
        "number": number, "seed": seed, "design": "uniform", "recalibration_images": data_sets.RECALIBRATION,
        "recalibration_batch": data_sets.RECALIBRATION_BATCH,
    }  # fmt: skip
    partial = out.with_suffix(".partial")
    correct = _measure_all(archs, header, (str(weights), space.name, data), jobs, partial, report)
    percent = 100 * np.array([correct[i] for i in range(number)]) / len(images.heldout)
    samples = Samples(space, space.genes(archs), percent)
    details = {
        **header, "top1_percent": {"lowest": float(percent.min()), "highest": float(percent.max())},
        "source": images.source, "data_licence": images.licence,
    }  # fmt: skip
    samples.save(out, details)
    partial.unlink()
    return samples


def _draw(space: SearchSpace, number: int, seed: int) -> list[Arch]:
    rng = np.random.default_rng(seed)
    found: dict[Arch, None] = {}
    for _ in range(1000):
        found.update((arch, None) for arch in space.archs(space.sample(rng, number)))
        if len(found) >= number:
            return list(found)[:number]
    raise OfaDeployError(f"{space.name} has fewer than {number} networks; ask for fewer with --number")


def _measure_all(
    archs: Sequence[Arch], header: dict[str, Any], where: tuple[str, str, str | None], jobs: int, partial: Path,
    report: Report,
) -> dict[int, int]:  # fmt: skip
    """Correct images of each architecture by its index, appended to `partial` as they come."""
    correct = _resume(partial, archs, header)
    todo = [i for i in range(len(archs)) if i not in correct]
    if correct:
        report(f"resuming: {len(correct)} of {len(archs)} subnetworks are there")
    progress = Progress(len(todo), "subnetworks", report)
    results = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(
        joblib.delayed(_measure_one)(where, i, str(archs[i])) for i in todo
    )
    with partial.open("a", newline="") as file:
        for index, right in results:
            correct[index] = right
            file.write(f"{index},{archs[index]},{right}\n")
            file.flush()
            progress.add()
    return correct


def _measure_one(where: tuple[str, str, str | None], index: int, arch: str) -> tuple[int, int]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net, data = _worker(*where)
        return index, measure(net, Arch.parse(arch), data)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _worker(weights: str, space: str, data: str | None) -> tuple[Supernet, Dataset]:
    chosen = get_space(space)
    return checkpoint.load(Path(weights), chosen), data_sets.load(data, chosen)


def _resume(partial: Path, archs: Sequence[Arch], header: dict[str, Any]) -> dict[int, int]:
    """The counts that a killed run left."""
    correct: dict[int, int] = {}
    try:
        for index, arch, right in csv.reader(artifacts.resume(partial, header)):
            if str(archs[int(index)]) != arch:
                raise ValueError(arch)
            correct[int(index)] = int(right)
    except (ValueError, IndexError) as error:
        raise ArtifactError(f"{partial} is damaged; remove it to start anew") from error
    return correct
