"""Runtimes: each turns operators with weights into a model file that can be run, timed and shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from ofa_deploy.device.conditions import START
from ofa_deploy.device.timing import Array, Session
from ofa_deploy.graphs.weights import Weights
from ofa_deploy.spaces.ops import Op

Parts = Sequence[tuple[str, Op]]
"""Name and operator of each part of a graph."""


class Emit(Protocol):
    """Writes a model file."""

    def __call__(
        self, parts: Parts, weights: Mapping[str, Weights], *, batch: int = 1, notes: Mapping[str, str] | None = None
    ) -> bytes:
        """The file of operators in sequence; `notes` become its metadata."""


class Quantise(Protocol):
    """Writes a model file that computes in int8."""

    def __call__(
        self, parts: Parts, weights: Mapping[str, Weights], images: Array, notes: Mapping[str, str] | None = None
    ) -> bytes:
        """The file of operators in sequence, calibrated on normalised images in the runtime's layout."""


@dataclass(frozen=True)
class Runtime:
    """One way to run a network.

    Attributes:
        suffix: of its model files.
        layout: of its inputs: `NCHW` or `NHWC`.
        emit: writes a model file; for int8, one that is calibrated on noise, to be timed and not to be used.
        start: from the content of a model file and a number of threads to a session.
        quantise: for int8, writes a model file that is calibrated on images.
    """

    suffix: str
    layout: str
    emit: Emit
    start: Callable[[bytes, int], Session]
    quantise: Quantise | None = None

    def native(self, x: Array) -> Array:
        """An input of shape (n, channels, height, width) in the runtime's layout."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if self.layout == "NHWC" else x

    def session(self, model: bytes, threads: int) -> Session:
        """A session that takes inputs of shape (n, channels, height, width); for checks, not for timing."""
        return self.taking_nchw(self.start(model, threads))

    def taking_nchw(self, started: Session) -> Session:
        """A started session as one that takes inputs of shape (n, channels, height, width)."""
        return lambda x: started(self.native(x))


def _emit_onnx(
    parts: Parts, weights: Mapping[str, Weights], *, batch: int = 1, notes: Mapping[str, str] | None = None
) -> bytes:
    from onnx import helper

    from ofa_deploy.graphs.onnx import emit

    model = emit(parts, weights, batch)
    helper.set_model_props(model, dict(notes or {}))
    return bytes(model.SerializeToString())


def _emit_tflite(
    parts: Parts, weights: Mapping[str, Weights], *, batch: int = 1, notes: Mapping[str, str] | None = None
) -> bytes:
    from ofa_deploy.graphs.tflite import emit

    return emit(parts, weights, batch, notes)


def _quantise_onnx(
    parts: Parts, weights: Mapping[str, Weights], images: Array, notes: Mapping[str, str] | None = None
) -> bytes:
    from ofa_deploy.graphs.onnx_int8 import quantised

    return quantised(parts, weights, images, notes)


def _quantise_tflite(
    parts: Parts, weights: Mapping[str, Weights], images: Array, notes: Mapping[str, str] | None = None
) -> bytes:
    from ofa_deploy.graphs.tflite_int8 import quantised

    return quantised(parts, weights, images, notes)


def _emit_onnx_int8(
    parts: Parts, weights: Mapping[str, Weights], *, batch: int = 1, notes: Mapping[str, str] | None = None
) -> bytes:
    from ofa_deploy.graphs.onnx_int8 import emit

    return emit(parts, weights, batch, notes)


def _emit_tflite_int8(
    parts: Parts, weights: Mapping[str, Weights], *, batch: int = 1, notes: Mapping[str, str] | None = None
) -> bytes:
    from ofa_deploy.graphs.tflite_int8 import emit

    return emit(parts, weights, batch, notes)


def _emit_torch(
    parts: Parts, weights: Mapping[str, Weights], *, batch: int = 1, notes: Mapping[str, str] | None = None
) -> bytes:
    from ofa_deploy.graphs.torch import emit

    return emit(parts, weights, batch, notes)


_TORCH = partial(Runtime, ".npz", "NHWC", _emit_torch)
_ONNX = partial(Runtime, ".onnx", "NCHW", _emit_onnx)
_ONNX_INT8 = Runtime(".onnx", "NCHW", _emit_onnx_int8, START["onnxruntime-int8"], _quantise_onnx)
_TFLITE_INT8 = Runtime(".tflite", "NHWC", _emit_tflite_int8, START["tflite-int8"], _quantise_tflite)
RUNTIMES: dict[str, Runtime] = {
    **{name: _ONNX(START[name]) for name in ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt")},
    "onnxruntime-int8": _ONNX_INT8,
    "tflite": Runtime(".tflite", "NHWC", _emit_tflite, START["tflite"]),
    "tflite-int8": _TFLITE_INT8,
    **{name: _TORCH(START[name]) for name in ("torch", "torch-cuda", "torch-cuda-fp16")},
}
"""Every runtime by the name that tables record."""
