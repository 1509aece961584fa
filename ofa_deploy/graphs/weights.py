"""The arrays that an operator needs once batch norms are folded, in the form that every emitter takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import MeasureError
from ofa_deploy.spaces.ops import Op

INPUT, OUTPUT = "image", "logits"
"""Names of a graph's input and output."""
Weights = Mapping[str, npt.NDArray[np.float32]]
"""Arrays of one operator by name; convolutions have PyTorch's layout (out, in / groups, height, width)."""
Draw = Callable[[Op, np.random.Generator], Weights]
"""Makes up an operator's weights."""
TILE = 64
"""Numbers that `tiled` repeats."""


def shapes(op: Op) -> dict[str, tuple[int, ...]]:
    """Name and shape of each array of an operator, batch norms folded into weights and biases."""
    return dict(_SHAPES[op.kind](op))


def draw(op: Op, rng: np.random.Generator) -> Weights:
    """Random weights of an operator, scaled so that activations neither vanish nor overflow."""
    return {
        name: (rng.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[1:])))).astype(np.float32)
        for name, shape in shapes(op).items()
    }


def tiled(op: Op, rng: np.random.Generator) -> Weights:
    """Like `draw`, but each array repeats the same few numbers, so that a file of it compresses to almost nothing.

    The numbers have no mean, so that channels that are alike do not make activations overflow.
    """
    numbers = rng.standard_normal(TILE)
    numbers -= numbers.mean()
    return {
        name: (np.resize(numbers, shape) / math.sqrt(max(1, math.prod(shape[1:])))).astype(np.float32)
        for name, shape in shapes(op).items()
    }


def check_activation(act: str, supported: Iterable[str], form: str) -> None:
    """Refuse an activation that an emitter cannot write, so that none is replaced by another.

    Args:
        act: of an operator.
        supported: activations that the emitter writes.
        form: of the file, in words.

    Raises:
        MeasureError: `act` is none of them.
    """
    if act not in (names := list(supported)):
        raise MeasureError(
            f"the activation {act!r} cannot be written as {form}, only {', '.join(names)}; add it to the emitter, or "
            "choose a space without it"
        )


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _mbconv(op: Op) -> dict[str, tuple[int, ...]]:
    arrays = _pair("expand", op.c_mid, op.c_in, 1, 1) if op.c_mid != op.c_in else {}
    arrays |= _pair("depthwise", op.c_mid, 1, op.kernel, op.kernel)
    if op.se:
        arrays |= _pair("se_reduce", op.se, op.c_mid, 1, 1) | _pair("se_expand", op.c_mid, op.se, 1, 1)
    return arrays | _pair("project", op.c_out, op.c_mid, 1, 1)


def _bottleneck(op: Op) -> dict[str, tuple[int, ...]]:
    arrays = _pair("conv1", op.c_mid, op.c_in, 1, 1) | _pair("conv2", op.c_mid, op.c_mid, op.kernel, op.kernel)
    arrays |= _pair("conv3", op.c_out, op.c_mid, 1, 1)
    return arrays if op.shortcut else arrays | _pair("downsample", op.c_out, op.c_in, 1, 1)


def _linear(op: Op) -> dict[str, tuple[int, ...]]:
    arrays = _pair("linear", op.c_out, op.c_in)
    return arrays if op.bias else {"linear.weight": arrays["linear.weight"]}


_SHAPES = {
    "conv": lambda op: _pair("conv", op.c_out, op.c_in, op.kernel, op.kernel),
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "maxpool": lambda op: {},
    "pool": lambda op: {},
    "linear": _linear,
}
