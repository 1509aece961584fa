"""Measuring the accuracy of subnetworks on the held-out images, batch norms recalibrated on 2,000 training images.

Networks come in groups whose shared beginnings are computed once (`accuracy.prefixes`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import torch

from ofa_deploy import artifacts
from ofa_deploy import data as data_sets
from ofa_deploy.accuracy import prefixes
from ofa_deploy.accuracy.designs import draw
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.arch import Arch
from ofa_deploy.data import RECALIBRATION, Dataset, Images
from ofa_deploy.errors import ArtifactError
from ofa_deploy.families import get_space
from ofa_deploy.latency.runtimes import Session
from ofa_deploy.progress import Progress, Report
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Subnet, Supernet, recalibrate

BATCH_PIXELS = 100 * 28 * 28
"""Pixels a batch: more leave the cache, fewer pay for calls."""
NOISE_NETWORKS = 30
FEWEST_FOR_NOISE = 100
"""Of fewer subnetworks the noise is not measured."""

Where = tuple[str, str, str | None]
"""What a worker loads: file of the weights, name of the space, place of the images."""


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


def measure(net: Supernet, archs: Sequence[Arch], data: Dataset, batch: int | None = None) -> list[int]:
    """How many held-out images each of several subnetworks, all of one resolution, classifies correctly.

    They are run `batch` at a time, by default as many as have `BATCH_PIXELS`.
    """
    hits: list[int] = classified(net, archs, data, batch).sum(axis=1).tolist()
    return hits


def classified(
    net: Supernet, archs: Sequence[Arch], data: Dataset, batch: int | None = None, redrawn: int | None = None
) -> npt.NDArray[np.bool_]:
    """Which held-out images each subnetwork classifies correctly, shape (networks, images); see `measure`.

    With `redrawn`, a seed, recalibration is on a bootstrap sample of its images.
    """
    resolution, images = archs[0].resolution, data.heldout
    if redrawn is not None:
        some = np.random.default_rng(redrawn).integers(0, RECALIBRATION, RECALIBRATION) % len(data.train)
        data = replace(data, train=data.train[some])
    batch = batch or max(16, BATCH_PIXELS // resolution**2)
    batches = (
        (data.tensor(images.pixels[i : i + batch], resolution), torch.from_numpy(images.labels[i : i + batch]))
        for i in range(0, len(images), batch)
    )
    return prefixes.classified(net, archs, data.recalibration(resolution), batches)


def label_noise(where: Where, archs: Sequence[Arch], seed: int, jobs: int) -> dict[str, float]:
    """How far measured accuracies are from what other images would give.

    Args:
        where: weights, space and images.
        archs: networks to measure again.
        seed: of the images for recalibration.
        jobs: processes.

    Returns:
        `recalibration_points`: root mean square of the change with another draw of the images for recalibration;
        `heldout_points`: standard error, with other held-out images, of a network's distance from the mean of all
        (what they have in common does not change their order); `networks`: how many were measured again.
    """
    groups = [[a for a in archs if a.resolution == r] for r in sorted({a.resolution for a in archs})]
    tasks = [(list(map(str, g)), draw) for g in groups for draw in (None, seed)]
    hits = joblib.Parallel(n_jobs=jobs)(joblib.delayed(_classify_group)(where, *task) for task in tasks)
    first, second = np.concatenate(hits[::2]), np.concatenate(hits[1::2])
    apart = first - first.mean(axis=0)
    return {
        "recalibration_points": round(100 * float(np.sqrt(np.mean((second.mean(1) - first.mean(1)) ** 2))), 4),
        "heldout_points": round(100 * float(np.sqrt(apart.var(axis=1).mean() / first.shape[1])), 4),
        "networks": len(archs),
    }


def sample(
    weights: Path, space: SearchSpace, data: str | None, number: int, seed: int, jobs: int, out: Path, report: Report,
    design: str = "uniform",
) -> Samples:  # fmt: skip
    """Measure randomly drawn subnetworks and save them; a run that was killed goes on where it was.

    Args:
        weights: file of the supernet.
        space: its space.
        data: the images, as `data.load` takes them.
        number: of distinct subnetworks.
        seed: of the draw.
        jobs: processes, each of one thread.
        out: the CSV file to write; beside it lies `<stem>.partial` while the run lasts.
        report: receives a line of progress now and then.
        design: how they are drawn, see `accuracy.designs`.

    Raises:
        OfaDeployError: `number` is below 1 or more than the space has, there is no such design, the weights or images
            are unusable, or the output belongs to another run.
    """
    groups = draw(space, design, number, seed)
    images = data_sets.load(data, space)
    checkpoint.load(weights, space)
    artifacts.check_output(out, ".csv")
    header = {
        "weights_sha256": artifacts.sha256(weights), "dataset": images.name, "images": len(images.heldout),
        "images_sha256": images.sha256(RECALIBRATION),
        "number": number, "seed": seed, "design": design, "recalibration_images": RECALIBRATION,
        "recalibration_batch": data_sets.RECALIBRATION_BATCH, "batch_pixels": BATCH_PIXELS,
    }  # fmt: skip
    partial = out.with_suffix(".partial")
    with artifacts.locked(out):
        correct = _measure_all(groups, header, (str(weights), space.name, data), jobs, partial, report)
        archs = [arch for group in groups for arch in group]
        percent = 100 * np.array([right for counts in correct for right in counts]) / len(images.heldout)
        samples = Samples(space, space.genes(archs), percent)
        noise: dict[str, float] = {}
        if number >= FEWEST_FOR_NOISE:
            report(f"measuring {NOISE_NETWORKS} of them again, for the noise of their accuracies")
            again = np.random.default_rng(seed).permutation(number)[:NOISE_NETWORKS]
            noise = label_noise((str(weights), space.name, data), [archs[i] for i in again], seed, jobs)
        details = {
            **header, "top1_percent": {"lowest": float(percent.min()), "highest": float(percent.max())},
            "label_noise": noise,
            "source": images.source, "data_licence": images.licence,
        }  # fmt: skip
        samples.save(out, details)
        partial.unlink()
    return samples


def _measure_all(
    groups: Sequence[Sequence[Arch]], header: dict[str, Any], where: Where, jobs: int,
    partial: Path, report: Report,
) -> list[list[int]]:  # fmt: skip
    """Correct images of each network of each group; a line a group is appended to `partial` as they come."""
    found = _resume(partial, groups, header)
    todo = [i for i in range(len(groups)) if i not in found]
    number, done = sum(map(len, groups)), sum(len(groups[i]) for i in found)
    if found:
        report(f"resuming: {done} of {number} subnetworks are there")
    progress = Progress(number - done, "subnetworks", report)
    space = get_space(where[1])
    alone, shared = 0.0, 0.0
    results = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(
        joblib.delayed(_measure_group)(where, i, list(map(str, groups[i]))) for i in todo
    )
    with partial.open("a", newline="") as file:
        for index, counts in results:
            found[index] = counts
            line = json.dumps([index, counts])
            file.write(f"{line}\t{zlib.crc32(line.encode())}\n")
            file.flush()
            alone += float(space.macs(space.genes(groups[index])).sum())
            shared += prefixes.macs(prefixes.trie(space, groups[index]))
            progress.add(len(counts), f"shared beginnings save {1 - shared / alone:.0%}")
    return [found[i] for i in range(len(groups))]


def _measure_group(where: Where, index: int, archs: list[str]) -> tuple[int, list[int]]:
    return index, _classify_group(where, archs, None).sum(axis=1).tolist()


def _classify_group(where: Where, archs: list[str], redrawn: int | None) -> npt.NDArray[np.bool_]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net, data = _worker(*where)
        return classified(net, [Arch.parse(arch) for arch in archs], data, redrawn=redrawn)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _worker(weights: str, space: str, data: str | None) -> tuple[Supernet, Dataset]:
    chosen = get_space(space)
    return checkpoint.load(Path(weights), chosen), data_sets.load(data, chosen)


def _resume(partial: Path, groups: Sequence[Sequence[Arch]], header: dict[str, Any]) -> dict[int, list[int]]:
    """The counts of the groups that a killed run left."""
    found: dict[int, list[int]] = {}
    for text in artifacts.resume(partial, header):
        line, _, checksum = text.partition("\t")
        try:
            if int(checksum) != zlib.crc32(line.encode()):
                raise ValueError(checksum)
            index, counts = json.loads(line)
            if len(counts) != len(groups[index]):
                raise ValueError(index)
        except (ValueError, IndexError, TypeError) as error:
            raise ArtifactError(f"{partial} is damaged (a checksum does not match); remove it to start anew") from error
        found[index] = counts
    return found
