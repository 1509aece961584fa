"""How models are fitted that are means of several small networks: by PyTorch, all members at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from ofa_deploy.accuracy.predictors.model import Array, Labels, Recipe, fit_model

if TYPE_CHECKING:
    from torch import Tensor

DECAYS = (0.3, 1.0, 3.0)
"""Weight decays to choose from: clean labels want little, noisy ones more."""


@dataclass(frozen=True, kw_only=True)
class Ensemble(Recipe):
    """The mean of several networks that differ in initial weights and batches.

    Attributes:
        members: networks.
        steps: of the optimiser.
        batch: samples a step.
        lr: highest learning rate.
        weight_decay: of AdamW; None chooses it on a fifth of the samples.
    """

    members: int
    steps: int
    batch: int = 128
    lr: float
    weight_decay: float | None = None

    def tuned(self, labels: Labels) -> Self:
        """The recipe with the weight decay, where it is open, that errs least on a fifth of the samples.

        All members take part: fewer want more of it than their mean does.
        """
        from sklearn.model_selection import train_test_split

        if self.weight_decay is not None:
            return self
        fitted, held = train_test_split(np.arange(len(labels.y)), test_size=0.2, random_state=self.seed)
        training, test = labels.rows(fitted), labels.rows(held)

        def error(decay: float) -> float:
            mean, _ = fit_model(replace(self, weight_decay=decay), training).predict(test.x, spread=False)
            return float(np.average((mean - test.y) ** 2, weights=test.weight))

        return replace(self, weight_decay=min(DECAYS, key=error))

    def train(
        self, forward: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], inputs: Array, labels: Labels
    ) -> None:
        """Minimise the weighted squared error by AdamW with a one-cycle schedule (Smith and Topin, arXiv 1708.07120).

        Args:
            forward: from inputs of shape (members, batch, f) to outputs of (members, batch).
            parameters: changed in place; the first axis is the members'.
            inputs: scaled, shape (n, f).
            labels: standardised.
        """
        import torch

        assert self.weight_decay is not None
        generator = torch.Generator().manual_seed(self.seed)
        columns = (inputs, labels.y, labels.weight / labels.weight.mean())
        x, target, weights = (torch.from_numpy(np.asarray(v, np.float32)) for v in columns)
        size = min(self.batch, len(x))
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, self.steps)
        for _ in range(self.steps):
            rows = torch.randint(len(x), (self.members, size), generator=generator)
            loss = ((forward(x[rows]) - target[rows]).square() * weights[rows]).mean(1).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
