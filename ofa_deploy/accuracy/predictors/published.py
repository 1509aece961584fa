"""The accuracy predictor of the once-for-all paper, plainly trained: what ours is compared with."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import nn

from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.encoding import FeatureLayout, Features


class PublishedMLP(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Three hidden layers of 400 with ReLU on one-hot choices and resolution (Cai et al., arXiv 1908.09791).

    The paper does not say how it is trained; here by Adam at its default rate on the squared error of the accuracy as a
    fraction, less its mean, as the project's own code has it.

    Args:
        layout: which columns of the features mean what.
        epochs: over the samples.
        batch: samples a step.
        seed: of initial weights and batches.
    """

    def __init__(self, layout: FeatureLayout, *, epochs: int = 100, batch: int = 64, seed: int = 0) -> None:
        self.layout = layout
        self.epochs = epochs
        self.batch = batch
        self.seed = seed

    def fit(self, X: Features, y: Floats) -> Self:  # noqa: N803
        """Fit on features of shape (n, f) and top-1 in percent of shape (n,)."""
        self.resolutions_ = np.unique(X[:, self.layout.resolution.start])
        x, fraction = self._inputs(X), torch.from_numpy(np.asarray(y) / 100).float()
        self.base_ = float(fraction.mean())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            hidden = [layer for width in (x.shape[1], 400, 400) for layer in (nn.Linear(width, 400), nn.ReLU())]
            self.net_ = nn.Sequential(*hidden, nn.Linear(400, 1, bias=False))
            optimizer = torch.optim.Adam(self.net_.parameters())
            for _ in range(self.epochs):
                for rows in torch.split(torch.randperm(len(x)), self.batch):
                    loss = (self.net_(x[rows])[:, 0] + self.base_ - fraction[rows]).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        return self

    def predict(self, X: Features) -> Any:  # noqa: N803
        """Top-1 in percent, shape (n,)."""
        with torch.inference_mode():
            return 100 * (self.net_(self._inputs(X))[:, 0].numpy().astype(np.float64) + self.base_)

    def _inputs(self, x: Features) -> torch.Tensor:
        resolution = (x[:, [self.layout.resolution.start]] == self.resolutions_).astype(np.float32)
        return torch.from_numpy(np.concatenate([x[:, self.layout.codes], resolution], axis=1))
