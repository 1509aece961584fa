"""What models that are means of several small networks share: their training, all members at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from torch import Tensor

from ofa_deploy.accuracy.predictors import Features
from ofa_deploy.accuracy.predictors.estimator import Estimator
from ofa_deploy.accuracy.predictors.inference import Array
from ofa_deploy.spaces.costs import Floats

DECAYS = (0.3, 1.0, 3.0)
"""Weight decays to choose from: clean labels want little, noisy ones more."""


class Ensemble(Estimator):
    """The mean of several networks that differ in initial weights and batches."""

    members: int
    steps: int
    batch: int
    lr: float
    weight_decay: float | None
    seed: int

    def tuned(self, X: Features, y: Floats, sample_weight: Floats | None = None) -> Self:  # noqa: N803
        """An unfitted copy whose weight decay, where it is open, is chosen on a fifth of the samples.

        All members take part: fewer want more of it than their mean does.
        """
        if self.weight_decay is not None:
            return clone(self)  # type: ignore[no-any-return]
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        fitted, held = train_test_split(np.arange(len(y)), test_size=0.2, random_state=self.seed)

        def error(decay: float) -> float:
            trial = clone(self).set_params(weight_decay=decay).fit(X[fitted], y[fitted], weight[fitted])
            return float(np.average((trial.predict(X[held]) - y[held]) ** 2, weights=weight[held]))

        return clone(self).set_params(weight_decay=min(DECAYS, key=error))  # type: ignore[no-any-return]

    def _train(
        self, forward: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], x: Array, y: Floats, weight: Floats
    ) -> None:
        """Minimise the weighted squared error by AdamW with a one-cycle schedule (Smith and Topin, arXiv 1708.07120).

        Args:
            forward: from inputs of shape (members, batch, f) to outputs of (members, batch).
            parameters: changed in place; the first axis is the members'.
            x: scaled inputs, shape (n, f).
            y: standardised targets, shape (n,).
            weight: of each sample.
        """
        assert self.weight_decay is not None
        generator = torch.Generator().manual_seed(self.seed)
        inputs, target, weights = (torch.from_numpy(np.asarray(v, np.float32)) for v in (x, y, weight / weight.mean()))
        size = min(self.batch, len(x))
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, self.steps)
        for _ in range(self.steps):
            rows = torch.randint(len(x), (self.members, size), generator=generator)
            loss = ((forward(inputs[rows]) - target[rows]).square() * weights[rows]).mean(1).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
