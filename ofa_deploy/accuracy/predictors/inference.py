"""What fitted models predict: plain functions of arrays, in numpy alone.

Every model has the arrays `shift` and `scale` of its features, `target` (mean and standard deviation of the accuracies
in percent) and `noise` (standard deviation that the model leaves unexplained, in units of the target's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.accuracy.predictors import CONTINUOUS, Features
from ofa_deploy.spaces.costs import Floats

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


def predict(model: str, arrays: Arrays, x: Features, spread: bool = True) -> tuple[Floats, Floats]:
    """Mean and standard deviation in percent, shape (n,) each, from features of shape (n, f).

    Args:
        model: one of `MODELS`.
        arrays: that it was fitted to.
        x: features.
        spread: whether the standard deviation is wanted; without, it is the noise's alone.
    """
    mean, variance = MODELS[model](arrays, x, spread)
    shift, scale = arrays["target"].tolist()
    return mean * scale + shift, scale * np.sqrt(variance + float(arrays["noise"][0]) ** 2)


def prepared(model: str, arrays: Arrays) -> Arrays:
    """The arrays, and what depends on them alone and takes time in every prediction of means."""
    if model != "gp":
        return arrays
    known, inverse = arrays["inputs"].astype(np.float32), np.square(arrays["inverse_lengths"]).astype(np.float32)
    trend = arrays["linear"] * (arrays["coefficients"] @ known.astype(np.float64))
    return {
        **arrays,
        "known": known,
        "inverse_squares": inverse,
        "halves": inverse @ np.square(known).T / 2,
        "trend": trend,
    }


def known_weights(arrays: Arrays, z: Array) -> Iterator[Array]:
    """What each of m known inputs contributes to a Gaussian process's mean, for each of its squared exponentials.

    Args:
        arrays: as `prepared` gives them.
        z: scaled features, shape (n, f).

    Yields:
        shape (n, m), in float32.
    """
    z = z.astype(np.float32)
    by = [arrays["inverse_squares"], arrays["halves"], arrays["amplitudes"][1:]]
    for inverse, halves, amplitude in zip(*by, strict=True):
        out = (z * inverse) @ arrays["known"].T
        out -= halves
        out -= (np.square(z) @ inverse)[:, None] / 2
        np.exp(out, out=out)
        out *= (amplitude * arrays["coefficients"]).astype(np.float32)
        yield out


def scaled(arrays: Arrays, x: Array) -> Array:
    """Features in the scale that the model was fitted in."""
    return np.asarray((x - arrays["shift"]) / arrays["scale"])


def with_products(x: Array) -> Array:
    """Features and all products of two continuous ones."""
    c = x[:, -CONTINUOUS:]
    return np.concatenate([x, *(c[:, i:] * c[:, i : i + 1] for i in range(CONTINUOUS))], axis=1)


def with_linear_costs(x: Array) -> Array:
    """Features with the costs themselves instead of their logarithms: sums over the choices of an architecture."""
    return np.concatenate([x[..., :-2], 10.0 ** x[..., -2:].astype(np.float64)], axis=-1)


def kernel(arrays: Arrays, x: Array, z: Array) -> Array:
    """Covariance of the Gaussian process between scaled features x, shape (n, f), and z, shape (m, f): (n, m).

    A constant, a linear term with a variance for each column, and two squared exponentials with a length for each
    column: one that sees resolution and costs alone, and one of everything.
    """
    return np.asarray((x * arrays["linear"]) @ z.T + float(arrays["amplitudes"][0]) + _bumps(arrays, x, z))


def _bumps(arrays: Arrays, x: Array, z: Array) -> Array:
    """The squared exponentials of the covariance, in the precision of x and z."""
    out = np.zeros((len(x), len(z)), x.dtype)
    for amplitude, inverse in zip(arrays["amplitudes"][1:].tolist(), arrays["inverse_lengths"], strict=True):
        seen = inverse > 0
        a, b = (part[:, seen] * inverse[seen].astype(x.dtype) for part in (x, z))
        square = a @ b.T
        square *= -2
        square += np.square(a).sum(1)[:, None]
        square += np.square(b).sum(1)
        np.maximum(square, 0, out=square)
        square *= -0.5
        out += amplitude * np.exp(square, out=square)
    return out


def _mlp(arrays: Arrays, x: Array, spread: bool) -> tuple[Floats, Floats]:
    h = scaled(arrays, x).astype(arrays["weight0"].dtype)
    each = np.empty((len(arrays["weight0"]), len(x)))
    layers = sum(name.startswith("weight") for name in arrays)
    for member, out in enumerate(each):
        y = h
        for layer in range(layers):
            y = y @ arrays[f"weight{layer}"][member]
            y += arrays[f"bias{layer}"][member]
            if layer < layers - 1:
                silu(y)
        out[:] = y[:, 0]
    return each.mean(axis=0), each.var(axis=0) if spread else 0 * each[0]


def silu(y: Array) -> Array:
    """`y / (1 + exp(-y))`, in place."""
    y *= 0.5
    more = np.tanh(y)
    more *= y
    y += more
    return y


def _official(arrays: Arrays, x: Array, spread: bool) -> tuple[Floats, Floats]:
    h = np.asarray(x, np.float32)
    for layer in range(sum(name.startswith("weight") for name in arrays)):
        weight = arrays[f"weight{layer}"][0]
        if layer:  # of the units behind the first layer, one in three or four is on at all
            np.maximum(h, 0, out=h)
            on = (h > 0).any(axis=0)
            h, weight = h[:, on], weight[on]
        h = h @ weight
        h += arrays[f"bias{layer}"][0]
    return h[:, 0].astype(np.float64), np.zeros(len(h))


def _concave(arrays: Arrays, x: Array, spread: bool) -> tuple[Floats, Floats]:
    h = scaled(arrays, with_linear_costs(x))
    hidden = np.maximum(h @ arrays["units"] + arrays["offsets"], 0)  # (members, n, units)
    each = h @ arrays["slope"] + arrays["level"] - hidden @ np.logaddexp(0, arrays["drop"])
    return each[..., 0].mean(axis=0), each[..., 0].var(axis=0)


def _ridge(arrays: Arrays, x: Array, spread: bool) -> tuple[Floats, Floats]:
    z = with_products(scaled(arrays, x))
    mean = z @ arrays["slope"] + arrays["level"][0]
    return mean, ((z - arrays["centre"]) @ arrays["covariance"] * (z - arrays["centre"])).sum(1) if spread else 0 * mean


def _gp(arrays: Arrays, x: Array, spread: bool) -> tuple[Floats, Floats]:
    z = scaled(arrays, x).astype(np.float64)
    if not spread:  # many times as fast, and the same to 1e-5 points
        ready = prepared("gp", arrays) if "known" not in arrays else arrays
        mean = z @ ready["trend"] + arrays["amplitudes"][0] * arrays["coefficients"].sum()
        for weights in known_weights(ready, z):
            mean += weights.sum(axis=1, dtype=np.float64)
        return mean, 0 * mean
    u = arrays["inputs"].astype(np.float64)
    to = kernel(arrays, z, u)
    mean = to @ arrays["coefficients"]
    among = kernel(arrays, u, u)
    among[np.diag_indices(len(u))] += float(arrays["noise"][0]) ** 2 / arrays["weights"]
    prior = arrays["amplitudes"].sum() + np.square(z) @ arrays["linear"]
    return mean, np.maximum(prior - (to * np.linalg.solve(among, to.T).T).sum(1), 0)


MODELS: Mapping[str, Callable[[Arrays, Array, bool], tuple[Floats, Floats]]] = {
    "mlp": _mlp,
    "gp": _gp,
    "ridge": _ridge,
    "concave": _concave,
    "official": _official,
}
"""Mean and variance of each model in units of the target, shape (n,) each, from unscaled features."""
