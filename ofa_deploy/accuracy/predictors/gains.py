"""What a model makes of all single changes of a network, at once and roughly.

A network and one of its changes differ in few features. So the first hidden layer of all changes takes a sum over those
features alone; what follows that layer is taken to be linear, with the slopes that it has at the network. Models
without rectifying units are taken to second order where that is cheap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ofa_deploy.accuracy.predictors import CONTINUOUS, continuous_changed, features, official
from ofa_deploy.accuracy.predictors.inference import Array, Arrays, known_weights, scaled, silu, with_linear_costs
from ofa_deploy.spaces.costs import Floats, Genes, Ints
from ofa_deploy.spaces.space import SearchSpace


class Gains(ABC):
    """The gains of all single changes of networks by one model, see `SearchSpace.changes`.

    Args:
        space: of the networks.
        arrays: of the model, as `inference.prepared` gives them.
    """

    continuous: ClassVar[int] = CONTINUOUS
    """Features at the end that are no one-hot code."""

    def __init__(self, space: SearchSpace, arrays: Arrays) -> None:
        self.space, self.arrays = space, arrays
        self.columns, values = space.changes
        alone = np.zeros((1 + len(values), space.columns), np.int16)
        alone[1 + np.arange(len(values)), self.columns] = values
        inputs = self.inputs(alone)
        self.codes = inputs[1:] - inputs[0]  # one-hot features of each value of each gene
        self.codes[:, self.codes.shape[1] - self.continuous :] = 0
        self.starts = np.searchsorted(self.columns, np.arange(space.columns))

    def __call__(self, genes: Genes) -> Floats:
        """In percent of top-1 accuracy, shape (n, m), from genes of shape (n, columns)."""
        x = self.inputs(genes)
        gains = self.gained(x, self.starts + genes, self.moved(genes, x))
        return np.asarray(gains * float(self.arrays["target"][1]), np.float64)

    def inputs(self, genes: Genes) -> Array:
        """Features as the model takes them, shape (n, f)."""
        return features(self.space, genes)

    def moved(self, genes: Genes, x: Array) -> Array:
        """By what each change moves the continuous features, shape (n, m, `continuous`)."""
        after = self.continuous_inputs(continuous_changed(self.space, genes))
        return np.asarray((after - x[:, None, -self.continuous :]).astype(x.dtype))

    def continuous_inputs(self, values: Array) -> Array:
        """The continuous features as the model takes them."""
        return values

    @abstractmethod
    def gained(self, x: Array, present: Ints, moved: Array) -> Array:
        """Gains in the unit of the model's target, shape (n, m).

        Args:
            x: see `inputs`.
            present: numbers of the changes to the values that genes have, shape (n, columns).
            moved: see `moved`.
        """

    def less_present(self, each: Array, present: Ints) -> Array:
        """What each value does, shape (n, m), less what the present one of its gene does."""
        return np.asarray(each - np.take_along_axis(each, present, axis=1)[:, self.columns])

    def along(self, slopes: Array, present: Ints, moved: Array) -> Array:
        """Gains by slopes of the features, shape (n, f)."""
        of_codes = self.less_present(slopes @ self.codes.T, present)
        return np.asarray(of_codes + (moved @ slopes[:, -CONTINUOUS:, None])[..., 0])


class _Rectified(Gains):
    """Of a model whose first hidden units rectify.

    Args:
        space: see `Gains`.
        arrays: see `Gains`.
        weights: of those units, shape (f, units).
        biases: of those units, shape (units,).
    """

    def __init__(self, space: SearchSpace, arrays: Arrays, weights: Array, biases: Array) -> None:
        super().__init__(space, arrays)
        self.weights, self.biases = weights, biases
        self._of_codes = self.codes @ weights

    def received(self, x: Array) -> Array:
        """By the units, shape (n, units)."""
        return np.asarray(x @ self.weights + self.biases)

    def through_units(self, received: Array, slopes: Array, present: Ints, moved: Array) -> Array:
        """Gains by slopes of the units, shape (n, units), or the same for all, shape (1, units)."""
        out = np.empty((len(received), len(self.columns)))
        for i, own in enumerate(present):
            h = (received[i] - self._of_codes[own])[self.columns]
            h += self._of_codes
            if self.continuous:
                h += moved[i] @ self.weights[-self.continuous :]
            np.maximum(h, 0, out=h)
            out[i] = h @ slopes[i % len(slopes)]
        return np.asarray(out - np.take_along_axis(out, present[:, :1], axis=1))


class _Official(_Rectified):
    continuous = 0

    def __init__(self, space: SearchSpace, arrays: Arrays) -> None:
        super().__init__(space, arrays, arrays["weight0"][0], arrays["bias0"][0])

    def inputs(self, genes: Genes) -> Array:
        return official.features(self.space, genes, self.arrays)

    def moved(self, genes: Genes, x: Array) -> Array:
        return np.zeros((len(genes), len(self.columns), 0), x.dtype)

    def gained(self, x: Array, present: Ints, moved: Array) -> Array:
        received = self.received(x)
        slopes = _behind(self.arrays, 0, received, smooth=False)
        return self.through_units(received, slopes, present, moved)


class _Concave(_Rectified):
    """Has nothing behind its units: its gains are exact."""

    def __init__(self, space: SearchSpace, arrays: Arrays) -> None:
        super().__init__(space, arrays, *_members(arrays, "units", "offsets"))
        self._slope = arrays["slope"].mean(axis=0).T / arrays["scale"]
        self._drop = -np.logaddexp(0, arrays["drop"]).reshape(1, -1) / len(arrays["drop"])

    def inputs(self, genes: Genes) -> Array:
        return with_linear_costs(features(self.space, genes))

    def continuous_inputs(self, values: Array) -> Array:
        return with_linear_costs(values)

    def gained(self, x: Array, present: Ints, moved: Array) -> Array:
        through_units = self.through_units(self.received(x), self._drop, present, moved)
        return self.along(self._slope, present, moved) + through_units


class _MLP(Gains):
    """Its first layer to second order."""

    def __init__(self, space: SearchSpace, arrays: Arrays) -> None:
        super().__init__(space, arrays)
        self._weights, self._biases = _members(arrays, "weight0", "bias0")
        self._of_codes = self.codes @ self._weights
        self._squares = np.square(self._of_codes)

    def gained(self, x: Array, present: Ints, moved: Array) -> Array:
        received = x @ self._weights + self._biases
        members = np.split(received, len(self.arrays["weight0"]), axis=1)
        slopes = np.concatenate([_behind(self.arrays, i, part, smooth=True) for i, part in enumerate(members)], axis=1)
        slopes /= len(members)
        share = _logistic(received)
        steep = slopes * share * (1 + received * (1 - share))
        curved = slopes * share * (1 - share) * (2 + received * (1 - 2 * share)) / 2
        out = self.less_present(steep @ self._of_codes.T, present)
        square = curved @ self._squares.T  # (a - b)^2 of a value and the present one: a^2 + b^2 - 2 a b
        out += square + np.take_along_axis(square, present, axis=1)[:, self.columns]
        for column, values in enumerate(np.split(self._of_codes, self.starts[1:])):
            start = self.starts[column]
            out[:, start : start + len(values)] -= 2 * (self._of_codes[present[:, column]] * curved) @ values.T
        costs = self._weights[-CONTINUOUS:]
        for cost, by in zip(costs, moved.transpose(2, 0, 1), strict=True):
            with_codes = self.less_present((curved * cost) @ self._of_codes.T, present)
            with_costs = (moved @ ((curved * cost) @ costs.T)[:, :, None])[..., 0]
            out += by * ((steep @ cost)[:, None] + 2 * with_codes + with_costs)
        return out


class _GP(Gains):
    """To first order; of blocks and widths also the part of the second order that all known inputs have in common."""

    def __init__(self, space: SearchSpace, arrays: Arrays) -> None:
        super().__init__(space, arrays)
        self._apart = []  # squared distances of all values' codes, for each of the squared exponentials
        for inverse in arrays["inverse_squares"]:
            by = (self.codes / arrays["scale"] * inverse) @ (self.codes / arrays["scale"]).T
            self._apart.append(np.diag(by)[:, None] + np.diag(by) - 2 * by)

    def gained(self, x: Array, present: Ints, moved: Array) -> Array:
        arrays, z = self.arrays, scaled(self.arrays, x)
        slopes = np.repeat(arrays["trend"][None], len(z), axis=0)
        out = np.zeros((len(x), len(self.columns)))
        known = zip(arrays["inverse_squares"], self._apart, known_weights(arrays, z), strict=True)
        for inverse, apart, weights in known:
            total = weights.sum(axis=1)[:, None]
            slopes += (weights @ arrays["known"] - total * z) * inverse
            out -= total * apart[np.arange(len(self.columns)), present[:, self.columns]] / 2
        return out + self.along(slopes / arrays["scale"], present, moved)


class _Ridge(Gains):
    """Exactly: its only curvature are the products of continuous features, see `inference.with_products`."""

    def __init__(self, space: SearchSpace, arrays: Arrays) -> None:
        super().__init__(space, arrays)
        upper = np.triu_indices(CONTINUOUS)
        self._products = np.zeros((CONTINUOUS, CONTINUOUS))
        self._products[upper] = arrays["slope"][-len(upper[0]) :]

    def gained(self, x: Array, present: Ints, moved: Array) -> Array:
        z, by = scaled(self.arrays, x), moved / self.arrays["scale"][-CONTINUOUS:]
        slopes = np.repeat(self.arrays["slope"][None, : z.shape[1]], len(z), axis=0)
        slopes[:, -CONTINUOUS:] += z[:, -CONTINUOUS:] @ (self._products + self._products.T)
        along = self.along(slopes / self.arrays["scale"], present, moved)
        return np.asarray(along + ((by @ self._products) * by).sum(axis=2))


def _members(arrays: Arrays, weights: str, biases: str) -> tuple[Array, Array]:
    """First layers of all members side by side, for features that are not scaled: shapes (f, units), (units,)."""
    of_members = arrays[weights]  # (members, f, units)
    side_by_side = of_members.transpose(1, 0, 2).reshape(of_members.shape[1], -1) / arrays["scale"][:, None]
    shifted = arrays[biases].ravel() - arrays["shift"] @ side_by_side
    return side_by_side.astype(of_members.dtype), shifted.astype(of_members.dtype)


def _behind(arrays: Arrays, member: int, received: Array, smooth: bool) -> Array:
    """Slopes of a net's output by the units of its first layer.

    Args:
        arrays: with the layers' weights and biases.
        member: which one it is of several.
        received: by the units of the first layer, shape (n, units).
        smooth: whether units are SiLU, or rectify.

    Returns:
        shape (n, units).
    """
    layers = sum(name.startswith("weight") for name in arrays)
    weights = [arrays[f"weight{layer}"][member] for layer in range(layers)]
    h, behind = received, []
    for layer in range(1, layers - 1):
        h = silu(h.copy()) if smooth else np.maximum(h, 0)
        h = h @ weights[layer] + arrays[f"bias{layer}"][member]
        behind.append(h)
    out = np.repeat(weights[-1].T, len(received), axis=0)
    for weight, h in zip(weights[-2:0:-1], behind[::-1], strict=True):
        share = _logistic(h) if smooth else None
        slope = h > 0 if share is None else share * (1 + h * (1 - share))
        out = (out * slope) @ weight.T
    return out


def _logistic(x: Array) -> Array:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


MODELS: Mapping[str, type[Gains]] = {
    "mlp": _MLP,
    "gp": _GP,
    "ridge": _Ridge,
    "concave": _Concave,
    "official": _Official,
}
"""For each of `inference.MODELS`."""
