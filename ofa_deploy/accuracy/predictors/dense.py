"""Dense layers of several small networks side by side: their first layers, and slopes of what follows.

Arrays are `weight0`, `weight1`, ... of shape (members, inputs, outputs), and `bias0`, `bias1`, ... of shape (members,
1, outputs).
"""

from __future__ import annotations

import numpy as np

from ofa_deploy.accuracy.predictors.model import Array, Arrays


def number_of_layers(arrays: Arrays) -> int:
    """How many layers the networks have."""
    return sum(name.startswith("weight") for name in arrays)


def side_by_side(arrays: Arrays, weights: str, biases: str) -> tuple[Array, Array]:
    """First layers of all members as one, for features that are not scaled: shapes (f, units), (units,)."""
    each = arrays[weights]  # (members, f, units)
    joined = each.transpose(1, 0, 2).reshape(each.shape[1], -1) / arrays["scale"][:, None]
    shifted = arrays[biases].ravel() - arrays["shift"] @ joined
    return joined.astype(each.dtype), shifted.astype(each.dtype)


def slopes_behind(arrays: Arrays, member: int, received: Array, *, smooth: bool) -> Array:
    """Slopes of a network's output by the outputs of its first layer's units, by the chain rule.

    Args:
        arrays: with the layers' weights and biases.
        member: index of the network.
        received: by the units of the first layer, shape (n, units).
        smooth: whether units are SiLU, or rectify.

    Returns:
        shape (n, units).
    """
    layers = number_of_layers(arrays)
    weights = [arrays[f"weight{layer}"][member] for layer in range(layers)]
    h, behind = received, []
    for layer in range(1, layers - 1):
        h = silu(h.copy()) if smooth else np.maximum(h, 0)
        h = h @ weights[layer] + arrays[f"bias{layer}"][member]
        behind.append(h)
    out = np.repeat(weights[-1].T, len(received), axis=0)
    for weight, h in zip(weights[-2:0:-1], behind[::-1], strict=True):
        share = logistic(h) if smooth else None
        slope = h > 0 if share is None else share * (1 + h * (1 - share))
        out = (out * slope) @ weight.T
    return out


def silu(y: Array) -> Array:
    """`y / (1 + exp(-y))`, in place."""
    y *= 0.5
    more = np.tanh(y)
    more *= y
    y += more
    return y


def logistic(x: Array) -> Array:
    """`1 / (1 + exp(-x))`."""
    return np.asarray((1 + np.tanh(x / 2)) / 2)
