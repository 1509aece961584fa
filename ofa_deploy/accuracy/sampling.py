"""Measuring many subnetworks: drawn, shared out among workers, never lost.

Networks come in groups whose shared beginnings are computed once (`accuracy.prefixes`); a group is what a worker gets.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from ofa_deploy.accuracy import prefixes
from ofa_deploy.accuracy.designs import draw
from ofa_deploy.accuracy.measure import BATCH_PIXELS, classified
from ofa_deploy.accuracy.samples import KIND, Samples
from ofa_deploy.accuracy.workers import Workers
from ofa_deploy.data.dataset import RECALIBRATION, RECALIBRATION_BATCH, Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import atomic, journals, outputs
from ofa_deploy.progress import Progress
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.encoding import features, layout_of
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

logger = logging.getLogger(__name__)

NOISE_NETWORKS = 30
FEWEST_FOR_NOISE = 100
"""Of fewer subnetworks the noise is not measured."""
FIRST_BATCH = 250
FLAT = 0.03
"""Share that the error must fall by, else no more subnetworks are measured."""


@dataclass(frozen=True)
class Inputs:
    """What a worker loads, wherever it is; the checksums make sure that it is the same everywhere.

    `batch` is the number of held-out images that are run at once, None for what `measure` takes by default.
    """

    weights: str
    weights_sha256: str
    space: str
    data: str | None
    images_sha256: str
    batch: int | None = None


def sample_accuracies(
    weights: Path | str,
    space: SearchSpace,
    *,
    data: str | None,
    number: int,
    seed: int,
    workers: Workers,
    out: Path | str,
    design: str = "uniform",
    until_flat: bool = False,
    batch: int | None = None,
) -> Samples:
    """Measure randomly drawn subnetworks and save them; a run that was killed goes on where it was.

    Args:
        weights: file of the supernet.
        space: its space.
        data: the images, as `data.load` takes them.
        number: of distinct subnetworks.
        seed: of the draw.
        workers: who measures; those of a cluster must find weights and images at the same paths.
        out: the CSV file to write; beside it lies `<stem>.partial` while the run lasts.
        design: how they are drawn, see `accuracy.designs`.
        until_flat: begin with 250 and measure as many again, up to `number`, until that no longer helps: until a
            Gaussian process fitted with the new networks (four fifths of all) errs on the new ones by less than 3 %
            less than one fitted without them.
        batch: held-out images that are run at once: bounds the memory of a worker; None for what is fastest.

    Raises:
        OfaDeployError: `number` is below 1 or more than the space has, there is no such design, the weights or images
            are unusable, or the output belongs to another run or is there already, made otherwise.
    """
    weights, out = Path(weights), Path(out)
    sizes = list(_doubling(number)) if until_flat else [number]
    groups = draw(space, design, sizes[0], seed)
    images = load_data(data, space)
    checkpoint.load_supernet(weights, space)
    outputs.check_output(out, ".csv")
    header: dict[str, Any] = {
        "weights_sha256": atomic.sha256(weights),
        "dataset": images.name,
        "images": len(images.heldout),
        "images_sha256": images.sha256(RECALIBRATION),
        "number": number,
        "seed": seed,
        "design": design,
        "until_flat": until_flat,
        "recalibration_images": RECALIBRATION,
        "recalibration_batch": RECALIBRATION_BATCH,
        "batch": batch or f"{BATCH_PIXELS} pixels",
    }
    place = str(Path(data).resolve()) if data not in (None, "fmnist") and Path(str(data)).exists() else data
    inputs = Inputs(str(weights.resolve()), header["weights_sha256"], space.name, place, header["images_sha256"], batch)
    partial = out.with_suffix(".partial")
    if out.exists() and not partial.exists():
        outputs.made_already(
            out, KIND, expected={**header, **({"number": None, "at_most": number} if until_flat else {})}
        )
        return Samples.load(out, space)
    with atomic.locked(out), _Shards(partial, header) as shards:
        if shards.counts:
            logger.info(f"resuming: {sum(map(len, shards.counts.values()))} subnetworks are there")
        curve: list[dict[str, float]] = []
        archs: list[Arch] = []
        correct: list[int] = []
        for round_, size in enumerate(sizes):
            if round_ > 0:
                groups = [*groups, *draw(space, design, size, (seed, round_), archs)]
            correct = [n for counts in _measure_all(groups, shards, inputs, workers) for n in counts]
            archs = [arch for group in groups for arch in group]
            if round_ > 0:
                curve.append(_gain(space, archs, correct, images=len(images.heldout), old=len(archs) - size, seed=seed))
                if curve[-1]["with_them"] > (1 - FLAT) * curve[-1]["without_them"]:
                    break
        percent = 100 * np.array(correct) / len(images.heldout)
        samples = Samples(space, space.genes(archs), percent)
        noise: dict[str, float] = {}
        if len(archs) >= FEWEST_FOR_NOISE:
            logger.info(f"measuring {NOISE_NETWORKS} of them again, for the noise of their accuracies")
            again = np.random.default_rng(seed).permutation(len(archs))[:NOISE_NETWORKS]
            noise = label_noise(inputs, [archs[i] for i in again], seed, workers)
        details = {
            **header,
            "number": len(archs),
            "cpu_seconds": round(sum(shards.seconds.values())),
            "label_noise": noise,
            **({"at_most": number, "learning_curve": curve} if until_flat else {}),
            "top1_percent": {"lowest": float(percent.min()), "highest": float(percent.max())},
            "source": images.source,
            "data_licence": images.licence,
        }
        samples.save(out, details)
        shards.remove()
    return samples


def label_noise(inputs: Inputs, archs: Sequence[Arch], seed: int, workers: Workers) -> dict[str, float]:
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
    apart = first - first.mean(axis=0)
    return {
        "recalibration_points": round(100 * float(np.sqrt(np.mean((second.mean(1) - first.mean(1)) ** 2))), 4),
        "heldout_points": round(100 * float(np.sqrt(apart.var(axis=1).mean() / first.shape[1])), 4),
        "networks": len(archs),
    }


def _doubling(number: int) -> Iterator[int]:
    """Sizes of batches, each as large as all before it, that sum up to `number`."""
    size = total = min(FIRST_BATCH, number)
    yield size
    while total < number:
        size = min(total, number - total)
        total += size
        yield size


def _gain(
    space: SearchSpace, archs: Sequence[Arch], correct: Sequence[int], *, images: int, old: int, seed: int
) -> dict[str, float]:
    """Error on the networks after the first `old`, of a predictor fitted with others of them and of one without."""
    from ofa_deploy.accuracy.predictors.estimator import Estimator
    from ofa_deploy.accuracy.predictors.evaluate import cross_validated
    from ofa_deploy.accuracy.predictors.gp import GP

    x, y = features(space, space.genes(archs)), 100 * np.array(correct) / images
    predictor = Estimator(GP(seed=seed), layout_of(space)).tuned(x[:old], y[:old])
    unseen = cross_validated({"gp": predictor}, x, y, np.ones(len(y)), seed=seed, jobs=1)["gp"][0]
    without = predictor.fit(x[:old], y[:old]).predict(x)
    errors = [float(np.sqrt(np.mean((p[old:] - y[old:]) ** 2))) for p in (without, unseen)]
    logger.info(
        f"{old} subnetworks predict others with an error of {errors[0]:.3f} points, {len(y)} with {errors[1]:.3f}"
    )
    return {"samples": len(y), "without_them": round(errors[0], 4), "with_them": round(errors[1], 4)}


class _Shards:
    """Results on disk: a line a group with its checksum. A file that would hold none is removed in the end."""

    def __init__(self, partial: Path, header: dict[str, Any]) -> None:
        self.partial = partial
        self.counts: dict[int, list[int]] = {}
        self.seconds: dict[int, float] = {}
        self.drawn: dict[int, int] = {}
        for number, text in enumerate(journals.resume(partial, header), 1):
            try:
                index, counts, seconds, drawn = json.loads(journals.unnumbered(number, text))
                self.counts[index], self.seconds[index] = [int(count) for count in counts], float(seconds)
                self.drawn[index] = drawn
            except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
                raise self.damaged() from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.counts:
            self.remove()

    def remove(self) -> None:
        """Remove the file."""
        self.partial.unlink(missing_ok=True)

    def damaged(self) -> ArtifactError:
        """The error of a file that is not what was written."""
        return ArtifactError(f"{self.partial} is damaged (a checksum does not match); remove it to start anew")

    def measured(self, groups: Sequence[Sequence[Arch]]) -> list[int]:
        """The groups whose results are there.

        Raises:
            ArtifactError: they are of other networks.
        """
        indices = [i for i in range(len(groups)) if i in self.counts]
        if any(len(self.counts[i]) != len(groups[i]) or self.drawn[i] != _checksum(groups[i]) for i in indices):
            raise ArtifactError(
                f"{self.partial} is of other networks: another release has drawn them; remove it to start anew"
            )
        return indices

    def add(self, index: int, group: Sequence[Arch], counts: list[int], seconds: float) -> None:
        """Keep the counts of a group and the CPU seconds that they took, also on disk."""
        self.counts[index], self.seconds[index], self.drawn[index] = counts, seconds, _checksum(group)
        line = json.dumps([index, counts, round(seconds, 3), self.drawn[index]])
        journals.append(self.partial, journals.numbered(len(self.counts), line))


def _checksum(group: Sequence[Arch]) -> int:
    return zlib.crc32("\n".join(map(str, group)).encode())


def _measure_all(
    groups: Sequence[Sequence[Arch]], shards: _Shards, inputs: Inputs, workers: Workers
) -> list[list[int]]:
    """Correct images of each network of each group; those that are on disk already are not measured again."""
    measured = shards.measured(groups)
    todo = [i for i in range(len(groups)) if i not in shards.counts]
    number, done = sum(map(len, groups)), sum(len(groups[i]) for i in measured)
    progress = Progress(number - done, "subnetworks")
    space = get_space(inputs.space)
    alone, shared = 0.0, 0.0
    for index, counts, seconds in workers.run(_count_group, [(inputs, i, list(map(str, groups[i]))) for i in todo]):
        shards.add(index, groups[index], counts, seconds)
        alone += float(space.macs(space.genes(groups[index])).sum())
        shared += prefixes.macs(prefixes.trie(space, groups[index]))
        progress.add(len(counts), f"shared beginnings save {1 - shared / alone:.0%}")
    return [shards.counts[i] for i in range(len(groups))]


def _count_group(inputs: Inputs, index: int, archs: list[str]) -> tuple[int, list[int], float]:
    """What a worker does: a group's number, its counts of correct images, and the CPU seconds that they took."""
    began = time.thread_time()
    _, hits = _classify_group(inputs, index, archs, None)
    return index, hits.sum(axis=1).tolist(), time.thread_time() - began


def _classify_group(
    inputs: Inputs, key: Any, archs: list[str], redrawn: int | None
) -> tuple[Any, npt.NDArray[np.bool_]]:
    """A key and what `measure.classified` finds, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net, data = _loaded(inputs)
        return key, classified(net, [Arch.parse(arch) for arch in archs], data, inputs.batch, redrawn)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _loaded(inputs: Inputs) -> tuple[Supernet, Dataset]:
    space = get_space(inputs.space)
    net, data = checkpoint.load_supernet(Path(inputs.weights), space), load_data(inputs.data, space)
    if checkpoint.origin(Path(inputs.weights))["sha256"] != inputs.weights_sha256:
        raise ArtifactError(f"{inputs.weights} is not the same file on every machine; copy it to all of them")
    if data.sha256(RECALIBRATION) != inputs.images_sha256:
        raise ArtifactError(
            f"the images {inputs.data or ''} are not the same on every machine; copy them to all of them"
        )
    return net, data
