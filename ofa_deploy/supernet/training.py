"""Progressive shrinking: the largest network first, then ever smaller subnetworks that it teaches.

The teacher is the largest network as it was at the end of the first phase (Cai et al., arXiv 1908.09791, section 3.3).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.json_text import Json
from ofa_deploy.progress import Progress, silent
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.epochs import Lesson, sgd, train_epoch
from ofa_deploy.supernet.evaluation import top1_percent
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.processes import Processes, alone, gathered, on_device
from ofa_deploy.supernet.recalibration import recalibrate
from ofa_deploy.supernet.recipes import Phase, Recipe
from ofa_deploy.supernet.replicas import Replica
from ofa_deploy.supernet.run_state import RunState, resume, save_state

LOG_IMAGES = 1_000
"""Held-out images on which the log measures the largest and the smallest network after each epoch."""


@dataclass(frozen=True)
class _Job:
    """A training as it was ordered; the fields are arguments of `train_supernet`."""

    space: SearchSpace
    data: Dataset
    recipe: Recipe
    out: Path
    processes: Processes
    licence: str | None

    @property
    def saved(self) -> Path:
        """File of the run's state."""
        return self.out.with_suffix(".checkpoint")

    @property
    def log(self) -> Path:
        """File with a row an epoch."""
        return self.out.with_name(f"{self.out.stem}_log.csv")

    @cached_property
    def images_sha256(self) -> str:
        """Checksum of the training and held-out images."""
        return self.data.sha256()

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this run and no other."""
        return {"space": self.space.name, "recipe": asdict(self.recipe), "images_sha256": self.images_sha256}


def train_supernet(
    space: SearchSpace,
    data: Dataset,
    *,
    recipe: Recipe,
    out: Path | str,
    stop_after: int | None = None,
    processes: Processes | None = None,
    licence: str | None = None,
) -> Json:
    """Train a supernet and save it; a run that was killed goes on from its last finished epoch.

    Args:
        space: the space whose supernet is trained.
        data: all training images.
        recipe: phases, batch, losses and seed.
        out: the weight file to write; beside it lie `<stem>_log.csv`, a row an epoch, and, while the run lasts,
            `<stem>.checkpoint`.
        stop_after: end after this many epochs in all, leaving the checkpoint (for runs in instalments).
        processes: who trains; by default this process alone.
        licence: licence of the weights, for their description and the cards of what is cut out of them.

    Returns:
        the description that was saved, or the progress so far where `stop_after` ended the run.

    Raises:
        OfaDeployError: the checkpoint beside `out` is of another run, a second run works on it, or it diverged.
        ArtifactError: there are weights already that were made otherwise.
    """
    job = _Job(space, data, recipe, Path(out), processes or alone(), licence)
    _check(job)
    first = job.processes.first
    with nullcontext() if first else silent():
        if _same_everywhere(int(job.out.exists() and not job.saved.exists()), job.processes):
            return _result_there(job)
        with atomic.locked(job.out) if first else nullcontext():
            return _train(job, stop_after)


def _check(job: _Job) -> None:
    """Refuse a batch that the images or the processes do not allow, and an output that cannot be written."""
    batch, number = job.recipe.batch, job.processes.number
    if batch > len(job.data.train):
        raise OfaDeployError(f"a batch of {batch} is more than the {len(job.data.train)} training images")
    if batch % number or batch < 2 * number:
        raise OfaDeployError(f"a batch of {batch} cannot be shared by {number} processes alike")
    outputs.check_output(job.out, ".safetensors")


def _same_everywhere(state: int, processes: Processes) -> int:
    """What is on disk, as a number that must be the same for all processes.

    Raises:
        OfaDeployError: it is not.
    """
    states = gathered(state, processes)
    if len(set(states)) > 1:
        raise OfaDeployError(
            f"the processes would go on from different states ({', '.join(map(str, states))}): --out must lie in a "
            "folder that all of them see"
        )
    return state


def _result_there(job: _Job) -> Json:
    """The description of the weights that are there already, which must have been made as ordered."""
    details = {
        "space": job.space.name,
        "recipe": json.loads(json.dumps(asdict(job.recipe))),
        "dataset": job.data.name,
        "training_images": len(job.data.train),
        "images_sha256": job.images_sha256,
        "licence": job.licence,
    }
    return outputs.made_already(job.out, checkpoint.KIND, expected=details)


def _train(job: _Job, stop_after: int | None) -> Json:
    recipe, processes = job.recipe, job.processes
    net = on_device(Supernet(job.space).initialise(recipe.seed), processes)
    state = RunState(net, sgd(net, recipe))
    if job.saved.exists():
        resume(state, job.saved, identity=job.identity, processes=processes)
    _same_everywhere(state.epoch, processes)
    images = len(job.data.train) // recipe.batch * recipe.batch
    progress = Progress((recipe.epochs - state.epoch) * images, "images", seconds=10)
    while state.epoch < recipe.epochs:
        if state.epoch == stop_after:
            return {"epochs": state.epoch, "of": recipe.epochs, "log": state.log}
        _train_epoch(job, net, state, progress)
        if processes.first:
            atomic.write(job.log, state.log_csv())  # first, so that a whole checkpoint has a whole log
            save_state(state, job.saved, identity=job.identity, processes=processes)
    details = _details(job, state)
    if not processes.first:
        return details
    description = checkpoint.save(job.out, net, details)
    job.saved.unlink()
    return description


def _train_epoch(job: _Job, net: Supernet, state: RunState, progress: Progress) -> None:
    """One epoch of the phase that it belongs to, and its row in the log."""
    recipe = job.recipe
    index, within = recipe.phase_at(state.epoch)
    if within == 0:
        _begin_phase(job, net, state, index)
    phase = recipe.phases[index]
    subspace = phase.subspace_of(job.space)
    rng = np.random.default_rng([recipe.seed, state.epoch])
    lesson = Lesson(
        data=job.data,
        recipe=recipe,
        processes=job.processes,
        forward=Replica(net, job.processes).forward,
        teacher=_teacher(state),
        draw=lambda: _draw(subspace, phase, recipe, rng),
        activity="the training",
        remedy="remove the checkpoint and start anew with --lr-factor 0.5",
    )
    figures = train_epoch(state, lesson, progress)
    accuracies = {
        f"{name}_top1_percent": _quick_top1_percent(job, net, subspace.extreme(largest=largest))
        for name, largest in (("largest", True), ("smallest", False))
    }
    row = {"epoch": state.epoch + 1, "phase": phase.name, **figures.row(**accuracies)}
    state.finish_epoch(row, figures.seconds)


def _begin_phase(job: _Job, net: Supernet, state: RunState, index: int) -> None:
    """What happens between phases: the teacher is set aside, channels are sorted, the momentum starts anew."""
    recipe = job.recipe
    phase, before = recipe.phases[index], recipe.phases[index - 1] if index else None
    if state.epoch == recipe.teacher_epochs and recipe.distill:
        state.teacher = on_device(Supernet(job.space), job.processes)
        state.teacher.load_state_dict(net.state_dict())
    if phase.expands > 1 and (before is None or phase.expands > before.expands):
        net.sort_channels(before.subspace_of(job.space) if before else None)
    state.optimizer = sgd(net, recipe)


def _teacher(state: RunState) -> Callable[[Tensor], Tensor] | None:
    """Logits of the largest network of the teacher for network inputs; None where there is no teacher."""
    teacher = state.teacher
    if teacher is None:
        return None
    return lambda x: teacher(x, teacher.space.extreme(largest=True, resolution=x.shape[2]))


def _draw(subspace: SearchSpace, phase: Phase, recipe: Recipe, rng: np.random.Generator) -> list[Arch]:
    """Architectures of a step, all of one random resolution."""
    resolution = int(rng.choice(subspace.resolutions))
    archs = subspace.archs(subspace.sample(rng, phase.subnets, [resolution]))
    if recipe.sandwich:
        archs += [subspace.extreme(largest=largest, resolution=resolution) for largest in (False, True)]
    return archs


def _quick_top1_percent(job: _Job, net: Supernet, arch: Arch) -> float | None:
    """Top-1 on the first held-out images after a short recalibration; None in all processes but the first."""
    if not job.processes.first:
        return None
    data, subnet = job.data, net.subnet(arch)
    inputs = data.recalibration(arch.resolution, min(LOG_IMAGES, len(data.train)))
    with torch.inference_mode():
        recalibrate(subnet, (x.to(job.processes.device) for x in inputs))
    return round(top1_percent(subnet, data, data.heldout[:LOG_IMAGES]), 2)


def _details(job: _Job, state: RunState) -> dict[str, Any]:
    """How the weights came to be, for their description."""
    return {
        "recipe": asdict(job.recipe),
        "dataset": job.data.name,
        "source": job.data.source,
        "data_licence": job.data.licence,
        "training_images": len(job.data.train),
        "images_sha256": job.images_sha256,
        "seconds": round(state.seconds),
        "device": job.processes.device.type,
        "processes": job.processes.number,
        "threads": torch.get_num_threads(),
        "log": job.log.name,
        "last_epoch": state.log[-1],
        "note": "batch-norm statistics must be recalibrated for each subnetwork",
        "licence": job.licence,
    }
