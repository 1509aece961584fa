"""Training recipes: the phases of progressive shrinking (Cai et al., arXiv 1908.09791, section 3.3), as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.spaces.space import SearchSpace

PRECISIONS = ("auto", "float32", "bf16")
"""Number formats of a training's passes; `auto` is bf16 on GPUs that have it, otherwise float32."""


@dataclass(frozen=True)
class Phase:
    """One phase of a training: which subnetworks are drawn, and for how long.

    Attributes:
        name: what the log calls it.
        epochs: passes over the training images.
        lr: highest learning rate for a batch of 64 images; it grows in proportion to the batch.
        kernels: how many of the largest kernel sizes are drawn from; 1 keeps the largest.
        depths: how many of the largest depths of a stage are drawn from.
        expands: how many of the largest expansions are drawn from, and of the elastic widths where a space has them.
            Where it grows from one phase to the next, middle channels are sorted by importance first.
        subnets: subnetworks a step; their gradients are summed.
        warmup: epochs of linear warm-up, before a cosine to zero.
    """

    name: str
    epochs: int
    lr: float
    kernels: int = 1
    depths: int = 1
    expands: int = 1
    subnets: int = 1
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or min(self.kernels, self.depths, self.expands, self.subnets) < 1:
            raise OfaDeployError(f"phase {self.name}: epochs, choices and subnets must be at least 1")
        if not self.lr > 0 or self.warmup < 0:
            raise OfaDeployError(f"phase {self.name}: the learning rate must be positive and the warm-up not negative")

    def share(self, epoch: float) -> float:
        """Share of the highest learning rate at an epoch, such as 1.5: a linear warm-up, then a cosine to zero."""
        if epoch < self.warmup:
            return epoch / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-9)))

    def subspace_of(self, space: SearchSpace) -> SearchSpace:
        """The subspace that is drawn from."""
        return space.largest_choices(self.kernels, self.depths, self.expands, self.expands)


@dataclass(frozen=True)
class Recipe:
    """How a supernet is trained.

    Attributes:
        phases: one after the other. Where the first one trains only the largest network, the network at its end
            teaches the later phases.
        batch: images a step, over all processes.
        momentum: momentum of SGD with Nesterov's correction; it starts anew in every phase.
        weight_decay: weight decay of convolutions and dense layers; norms, biases and kernel matrices have none.
        smoothing: label smoothing.
        distill: weight of the soft-label cross entropy against the teacher (Hinton et al., arXiv 1503.02531).
        erase: probability that a rectangle of an image is blanked (Zhong et al., arXiv 1708.04896).
        sandwich: besides the drawn subnetworks, each step trains the phase's largest and smallest (Yu and Huang,
            arXiv 1903.05134).
        precision: `float32`, `bf16` (automatic mixed precision), or `auto`: bf16 on GPUs that have it.
        seed: seed of everything random.
    """

    phases: tuple[Phase, ...]
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4
    smoothing: float = 0.1
    distill: float = 1.0
    erase: float = 0.0
    sandwich: bool = False
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.phases:
            raise OfaDeployError("a recipe needs at least one phase")
        if self.batch < 2:
            raise OfaDeployError(f"the batch must be at least 2 images, not {self.batch}")
        if self.precision not in PRECISIONS:
            raise OfaDeployError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if not 0 <= self.erase <= 1 or not 0 <= self.smoothing < 1 or min(self.distill, self.weight_decay) < 0:
            raise OfaDeployError("erase and smoothing are shares of 1; distill and weight_decay are not negative")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Recipe:
        """The recipe whose fields `dataclasses.asdict` gave, also as JSON gives them back."""
        return cls(**{**fields, "phases": tuple(Phase(**phase) for phase in fields["phases"])})

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def teacher_epochs(self) -> int | None:
        """Epochs after which the network becomes the teacher; None where there is none."""
        first = self.phases[0]
        return first.epochs if first.kernels == first.depths == first.expands == 1 else None

    def phase_at(self, epoch: int) -> tuple[int, int]:
        """Index of the phase that an epoch (from 0) belongs to, and the epoch's number in that phase (from 0)."""
        for index, phase in enumerate(self.phases):
            if epoch < phase.epochs:
                return index, epoch
            epoch -= phase.epochs
        raise ValueError("the recipe has fewer epochs")

    def scaled(self, epochs: int | None = None, lr_factor: float = 1.0) -> Recipe:
        """The recipe shortened or lengthened, with other learning rates.

        Args:
            epochs: epochs of all phases together, shared out as they are now; each phase keeps at least one. None
                keeps their number.
            lr_factor: multiplies all learning rates.

        Raises:
            OfaDeployError: there are fewer epochs than phases, or the factor is not positive.
        """
        if epochs is not None and epochs < len(self.phases):
            raise OfaDeployError(f"the recipe needs at least {len(self.phases)} epochs, one a phase, not {epochs}")
        if not lr_factor > 0:
            raise OfaDeployError(f"the factor of the learning rates must be positive, not {lr_factor}")
        share = 1.0 if epochs is None else epochs / self.epochs
        numbers = [1] * len(self.phases)
        while sum(numbers) < (epochs or self.epochs):  # the next epoch is for the phase that lacks most
            lacking = [phase.epochs * share - number for phase, number in zip(self.phases, numbers, strict=True)]
            numbers[lacking.index(max(lacking))] += 1
        phases = tuple(
            replace(phase, epochs=number, warmup=round(phase.warmup * min(share, 1.0)), lr=phase.lr * lr_factor)
            for phase, number in zip(self.phases, numbers, strict=True)
        )
        return replace(self, phases=phases)


RECIPES: dict[str, Recipe] = {
    "short": Recipe(
        phases=(
            Phase("teacher", 24, 0.05, warmup=1),
            Phase("kernel", 10, 0.02, kernels=3),
            Phase("depth-1", 4, 0.01, kernels=3, depths=2, subnets=2),
            Phase("depth-2", 8, 0.01, kernels=3, depths=3, subnets=2),
            Phase("expand-1", 4, 0.0075, kernels=3, depths=3, expands=2, subnets=4),
            Phase("expand-2", 16, 0.0075, kernels=3, depths=3, expands=3, subnets=4),
        ),
        weight_decay=2e-4,
        erase=0.2,
    ),
    "imagenet": Recipe(
        phases=(
            Phase("teacher", 180, 0.08, warmup=5),
            Phase("kernel", 120, 0.03, kernels=3, warmup=5),
            Phase("depth-1", 25, 0.0025, kernels=3, depths=2, subnets=2),
            Phase("depth-2", 120, 0.0075, kernels=3, depths=3, subnets=2, warmup=5),
            Phase("expand-1", 25, 0.0025, kernels=3, depths=3, expands=2, subnets=4),
            Phase("expand-2", 120, 0.0075, kernels=3, depths=3, expands=3, subnets=4, warmup=5),
        ),
        batch=2048,
        weight_decay=3e-5,
    ),
}
"""`short` is for tens of thousands of small images on processors; `imagenet` has the paper's epochs (the teacher's 180
included), learning rates, batch and weight decay."""


def get_recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        OfaDeployError: there is none of that name.
    """
    if name not in RECIPES:
        raise OfaDeployError(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
