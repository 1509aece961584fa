"""Groups of networks that workers measure: a group is one task, and its networks share their beginnings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ofa_deploy.accuracy import prefixes
from ofa_deploy.accuracy.measure import classified
from ofa_deploy.accuracy.shards import Shards
from ofa_deploy.accuracy.workers import Workers
from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.errors import ArtifactError
from ofa_deploy.progress import Progress
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet


@dataclass(frozen=True)
class Inputs:
    """What a worker loads, wherever it is; the checksums make sure that it is the same everywhere.

    Attributes:
        weights: file of the supernet.
        weights_sha256: checksum of that file.
        space: name of its space.
        data: the images, as `data.loading.load_data` takes them.
        images_sha256: checksum of the images.
        batch: held-out images that are run at once, None for what `measure` takes by default.
    """

    weights: str
    weights_sha256: str
    space: str
    data: str | None
    images_sha256: str
    batch: int | None = None


def measure_groups(
    groups: Sequence[Sequence[Arch]], inputs: Inputs, *, shards: Shards, workers: Workers
) -> list[list[int]]:
    """Correct images of each network of each group; those that are on disk already are not measured again.

    Args:
        groups: of networks, each of one resolution.
        inputs: weights and images.
        shards: results so far; new ones are added.
        workers: who measures.

    Raises:
        ArtifactError: the results on disk are of other networks.
        MeasureError: workers were lost.
    """
    measured = shards.measured(groups)
    todo = [i for i in range(len(groups)) if i not in shards.counts]
    progress = Progress(sum(map(len, groups)) - sum(len(groups[i]) for i in measured), "subnetworks")
    space = get_space(inputs.space)
    macs_alone, macs_shared = 0.0, 0.0
    tasks = [(inputs, i, list(map(str, groups[i]))) for i in todo]
    for number, counts, seconds in workers.run(_count_group, tasks):
        shards.add(number, groups[number], counts=counts, seconds=seconds)
        macs_alone += float(space.macs(space.genes(groups[number])).sum())
        macs_shared += prefixes.macs(prefixes.trie(space, groups[number]))
        progress.add(len(counts), f"shared beginnings save {1 - macs_shared / macs_alone:.0%}")
    return [shards.counts[i] for i in range(len(groups))]


def label_noise(inputs: Inputs, archs: Sequence[Arch], *, seed: int, workers: Workers) -> dict[str, float]:
    """How far measured accuracies are from what other images would give.

    Args:
        inputs: weights and images.
        archs: networks to measure again.
        seed: of the images for recalibration.
        workers: who measures.

    Returns:
        `recalibration_points`: standard error from the images for recalibration, by a bootstrap of them;
        `heldout_points`: standard error, with other held-out images, of a network's distance from the mean of all
        (what they have in common does not change their order); `networks`: how many were measured again.
    """
    groups = [[a for a in archs if a.resolution == r] for r in sorted({a.resolution for a in archs})]
    tasks = [(inputs, (i, draw), list(map(str, g)), draw) for i, g in enumerate(groups) for draw in (None, seed)]
    hits = dict(workers.run(_classify_group, tasks))
    first = np.concatenate([hits[i, None] for i in range(len(groups))])
    second = np.concatenate([hits[i, seed] for i in range(len(groups))])
    distance = first - first.mean(axis=0)
    return {
        "recalibration_points": round(100 * float(np.sqrt(np.mean((second.mean(1) - first.mean(1)) ** 2))), 4),
        "heldout_points": round(100 * float(np.sqrt(distance.var(axis=1).mean() / first.shape[1])), 4),
        "networks": len(archs),
    }


def _count_group(inputs: Inputs, number: int, archs: list[str]) -> tuple[int, list[int], float]:
    """A group's number, its counts of correct images, and the CPU seconds that they took."""
    start = time.thread_time()
    _, hits = _classify_group(inputs, number, archs, None)
    return number, hits.sum(axis=1).tolist(), time.thread_time() - start


def _classify_group(
    inputs: Inputs, key: Any, archs: list[str], bootstrap_seed: int | None
) -> tuple[Any, npt.NDArray[np.bool_]]:
    """A key, and which images each network classifies correctly, shape (networks, images); on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net, data = _loaded(inputs)
        parsed = [Arch.parse(arch) for arch in archs]
        return key, classified(net, parsed, data=data, batch=inputs.batch, bootstrap_seed=bootstrap_seed)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _loaded(inputs: Inputs) -> tuple[Supernet, Dataset]:
    """Supernet and images of a worker, loaded for its first task.

    Raises:
        ArtifactError: they are not those that the run was begun with.
    """
    space = get_space(inputs.space)
    net, data = checkpoint.load_supernet(Path(inputs.weights), space), load_data(inputs.data, space)
    if checkpoint.origin(Path(inputs.weights))["sha256"] != inputs.weights_sha256:
        raise ArtifactError(f"{inputs.weights} is not the same file on every machine; copy it to all of them")
    if data.sha256(RECALIBRATION) != inputs.images_sha256:
        raise ArtifactError(
            f"the images {inputs.data or ''} are not the same on every machine; copy them to all of them"
        )
    return net, data
