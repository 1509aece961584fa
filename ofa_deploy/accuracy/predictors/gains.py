"""What a model makes of all single changes of a network, to first order.

A network and one of its changes differ in few features. So the first hidden layer of all changes takes a sum over those
features alone; what follows that layer is taken to be linear, with the slopes that it has at the network. A model
without hidden units is taken to be linear in the features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa_deploy.accuracy.predictors import CONTINUOUS, continuous_changed, features, official
from ofa_deploy.accuracy.predictors.inference import Array, Arrays, known_weights, scaled, silu, with_linear_costs
from ofa_deploy.costs import Floats, Genes, Ints
from ofa_deploy.space import SearchSpace

LEARNED = CONTINUOUS - 2
"""Continuous features that every model takes as they are; the others are costs."""


class Gains:
    """The gains of all single changes of networks, by one model.

    Args:
        space: of the networks.
        model: one of `inference.MODELS`.
        arrays: as `inference.prepared` gives them.
    """

    def __init__(self, space: SearchSpace, model: str, arrays: Arrays) -> None:
        self._space, self._model, self._arrays = space, model, arrays
        self._columns, values = space.changes
        alone = np.zeros((1 + len(values), space.columns), np.int16)
        alone[1 + np.arange(len(values)), self._columns] = values
        inputs = self._inputs(alone)
        self._features = inputs[1:] - inputs[0]  # what each value of each gene contributes to the features
        if self._own:
            self._features[:, -CONTINUOUS:] = 0
        self._units, self._offsets = self._first_layer()
        self._received = self._features @ self._units
        self._starts = np.searchsorted(self._columns, np.arange(space.columns))

    def __call__(self, genes: Genes) -> Floats:
        """In percent of top-1 accuracy, shape (n, m), from genes of shape (n, columns); see `SearchSpace.changes`."""
        x = self._inputs(genes)
        received = x @ self._units + self._offsets
        linear, slopes = self._slopes(x, received)
        present = self._starts + genes
        moved = self._moved(genes, x) if self._own else np.zeros((len(genes), len(self._columns), 0), x.dtype)
        out = np.zeros((len(genes), len(self._columns)))
        if linear is not None:
            out += self._less_present(linear @ self._features.T, present)
            if self._own:
                out += (moved @ linear[:, -CONTINUOUS:, None])[..., 0]
        if slopes.shape[1]:
            out += (self._curved if self._model == "mlp" else self._rectified)(received, slopes, present, moved)
        return out * float(self._arrays["target"][1])

    def _less_present(self, each: Array, present: Ints) -> Array:
        """What each change adds, shape (n, m), from what the features of each value do, less those that a gene has."""
        return np.asarray(each - np.take_along_axis(each, present, axis=1)[:, self._columns])

    def _rectified(self, received: Array, slopes: Array, present: Ints, moved: Array) -> Array:
        """What changes gain through units that rectify, shape (n, m).

        Args:
            received: by the units, shape (n, units).
            slopes: of the prediction by them, shape (n, units).
            present: numbers of the changes to the values that genes have, shape (n, columns).
            moved: see `_moved`, shape (n, m, `CONTINUOUS`) or (n, m, 0).
        """
        out = np.empty((len(received), len(self._columns)))
        for i, own in enumerate(present):
            h = (received[i] - self._received[own])[self._columns]
            h += self._received
            if self._own:
                h += moved[i] @ self._units[-CONTINUOUS:]
            np.maximum(h, 0, out=h)
            out[i] = h @ slopes[i]
        return np.asarray(out - out[np.arange(len(out)), present[:, 0]][:, None])

    def _curved(self, received: Array, slopes: Array, present: Ints, moved: Array) -> Array:
        """What changes gain through SiLU units, to second order, shape (n, m); see `_rectified`."""
        share = 1 / (1 + np.exp(-np.maximum(received, -60)))
        steep = slopes * share * (1 + received * (1 - share))
        curved = slopes * share * (1 - share) * (2 + received * (1 - 2 * share)) / 2
        out = self._less_present(steep @ self._received.T, present)
        square = curved @ np.square(self._received).T
        out += square + np.take_along_axis(square, present, axis=1)[:, self._columns]
        for column, values in enumerate(np.split(self._received, self._starts[1:])):
            start = self._starts[column]
            both = (self._received[present[:, column]] * curved) @ values.T
            out[:, start : start + len(values)] -= 2 * both
        costs = self._units[-CONTINUOUS:]
        for cost, by in zip(costs, moved.transpose(2, 0, 1), strict=True):
            of_both = self._less_present((curved * cost) @ self._received.T, present)
            among = (curved * cost) @ costs.T
            out += by * ((steep @ cost)[:, None] + 2 * of_both + (moved @ among[:, :, None])[..., 0])
        return out

    @property
    def _own(self) -> bool:
        """Whether the model is of the toolkit's own, with its features, or an official one."""
        return self._model != "official"

    def _inputs(self, genes: Genes) -> Array:
        """Features as the model takes them, before it scales them, shape (n, f)."""
        if not self._own:
            return official.features(self._space, genes, self._arrays)
        x = features(self._space, genes)
        return with_linear_costs(x) if self._model == "concave" else x

    def _moved(self, genes: Genes, x: Array) -> Array:
        """By what each change moves the continuous features, shape (n, m, `CONTINUOUS`)."""
        after = continuous_changed(self._space, genes)
        if self._model == "concave":
            after[..., LEARNED:] = 10.0 ** after[..., LEARNED:]
        return np.asarray((after - x[:, None, -CONTINUOUS:]).astype(x.dtype))

    def _first_layer(self) -> tuple[Array, Array]:
        """Weights of the first hidden units, shape (f, units), and biases, shape (units,), for unscaled features."""
        arrays = self._arrays
        if self._model == "official":
            return arrays["weight0"][0], arrays["bias0"][0]
        names = {"mlp": ("weight0", "bias0"), "concave": ("units", "offsets")}.get(self._model)
        if names is None:
            return np.zeros((self._features.shape[1], 0), np.float32), np.zeros(0, np.float32)
        weights, biases = (
            arrays[name] for name in names
        )  # of members, shapes (members, f, units), (members, 1, units)
        units = weights.transpose(1, 0, 2).reshape(weights.shape[1], -1) / arrays["scale"][:, None]
        return units.astype(weights.dtype), (biases.ravel() - arrays["shift"] @ units).astype(weights.dtype)

    def _slopes(self, x: Array, received: Array) -> tuple[Array | None, Array]:
        """Of the prediction by the features, shape (n, f), None for zero, and by the first units, shape (n, units)."""
        arrays = self._arrays
        if self._model in ("official", "mlp"):
            members = len(arrays["weight0"])
            parts = np.split(received, members, axis=1)
            slopes = [_behind(arrays, member, part, self._model == "mlp") for member, part in enumerate(parts)]
            return None, np.concatenate(slopes, axis=1) / members
        if self._model == "concave":
            drop = -np.logaddexp(0, arrays["drop"]).reshape(1, -1) / len(arrays["drop"])
            linear = arrays["slope"].mean(axis=0).T / arrays["scale"]
            return np.repeat(linear, len(x), axis=0), np.repeat(drop, len(x), axis=0)
        of_scaled = {"gp": _gp, "ridge": _ridge}[self._model](arrays, scaled(arrays, x))
        return of_scaled / arrays["scale"], received


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
    weights: Sequence[Array] = [arrays[f"weight{layer}"][member] for layer in range(layers)]
    h, behind = received, []
    for layer in range(1, layers - 1):
        h = silu(h.copy()) if smooth else np.maximum(h, 0)
        h = h @ weights[layer] + arrays[f"bias{layer}"][member]
        behind.append(h)
    out = np.repeat(weights[-1].T, len(received), axis=0)
    for weight, h in zip(weights[-2:0:-1], behind[::-1], strict=True):
        out = (out * (_silu_slopes(h) if smooth else h > 0)) @ weight.T
    return out


def _silu_slopes(received: Array) -> Array:
    share = 1 / (1 + np.exp(-np.maximum(received, -60)))
    return np.asarray(share * (1 + received * (1 - share)))


def _gp(arrays: Arrays, z: Array) -> Array:
    """Slopes of the Gaussian process's mean by the scaled features, shape (n, f)."""
    out = np.repeat(arrays["trend"][None], len(z), axis=0)
    for inverse, weights in zip(arrays["inverse_squares"], known_weights(arrays, z), strict=True):
        out += (weights @ arrays["known"] - weights.sum(axis=1)[:, None] * z) * inverse
    return out


def _ridge(arrays: Arrays, z: Array) -> Array:
    """Slopes of the ridge regression by the scaled features, shape (n, f); see `inference.with_products`."""
    features_ = z.shape[1]
    out = np.repeat(arrays["slope"][None, :features_], len(z), axis=0)
    products = np.split(arrays["slope"][features_:], np.cumsum(range(CONTINUOUS, 1, -1)))
    for i, slopes in enumerate(products):
        of = slice(features_ - CONTINUOUS + i, features_)
        out[:, of] += slopes * z[:, of][:, :1]
        out[:, of.start] += z[:, of] @ slopes
    return out
