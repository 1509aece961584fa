"""Measuring many subnetworks: drawn, shared out among workers, never lost.

    designs.draw ──► groups.measure_groups ──► shards.Shards ──► samples.Samples
    networks in      each group is a task      a line a group    the CSV file
    groups           of a worker               on disk

Networks come in groups whose shared beginnings are computed once (`accuracy.prefixes`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.accuracy.designs import check_draw, draw
from ofa_deploy.accuracy.groups import Inputs, label_noise, measure_groups
from ofa_deploy.accuracy.measure import BATCH_PIXELS
from ofa_deploy.accuracy.samples import KIND, Samples
from ofa_deploy.accuracy.shards import Shards
from ofa_deploy.accuracy.workers import Workers
from ofa_deploy.data.dataset import RECALIBRATION, RECALIBRATION_BATCH, Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.files import atomic, outputs
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.encoding import features, layout_of
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint

logger = logging.getLogger(__name__)

NOISE_NETWORKS = 30
"""Subnetworks that are measured again for the noise of their accuracies."""
FEWEST_FOR_NOISE = 100
"""Of fewer subnetworks the noise is not measured."""
FIRST_BATCH = 250
"""Subnetworks that are measured first, where their number is not fixed."""
FLAT = 0.03
"""Share that the error must fall by, else no more subnetworks are measured."""


@dataclass(frozen=True)
class SamplingPlan:
    """Which subnetworks are measured.

    Attributes:
        number: of distinct subnetworks; at most so many where `until_flat` is set.
        seed: of the draw.
        design: how they are drawn, one of `designs.DESIGNS`.
        until_flat: begin with 250 and measure as many again, up to `number`, until that no longer helps: until a
            Gaussian process fitted with the new networks (four fifths of all) errs on the new ones by less than 3 %
            less than one fitted without them.

    Raises:
        OfaDeployError: `number` is below 1, or there is no such design.
    """

    number: int
    seed: int = 0
    design: str = "uniform"
    until_flat: bool = False

    def __post_init__(self) -> None:
        check_draw(self.design, self.number)

    def rounds(self) -> list[int]:
        """Subnetworks that each round measures: all at once, or as many as all rounds before it did."""
        if not self.until_flat:
            return [self.number]
        sizes = [min(FIRST_BATCH, self.number)]
        while (rest := self.number - sum(sizes)) > 0:
            sizes.append(min(sum(sizes), rest))
        return sizes


def sample_accuracies(
    weights: Path | str,
    space: SearchSpace,
    *,
    plan: SamplingPlan,
    data: str | None,
    workers: Workers,
    out: Path | str,
    batch: int | None = None,
) -> Samples:
    """Measure randomly drawn subnetworks and save them; a run that was killed goes on where it was.

    Args:
        weights: file of the supernet.
        space: its space.
        plan: which subnetworks.
        data: the images, as `data.loading.load_data` takes them.
        workers: who measures; those of a cluster must find weights and images at the same paths.
        out: the CSV file to write; beside it lies `<stem>.partial` while the run lasts.
        batch: held-out images that are run at once: bounds the memory of a worker; None for what is fastest.

    Raises:
        OfaDeployError: the space has fewer subnetworks, the weights or images are unusable, or the output belongs to
            another run or is there already, made otherwise.
    """
    weights, out = Path(weights), Path(out)
    groups = draw(space, plan.design, number=plan.rounds()[0], seed=plan.seed)
    images = load_data(data, space)
    checkpoint.load_supernet(weights, space)
    outputs.check_output(out, ".csv")
    header = _header(weights, images, plan, batch)
    partial = out.with_suffix(".partial")
    if out.exists() and not partial.exists():
        sizes = {"number": None, "at_most": plan.number} if plan.until_flat else {}
        outputs.made_already(out, KIND, expected={**header, **sizes})
        return Samples.load(out, space)
    checksums = header["weights_sha256"], header["images_sha256"]
    inputs = Inputs(str(weights.resolve()), checksums[0], space.name, _location(data), checksums[1], batch)
    with atomic.locked(out), Shards(partial, header) as shards:
        if shards.counts:
            logger.info(f"resuming: {sum(map(len, shards.counts.values()))} subnetworks are there")
        run = _Run(space, plan, inputs, shards, workers, len(images.heldout))
        samples, curve = _measured(run, groups)
        results = {
            "number": len(samples),
            "cpu_seconds": round(sum(shards.seconds.values())),
            "label_noise": _noise(run, samples),
            **({"at_most": plan.number, "learning_curve": curve} if plan.until_flat else {}),
        }
        samples.save(out, {**header, **results, **_description(samples, images)})
        shards.remove()
    return samples


def _location(data: str | None) -> str | None:
    """The images as a worker with another working folder names them."""
    if data is None or data == "fmnist" or not Path(data).exists():
        return data
    return str(Path(data).resolve())


def _header(weights: Path, images: Dataset, plan: SamplingPlan, batch: int | None) -> dict[str, Any]:
    """What a run measures, and how: one with another header does not go on from its results."""
    return {
        "weights_sha256": atomic.sha256(weights),
        "dataset": images.name,
        "images": len(images.heldout),
        "images_sha256": images.sha256(RECALIBRATION),
        "number": plan.number,
        "seed": plan.seed,
        "design": plan.design,
        "until_flat": plan.until_flat,
        "recalibration_images": RECALIBRATION,
        "recalibration_batch": RECALIBRATION_BATCH,
        "batch": batch or f"{BATCH_PIXELS} pixels",
    }


def _description(samples: Samples, images: Dataset) -> dict[str, Any]:
    """The accuracies' range, and where the images come from."""
    percent = samples.top1_percent
    return {
        "top1_percent": {"lowest": float(percent.min()), "highest": float(percent.max())},
        "source": images.source,
        "data_licence": images.licence,
    }


@dataclass(frozen=True)
class _Run:
    """What a run measures, and with what.

    Attributes:
        space: of the subnetworks.
        plan: which subnetworks.
        inputs: weights and images.
        shards: results so far.
        workers: who measures.
        images: number of held-out images.
    """

    space: SearchSpace
    plan: SamplingPlan
    inputs: Inputs
    shards: Shards
    workers: Workers
    images: int


def _measured(run: _Run, groups: list[list[Arch]]) -> tuple[Samples, list[dict[str, float]]]:
    """Samples of all rounds, and what each round after the first has brought.

    Args:
        run: what is measured.
        groups: networks of the first round.
    """
    space, plan = run.space, run.plan
    archs: list[Arch] = []
    curve: list[dict[str, float]] = []
    for number, size in enumerate(plan.rounds()):
        if number > 0:
            groups = [*groups, *draw(space, plan.design, number=size, seed=(plan.seed, number), without=archs)]
        counts = measure_groups(groups, run.inputs, shards=run.shards, workers=run.workers)
        archs = [arch for group in groups for arch in group]
        percent = 100 * np.array([count for group in counts for count in group]) / run.images
        samples = Samples(space, space.genes(archs), percent)
        if number > 0:
            curve.append(_gain(samples, old=len(samples) - size, seed=plan.seed))
            if curve[-1]["with_them"] > (1 - FLAT) * curve[-1]["without_them"]:
                break
    return samples, curve


def _noise(run: _Run, samples: Samples) -> dict[str, float]:
    """Noise of the accuracies by measuring some subnetworks again; empty where there are too few of them."""
    if len(samples) < FEWEST_FOR_NOISE:
        return {}
    logger.info(f"measuring {NOISE_NETWORKS} of them again, for the noise of their accuracies")
    rows = np.random.default_rng(run.plan.seed).permutation(len(samples))[:NOISE_NETWORKS]
    archs = run.space.archs(samples.genes[rows])
    return label_noise(run.inputs, archs, seed=run.plan.seed, workers=run.workers)


def _gain(samples: Samples, *, old: int, seed: int) -> dict[str, float]:
    """What the samples after the first `old` have brought.

    Args:
        samples: all that are measured.
        old: samples of the rounds before the last.
        seed: of the predictor and of the folds.

    Returns:
        `samples`: their number; `without_them` and `with_them`: root mean square errors in points on the new samples,
        of a predictor fitted on the old ones and of one fitted on others of all.
    """
    from ofa_deploy.accuracy.predictors.estimator import Estimator
    from ofa_deploy.accuracy.predictors.evaluate import cross_validated
    from ofa_deploy.accuracy.predictors.gp import GP

    x, y = features(samples.space, samples.genes), samples.top1_percent
    predictor = Estimator(GP(seed=seed), layout_of(samples.space)).tuned(x[:old], y[:old])
    unseen = cross_validated({"gp": predictor}, x, y, np.ones(len(y)), seed=seed, jobs=1)["gp"][0]
    without = predictor.fit(x[:old], y[:old]).predict(x)
    errors = [float(np.sqrt(np.mean((p[old:] - y[old:]) ** 2))) for p in (without, unseen)]
    logger.info(
        f"{old} subnetworks predict others with an error of {errors[0]:.3f} points, {len(y)} with {errors[1]:.3f}"
    )
    return {"samples": len(y), "without_them": round(errors[0], 4), "with_them": round(errors[1], 4)}
