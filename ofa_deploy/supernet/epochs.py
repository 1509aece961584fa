"""An epoch of training: the same steps for a supernet and for a subnetwork that is fine-tuned by itself.

The loss of a network is cross entropy with smoothed labels plus the soft-label cross entropy against a teacher (Cai et
al., arXiv 1908.09791, section 3.3).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.progress import Progress
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet.batches import batches
from ofa_deploy.supernet.processes import Processes
from ofa_deploy.supernet.recipes import Recipe
from ofa_deploy.supernet.run_state import RunState


class Forward(Protocol):
    """The pass of network inputs through the network that learns."""

    def __call__(self, x: Tensor, arch: Arch, *, last: bool) -> Tensor:
        """Logits of an architecture.

        Args:
            x: network inputs, shape (n, channels, arch.resolution, arch.resolution).
            arch: the architecture.
            last: whether it is the step's last one.

        Returns:
            shape (n, classes).
        """


@dataclass(frozen=True)
class Lesson:
    """What an epoch teaches.

    Attributes:
        data: whose training images.
        recipe: learning rates, batch, losses, precision and seed.
        processes: who trains.
        forward: logits of the network that learns.
        teacher: logits of the teacher, shape (n, classes), for network inputs; None where nobody teaches.
        draw: the architectures of the next step, all of one resolution.
        activity: what diverges, for the message.
        remedy: what the user can do then.
    """

    data: Dataset
    recipe: Recipe
    processes: Processes
    forward: Forward
    teacher: Callable[[Tensor], Tensor] | None
    draw: Callable[[], Sequence[Arch]]
    activity: str
    remedy: str


@dataclass(frozen=True)
class EpochFigures:
    """What an epoch came to.

    Attributes:
        loss: mean over its steps.
        seconds: what its steps took.
        images: how many were seen, by all processes together.
    """

    loss: float
    seconds: float
    images: int

    def row(self, **accuracies: float | None) -> dict[str, float | None]:
        """Its figures for the log, with accuracies of networks in percent."""
        return {
            "loss": round(self.loss, 4),
            **accuracies,
            "seconds": round(self.seconds, 1),
            "images_per_second": round(self.images / self.seconds, 1),
        }


def sgd(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with Nesterov's momentum; norms, biases and kernel matrices do not decay; each step sets the rate."""
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        (decaying if parameter.ndim > 1 and not name.endswith("matrix") else others).append(parameter)
    return torch.optim.SGD(
        [{"params": decaying, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=1.0,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
    )


def train_epoch(state: RunState, lesson: Lesson, progress: Progress) -> EpochFigures:
    """One pass over the training images; everything random depends only on the seed and the epoch.

    Args:
        state: the run; its network and optimizer are changed, its count of epochs is not.
        lesson: what is taught.
        progress: counts the images.

    Raises:
        OfaDeployError: the loss or a weight is not finite any more.
    """
    recipe, data = lesson.recipe, lesson.data
    index, within = recipe.phase_at(state.epoch)
    phase, steps, losses = recipe.phases[index], len(data.train) // recipe.batch, []
    started = time.perf_counter()
    state.net.train()
    for parameter in state.net.parameters():  # from now on zero where a step does not use it, never missing
        parameter.grad = torch.zeros_like(parameter)
    seed = (recipe.seed, state.epoch, 0)
    drawn = batches(data, batch=recipe.batch, erase=recipe.erase, seed=seed, processes=lesson.processes)
    for step, (pixels, labels) in enumerate(drawn):
        for group in state.optimizer.param_groups:
            group["lr"] = phase.lr * recipe.batch / 64 * phase.share(within + step / steps)
        archs = lesson.draw()
        x = data.tensor(pixels, archs[0].resolution)
        losses.append(descend(state.optimizer, lesson, x, labels, archs=archs))
        if not math.isfinite(losses[-1]):
            raise _diverged(state, lesson)
        note = f"{phase.name}, epoch {state.epoch + 1} of {recipe.epochs}, loss {np.mean(losses[-50:]):.3f}"
        progress.add(recipe.batch, note)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in state.net.parameters()):
        raise _diverged(state, lesson)
    return EpochFigures(float(np.mean(losses)), time.perf_counter() - started, steps * recipe.batch)


def descend(optimizer: torch.optim.SGD, lesson: Lesson, x: Tensor, labels: Tensor, *, archs: Sequence[Arch]) -> float:
    """One step: sum the gradients of the architectures' losses and move the weights.

    Args:
        optimizer: what moves the weights.
        lesson: the network that learns, its teacher, and the recipe.
        x: network inputs, shape (n, channels, resolution, resolution).
        labels: index of each image's class, shape (n,).
        archs: the architectures, of that resolution.

    Returns:
        the mean loss of the architectures.
    """
    device, total = x.device.type, 0.0
    optimizer.zero_grad(set_to_none=False)
    with torch.autocast(device, torch.bfloat16, enabled=uses_bf16(lesson.recipe, device)):
        soft_labels = None
        if lesson.teacher is not None:
            with torch.no_grad():
                soft_labels = F.softmax(lesson.teacher(x).float(), dim=1)
        for number, arch in enumerate(archs, start=1):
            logits = lesson.forward(x, arch, last=number == len(archs)).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=lesson.recipe.smoothing)
            if soft_labels is not None:
                loss = loss + lesson.recipe.distill * F.cross_entropy(logits, soft_labels)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    optimizer.step()
    return total / len(archs)


def uses_bf16(recipe: Recipe, device: str) -> bool:
    """Whether a recipe's precision is bf16 on a type of device (`cpu` or `cuda`)."""
    if recipe.precision == "auto":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return recipe.precision == "bf16"


def _diverged(state: RunState, lesson: Lesson) -> OfaDeployError:
    return OfaDeployError(f"{lesson.activity} diverged in epoch {state.epoch + 1}; {lesson.remedy}")
