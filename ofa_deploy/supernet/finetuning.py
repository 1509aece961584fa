"""Fine-tuning a subnetwork by itself, taught by the largest network of its supernet.

The paper does so for 25 or 75 epochs with what it deploys (Cai et al., arXiv 1908.09791, section 4). The loss is that
of progressive shrinking, the teacher is the supernet as it is.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.json_text import Json
from ofa_deploy.progress import Progress
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.batches import batches
from ofa_deploy.supernet.evaluation import count_correct_by_session, specialise
from ofa_deploy.supernet.network import Subnet, Supernet
from ofa_deploy.supernet.processes import alone
from ofa_deploy.supernet.recalibration import recalibrate
from ofa_deploy.supernet.recipes import Phase, Recipe
from ofa_deploy.supernet.training import optimizer

logger = logging.getLogger(__name__)

RECIPE = Recipe((Phase("finetune", 1, 0.0025),), weight_decay=2e-4, erase=0.2)
"""For one epoch; `RECIPE.scaled(epochs)` is for more."""
SUFFIX = ".finetune"
"""Of the file that a run which was killed goes on from."""
BATCH = 200
"""Images at once where accuracy is measured."""


def finetune(
    net: Supernet,
    arch: Arch,
    data: Dataset,
    recipe: Recipe,
    saved: Path,
    weights_sha256: str,
    recalibration: int = RECALIBRATION,
) -> tuple[Subnet, Json]:
    """Train a subnetwork further, with weights of its own; a run that was killed goes on from its last epoch.

    Args:
        net: the supernet, which stays as it is.
        arch: of the subnetwork.
        data: all training images.
        recipe: of one phase; its batch is at most all training images.
        saved: file of the run's state, to be removed when its result is kept.
        weights_sha256: of the supernet's file, by which `saved` is recognised.
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
    about = {
        "space": net.space.name,
        "arch": str(arch),
        "recipe": asdict(recipe),
        "images_sha256": data.sha256(),
        "weights_sha256": weights_sha256,
        "recalibration": recalibration,
    }
    student = specialise(net, arch, data, recalibration)
    before = _top1_percent(student, data)
    with atomic.locked(saved):
        teacher = specialise(net, net.space.extreme(True, arch.resolution), data, recalibration)
        _train(student, teacher, data, recipe, saved, about)
    recalibrate(student, data.recalibration(arch.resolution, recalibration))
    phase = recipe.phases[0]
    return student, {
        "epochs": phase.epochs,
        "lr": phase.lr,
        "batch": recipe.batch,
        "seed": recipe.seed,
        "heldout_images": len(data.heldout),
        "heldout_top1_percent_before": before,
        "heldout_top1_percent": _top1_percent(student, data),
    }


def _train(
    student: Subnet,
    teacher: Subnet,
    data: Dataset,
    recipe: Recipe,
    saved: Path,
    about: Mapping[str, Any],
) -> None:
    """Train in place; on a GPU where there is one, and back to the processor."""
    processes, phase, size = alone(), recipe.phases[0], student.arch.resolution
    student.to(processes.device)
    teacher.to(processes.device)
    moves = optimizer(student, recipe)
    begun = _resume(student, moves, saved, about)
    steps = len(data.train) // recipe.batch
    progress = Progress((phase.epochs - begun) * steps * recipe.batch, "images")
    for epoch in range(begun, phase.epochs):
        student.train()
        for step, (pixels, labels) in enumerate(
            batches(data, recipe.batch, recipe.erase, (recipe.seed, epoch, 0), processes)
        ):
            for group in moves.param_groups:
                group["lr"] = phase.lr * recipe.batch / 64 * phase.share(epoch + step / steps)
            x = data.tensor(pixels, size)
            with torch.no_grad():
                soft = F.softmax(teacher(x), dim=1)
            logits = student(x)
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
            loss = loss + recipe.distill * F.cross_entropy(logits, soft)
            if not math.isfinite(loss.item()):
                raise OfaDeployError(f"fine-tuning diverged in epoch {epoch + 1}; export without --finetune-epochs")
            moves.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            moves.step()
            progress.add(recipe.batch, f"fine-tuning, epoch {epoch + 1} of {phase.epochs}, loss {loss.item():.3f}")
        _save(student, moves, saved, {**about, "epoch": epoch + 1})
    student.to("cpu")


def _save(student: Subnet, moves: torch.optim.SGD, path: Path, about: Mapping[str, Any]) -> None:
    tensors = {f"net.{name}": value for name, value in student.state_dict().items()}
    tensors |= {
        f"momentum.{name}": moves.state[p]["momentum_buffer"]
        for name, p in student.named_parameters()
        if moves.state[p].get("momentum_buffer") is not None
    }
    content = checkpoint.content(tensors, {"ofa_deploy": json.dumps(about)})
    atomic.write(path, content)


def _resume(student: Subnet, moves: torch.optim.SGD, path: Path, about: Mapping[str, Any]) -> int:
    """The epochs that are done, with the state that a killed run left."""
    if not path.exists():
        return 0
    try:
        tensors, notes = checkpoint.parse(atomic.read(path), path)
        found = json.loads(notes["ofa_deploy"])
        epoch = int(found.pop("epoch"))
        if found == json.loads(json.dumps(about)):
            own = {key.removeprefix("net."): value for key, value in tensors.items() if key.startswith("net.")}
            student.load_state_dict(own)
            for name, p in student.named_parameters():
                moves.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(tensors[f"momentum.{name}"])
            logger.info(f"resuming after epoch {epoch} of fine-tuning")
            return epoch
    except (ArtifactError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ArtifactError(f"{path} is damaged; remove it to start anew") from error
    raise ArtifactError(
        f"{path} is of another run (architecture, epochs, images or weights differ); repeat that, or remove the file"
    )


def _top1_percent(net: Subnet, data: Dataset) -> float:
    """On all held-out images."""

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return net.eval()(torch.from_numpy(x)).numpy()

    return round(
        100 * count_correct_by_session(run, data, data.heldout, net.arch.resolution, BATCH) / len(data.heldout), 3
    )
