"""A Gaussian process whose lengths are learned for groups of features."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.base import clone
from torch import Tensor

from ofa_deploy.accuracy.predictors import CONTINUOUS, Features
from ofa_deploy.accuracy.predictors.estimator import Estimator, scaling, standardised
from ofa_deploy.accuracy.predictors.inference import Array, kernel, scaled
from ofa_deploy.spaces.costs import Floats

JITTER = 1e-6


class GP(Estimator):
    """Gaussian process regression with the covariance of `inference.kernel` (Rasmussen and Williams, 2006).

    Its settings maximise the marginal likelihood of at most `tune` samples, with a weak normal prior on their
    logarithms. Of more than `most` samples it conditions on that many, chosen at random, through which the others act
    (the projected process of section 8.3.4).

    Args:
        groups: columns of each group of features (see `predictors.groups`); None makes one of all one-hot columns, and
            two of the others.
        log_settings: natural logarithms, shape (2 * groups + 6,): length of each group, variance of the linear term
            of each group, lengths of resolution and costs alone, their amplitude, amplitude of everything, variance of
            the noise, constant; None learns them.
        tune: samples that the settings are learned on.
        most: samples that are kept.
        seed: of the choice of samples.
    """

    model = "gp"

    def __init__(
        self,
        groups: tuple[int, ...] | None = None,
        log_settings: tuple[float, ...] | None = None,
        tune: int = 1000,
        most: int = 1500,
        seed: int = 0,
    ) -> None:
        self.groups = groups
        self.log_settings = log_settings
        self.tune = tune
        self.most = most
        self.seed = seed

    def tuned(self, X: Features, y: Floats, sample_weight: Floats | None = None) -> Self:  # noqa: N803
        """An unfitted copy with settings."""
        if self.log_settings is not None:
            return clone(self)  # type: ignore[no-any-return]
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        some = np.random.default_rng(self.seed).permutation(len(y))[: self.tune]
        target, _, _ = standardised(y, weight)
        settings = _most_likely(scaled(scaling(X), X)[some], target[some], weight[some], self._groups(X.shape[1]))
        return clone(self).set_params(log_settings=settings)  # type: ignore[no-any-return]

    def _groups(self, columns: int) -> tuple[int, ...]:
        groups = self.groups or (columns - CONTINUOUS, 2, CONTINUOUS - 2)
        if sum(groups) != columns:
            raise ValueError(f"groups of {sum(groups)} columns, but the features have {columns}")
        return groups

    def _fit(self, x: Array, y: Floats, weight: Floats) -> dict[str, Array]:
        groups = self._groups(x.shape[1])
        assert self.log_settings is not None
        settings = np.exp(self.log_settings)
        n = len(groups)
        lengths, alone = np.repeat(1 / settings[:n], groups), np.zeros(x.shape[1])
        alone[-CONTINUOUS:] = np.repeat(1 / settings[2 * n : 2 * n + 2], groups[-2:])
        arrays = scaling(x) | {
            "linear": np.repeat(settings[n : 2 * n], groups),
            "inverse_lengths": np.stack([alone, lengths]),
            "amplitudes": settings[[-1, -4, -3]],
            "noise": np.sqrt(settings[[-2]]),
        }
        kept = np.sort(np.random.default_rng(self.seed).permutation(len(x))[: self.most])
        z = scaled(arrays, x).astype(np.float32).astype(np.float64)
        among, to = kernel(arrays, z[kept], z[kept]), kernel(arrays, z[kept], z)
        among[np.diag_indices(len(kept))] += JITTER * among.diagonal().mean()
        root = np.linalg.cholesky(among)
        half = np.linalg.solve(root, to) * np.sqrt(weight) / settings[-2] ** 0.5
        inner = np.eye(len(kept)) + half @ half.T
        right = half @ (y * np.sqrt(weight)) / settings[-2] ** 0.5
        coefficients = np.linalg.solve(root.T, np.linalg.solve(inner, right))
        return arrays | {"inputs": z[kept].astype(np.float32), "weights": weight[kept], "coefficients": coefficients}


def _most_likely(x: Array, y: Floats, weight: Floats, groups: tuple[int, ...]) -> tuple[float, ...]:
    """Logarithms of the settings with the largest posterior density."""
    n = len(groups)
    ends = np.cumsum(groups)
    parts = [torch.from_numpy(np.ascontiguousarray(x[:, e - g : e])) for g, e in zip(groups, ends, strict=True)]
    squares = torch.stack([torch.cdist(p, p) ** 2 for p in parts])
    products = torch.stack([p @ p.T for p in parts])
    target, noise = torch.from_numpy(y), torch.from_numpy(1 / weight)

    def loss(log: Tensor) -> Tensor:
        def exponential(amplitude: Tensor, lengths: Tensor, of: Tensor) -> Tensor:
            return torch.exp(amplitude - 0.5 * torch.einsum("g,gij->ij", torch.exp(-2 * lengths), of))

        cov = torch.exp(log[-1]) + torch.einsum("g,gij->ij", torch.exp(log[n : 2 * n]), products)
        cov = cov + exponential(log[-4], log[2 * n : 2 * n + 2], squares[-2:]) + exponential(log[-3], log[:n], squares)
        root = torch.linalg.cholesky(cov + torch.diag((torch.exp(log[-2]) + JITTER) * noise))
        white = torch.linalg.solve_triangular(root, target[:, None], upper=False)
        value: Tensor = 0.5 * white.square().sum() + root.diagonal().log().sum() + 0.01 * log.square().sum()
        return value

    def value(log: Floats) -> tuple[float, Floats]:
        point = torch.from_numpy(log).requires_grad_()
        found = loss(point)
        found.backward()  # type: ignore[no-untyped-call]
        assert point.grad is not None
        return float(found.detach()), point.grad.numpy()

    start = np.array([1.0] * n + [-1.0] * n + [1.0, 1.0, -2.0, -2.0, -5.0, 0.0])
    found = minimize(value, start, jac=True, method="L-BFGS-B", bounds=[(-12, 8)] * len(start), options={"maxiter": 60})
    return tuple(found.x.tolist())
