"""Fine-tuning a subnetwork by itself, taught by the largest network of its supernet.

The paper does so for 25 or 75 epochs with what it deploys (Cai et al., arXiv 1908.09791, section 4). The loss is that
of progressive shrinking, the teacher is the supernet as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.json_text import Json
from ofa_deploy.progress import Progress
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet.epochs import Lesson, sgd, train_epoch
from ofa_deploy.supernet.evaluation import specialise, top1_percent
from ofa_deploy.supernet.network import Subnet, Supernet
from ofa_deploy.supernet.processes import alone
from ofa_deploy.supernet.recalibration import recalibrate
from ofa_deploy.supernet.recipes import Phase, Recipe
from ofa_deploy.supernet.run_state import RunState, resume, save_state

RECIPE = Recipe((Phase("finetune", 1, 0.0025),), weight_decay=2e-4, erase=0.2, precision="float32")
"""For one epoch; `RECIPE.scaled(epochs)` is for more."""
SUFFIX = ".finetune"
"""Ending of the file that holds a run's state."""


def finetune(
    net: Supernet,
    arch: Arch,
    *,
    data: Dataset,
    recipe: Recipe,
    saved: Path,
    weights_sha256: str,
    recalibration: int = RECALIBRATION,
) -> tuple[Subnet, Json]:
    """Train a subnetwork further, with weights of its own; a run that was killed goes on from its last epoch.

    Args:
        net: the supernet, which stays as it is.
        arch: the subnetwork's architecture.
        data: all training images.
        recipe: a recipe of one phase; its batch becomes at most all training images.
        saved: file of the run's state, to be removed when its result is kept.
        weights_sha256: checksum of the supernet's file, by which `saved` is recognised.
        recalibration: training images that batch norms are recalibrated on, before and after.

    Returns:
        the subnetwork, recalibrated, in evaluation mode; and for its card: epochs, lr, batch, seed, and the top-1 on
        the held-out images before and after.

    Raises:
        OfaDeployError: it diverged.
        ArtifactError: `saved` is damaged or of another run, or cannot be written.
    """
    recipe = replace(recipe, batch=min(recipe.batch, len(data.train)))
    outputs.check_folder(saved)
    identity: dict[str, Any] = {
        "space": net.space.name,
        "arch": str(arch),
        "recipe": asdict(recipe),
        "images_sha256": data.sha256(),
    }
    identity |= {"weights_sha256": weights_sha256, "recalibration": recalibration}
    student = specialise(net, arch, data=data, images=recalibration)
    before = round(top1_percent(student, data, data.heldout), 3)
    with atomic.locked(saved):
        teacher = specialise(
            net, net.space.extreme(largest=True, resolution=arch.resolution), data=data, images=recalibration
        )
        _train(student, teacher, data, recipe, saved=saved, identity=identity)
    recalibrate(student, data.recalibration(arch.resolution, recalibration))
    after = round(top1_percent(student, data, data.heldout), 3)
    settings = {"epochs": recipe.epochs, "lr": recipe.phases[0].lr, "batch": recipe.batch, "seed": recipe.seed}
    top1 = {"heldout_top1_percent_before": before, "heldout_top1_percent": after}
    return student, {**settings, "heldout_images": len(data.heldout), **top1}


def _train(
    student: Subnet, teacher: Subnet, data: Dataset, recipe: Recipe, *, saved: Path, identity: Mapping[str, Any]
) -> None:
    """Train the student in place, on a GPU where there is one, and bring it back to the processor."""
    processes, images = alone(), len(data.train) // recipe.batch * recipe.batch
    state = RunState(student.to(processes.device), sgd(student, recipe))
    if saved.exists():
        resume(state, saved, identity=identity, processes=processes)

    def forward(x: Tensor, arch: Arch, *, last: bool) -> Tensor:
        return student(x)  # type: ignore[no-any-return]

    lesson = Lesson(
        data=data,
        recipe=recipe,
        processes=processes,
        forward=forward,
        teacher=teacher.to(processes.device),
        draw=lambda: [student.arch],
        activity="fine-tuning",
        remedy="export without --finetune-epochs",
    )
    progress = Progress((recipe.epochs - state.epoch) * images, "images")
    while state.epoch < recipe.epochs:
        figures = train_epoch(state, lesson, progress)
        row = {"epoch": state.epoch + 1, "phase": "finetune", **figures.row()}
        state.finish_epoch(row, figures.seconds)
        save_state(state, saved, identity=identity, processes=processes)
    student.to("cpu")
