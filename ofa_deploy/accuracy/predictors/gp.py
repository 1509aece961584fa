"""A Gaussian process whose lengths are learned for groups of features (Rasmussen and Williams, 2006).

The covariance of scaled features x and z has a constant, a linear term with a variance v for each column, and two
squared exponentials with a length for each column, 1/sqrt(L): the first sees resolution and costs alone (L is 0 for the
others), the second everything:

    k(x, z) = a_0 + sum_i v_i x_i z_i + sum_{b = 1, 2} a_b exp(-(x - z)' L_b (x - z) / 2)

With the kept inputs u_j, their noise variances noise^2 / weights_j, and coefficients c = (K + noise)^-1 y,

    mean(z) = sum_j c_j k(z, u_j)        variance(z) = k(z, z) - k(z, u) (K + noise)^-1 k(u, z) + noise^2

Gains are of second order in part. With w_bj = a_b c_j exp(-(z - u_j)' L_b (z - u_j) / 2), the mean changes by

    sum_i (v_i sum_j c_j u_ji) d_i + sum_b sum_j w_bj (u_j - z)' L_b d        the slope: exact in d
    + sum_b sum_j w_bj [((u_j - z)' L_b d)^2 - d' L_b d] / 2                  the curvature

of which the slope is taken whole, and of the curvature what all inputs have in common, -d' L_b d sum_j w_bj / 2, for
the changes of codes: the squared distances of all values' codes are computed once. The rest would take a sum over all
inputs for each change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from ofa_deploy.accuracy.predictors.gains import ChangeTable
from ofa_deploy.accuracy.predictors.model import Array, Arrays, Gains, Labels, Model, Recipe
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.space import SearchSpace

JITTER = 1e-6


class GPModel(Model):
    """The mean and variance on top of this file, from these arrays.

    `inputs` u, shape (k, f), `weights` and `coefficients` c, shape (k,); `amplitudes` a, shape (3,); `linear` v, shape
    (f,); `inverse_lengths`, the roots of L, shape (2, f).
    """

    def moments(self, x: Array, *, spread: bool) -> tuple[Floats, Floats]:
        """Mean and variance in units of the target, shape (n,) each, from features of shape (n, f)."""
        arrays, z = self.arrays, self.scaled(x).astype(np.float64)
        if not spread:  # many times as fast, and the same to 1e-5 points
            mean = z @ self.trend + arrays["amplitudes"][0] * arrays["coefficients"].sum()
            for weights in self.input_weights(z):
                mean += weights.sum(axis=1, dtype=np.float64)
            return mean, 0 * mean
        u = arrays["inputs"].astype(np.float64)
        to = kernel(arrays, z, u)
        mean = to @ arrays["coefficients"]
        among = kernel(arrays, u, u)
        among[np.diag_indices(len(u))] += float(arrays["noise"][0]) ** 2 / arrays["weights"]
        prior = arrays["amplitudes"].sum() + np.square(z) @ arrays["linear"]
        return mean, np.maximum(prior - (to * np.linalg.solve(among, to.T).T).sum(1), 0)

    @cached_property
    def trend(self) -> Floats:
        """Slope of the mean by its linear term, shape (f,)."""
        inputs = self._inputs.astype(np.float64)
        return np.asarray(self.arrays["linear"] * (self.arrays["coefficients"] @ inputs))

    @cached_property
    def inverse_squares(self) -> Array:
        """L of each squared exponential, shape (2, f), in float32."""
        return np.square(self.arrays["inverse_lengths"]).astype(np.float32)

    @cached_property
    def _inputs(self) -> Array:
        return self.arrays["inputs"].astype(np.float32)

    @cached_property
    def _halves(self) -> Array:
        """u' L u / 2 of each squared exponential and input, shape (2, k)."""
        return np.asarray(self.inverse_squares @ np.square(self._inputs).T / 2)

    def input_weights(self, z: Array) -> Iterator[Array]:
        """For each squared exponential, what each input adds to the mean: w_bj.

        Args:
            z: scaled features, shape (n, f).

        Yields:
            shape (n, k), in float32.
        """
        z = z.astype(np.float32)
        columns = (self.inverse_squares, self._halves, self.arrays["amplitudes"][1:])
        for inverse, halves, amplitude in zip(*columns, strict=True):
            out = (z * inverse) @ self._inputs.T
            out -= halves
            out -= (np.square(z) @ inverse)[:, None] / 2
            np.exp(out, out=out)
            out *= (amplitude * self.arrays["coefficients"]).astype(np.float32)
            yield out

    def gains(self, space: SearchSpace) -> Gains:
        """A function from genes to the gains of all single changes, to first order, and part of the second."""
        table, scale = ChangeTable.of_features(space), self.arrays["scale"]
        distances = []  # d' L d between all values' codes, for each squared exponential
        for inverse in self.inverse_squares:
            products = (table.codes / scale * inverse) @ (table.codes / scale).T
            distances.append(np.diag(products)[:, None] + np.diag(products) - 2 * products)

        def gained(genes: Genes) -> Floats:
            moves = table.of(genes)
            z = self.scaled(moves.x)
            slopes = np.repeat(self.trend[None], len(z), axis=0)
            common = np.zeros((len(z), len(table.columns)))
            for inverse, distance, weights in zip(self.inverse_squares, distances, self.input_weights(z), strict=True):
                total = weights.sum(axis=1)[:, None]
                slopes += (weights @ self._inputs - total * z) * inverse
                common -= total * distance[np.arange(len(table.columns)), moves.present[:, table.columns]] / 2
            return self.points(common + moves.along(slopes / scale))

        return gained


@dataclass(frozen=True, kw_only=True)
class GP(Recipe):
    """Its settings maximise the marginal likelihood of some samples, with a weak normal prior on their logarithms.

    Of many samples it conditions on some, chosen at random, through which the others act (the projected process of
    section 8.3.4 of the book).

    Attributes:
        log_settings: natural logarithms, shape (2 * 5 + 6,): length of each group of features (see `FeatureLayout`),
            variance of the linear term of each group, lengths of resolution and costs alone, their amplitude, amplitude
            of everything, variance of the noise, constant; None learns them.
        tune: the most samples that the settings are learned on.
        most: the most samples that are kept.
    """

    log_settings: tuple[float, ...] | None = None
    tune: int = 1000
    most: int = 1500

    def tuned(self, labels: Labels) -> Self:
        """The recipe with settings."""
        if self.log_settings is not None:
            return self
        some = np.random.default_rng(self.seed).permutation(len(labels.y))[: self.tune]
        standardised, _, _ = labels.standardised()
        scaled = GPModel(labels.scaling(), labels.layout).scaled(labels.x)
        return replace(self, log_settings=_most_likely(replace(standardised, x=scaled).rows(some)))

    def fit(self, labels: Labels) -> GPModel:
        """The model of standardised labels; settings that are open must have been chosen by `tuned`."""
        assert self.log_settings is not None
        settings, sizes, layout = np.exp(self.log_settings), labels.layout.sizes, labels.layout
        n = len(sizes)
        lengths, alone = np.repeat(1 / settings[:n], sizes), np.zeros(labels.x.shape[1])
        alone[layout.numbers] = np.repeat(1 / settings[2 * n : 2 * n + 2], sizes[-2:])
        model = GPModel(
            {
                **labels.scaling(),
                "linear": np.repeat(settings[n : 2 * n], sizes),
                "inverse_lengths": np.stack([alone, lengths]),
                "amplitudes": settings[[-1, -4, -3]],
                "noise": np.sqrt(settings[[-2]]),
            },
            layout,
        )
        kept = np.sort(np.random.default_rng(self.seed).permutation(len(labels.y))[: self.most])
        z = model.scaled(labels.x).astype(np.float32).astype(np.float64)
        among, to = kernel(model.arrays, z[kept], z[kept]), kernel(model.arrays, z[kept], z)
        among[np.diag_indices(len(kept))] += JITTER * among.diagonal().mean()
        root = np.linalg.cholesky(among)
        half = np.linalg.solve(root, to) * np.sqrt(labels.weight) / settings[-2] ** 0.5
        inner = np.eye(len(kept)) + half @ half.T
        right = half @ (labels.y * np.sqrt(labels.weight)) / settings[-2] ** 0.5
        coefficients = np.linalg.solve(root.T, np.linalg.solve(inner, right))
        return model.with_arrays(
            {"inputs": z[kept].astype(np.float32), "weights": labels.weight[kept], "coefficients": coefficients}
        )


def kernel(arrays: Arrays, x: Array, z: Array) -> Array:
    """The covariance on top of this file, between scaled features of shapes (n, f) and (m, f): shape (n, m)."""
    return np.asarray((x * arrays["linear"]) @ z.T + float(arrays["amplitudes"][0]) + _exponentials(arrays, x, z))


def _exponentials(arrays: Arrays, x: Array, z: Array) -> Array:
    """The squared exponentials of the covariance, in the precision of x and z."""
    out = np.zeros((len(x), len(z)), x.dtype)
    for amplitude, inverse in zip(arrays["amplitudes"][1:].tolist(), arrays["inverse_lengths"], strict=True):
        columns = inverse > 0
        a, b = (features[:, columns] * inverse[columns].astype(x.dtype) for features in (x, z))
        square = a @ b.T
        square *= -2
        square += np.square(a).sum(1)[:, None]
        square += np.square(b).sum(1)
        np.maximum(square, 0, out=square)
        square *= -0.5
        out += amplitude * np.exp(square, out=square)
    return out


def _most_likely(labels: Labels) -> tuple[float, ...]:
    """Logarithms of the settings with the largest posterior density, of scaled features and standardised labels."""
    import torch
    from scipy.optimize import minimize
    from torch import Tensor

    layout, n = labels.layout, len(labels.layout.sizes)
    slices = (layout.kernels, layout.expands, layout.widths, layout.resolution, layout.costs)
    groups = [torch.from_numpy(np.ascontiguousarray(labels.x[:, columns])) for columns in slices]
    squares = torch.stack([torch.cdist(group, group) ** 2 for group in groups])
    products = torch.stack([group @ group.T for group in groups])
    target, noise = torch.from_numpy(labels.y), torch.from_numpy(1 / labels.weight)

    def exponential(amplitude: Tensor, lengths: Tensor, distances: Tensor) -> Tensor:
        return torch.exp(amplitude - 0.5 * torch.einsum("g,gij->ij", torch.exp(-2 * lengths), distances))

    def loss(log: Tensor) -> Tensor:
        cov = torch.exp(log[-1]) + torch.einsum("g,gij->ij", torch.exp(log[n : 2 * n]), products)
        cov = cov + exponential(log[-4], log[2 * n : 2 * n + 2], squares[-2:]) + exponential(log[-3], log[:n], squares)
        root = torch.linalg.cholesky(cov + torch.diag((torch.exp(log[-2]) + JITTER) * noise))
        white = torch.linalg.solve_triangular(root, target[:, None], upper=False)
        value: Tensor = 0.5 * white.square().sum() + root.diagonal().log().sum() + 0.01 * log.square().sum()
        return value

    def value_and_slope(log: Floats) -> tuple[float, Floats]:
        point = torch.from_numpy(log).requires_grad_()
        value = loss(point)
        value.backward()  # type: ignore[no-untyped-call]
        assert point.grad is not None
        return float(value.detach()), point.grad.numpy()

    start = np.array([1.0] * n + [-1.0] * n + [1.0, 1.0, -2.0, -2.0, -5.0, 0.0])
    bounds = [(-12, 8)] * len(start)
    optimum = minimize(value_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return tuple(optimum.x.tolist())
