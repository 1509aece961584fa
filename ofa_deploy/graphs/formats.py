"""The formats of model files: what tables time and export writes, by the same emitters."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, cast

import numpy as np

from ofa_deploy.device.devices import Device
from ofa_deploy.device.timing import Array, Run
from ofa_deploy.graphs.weights import Weights
from ofa_deploy.spaces.ops import Op

NamedOps = Sequence[tuple[str, Op]]
"""Name and operator of each module of a graph, in order of computation."""


class Emit(Protocol):
    """Writes a model file."""

    def __call__(
        self,
        named_ops: NamedOps,
        weights: Mapping[str, Weights],
        *,
        batch: int = 1,
        notes: Mapping[str, str] | None = None,
    ) -> bytes:
        """The file of operators in sequence; `notes` become its metadata."""


class Quantise(Protocol):
    """Writes a model file that computes in int8."""

    def __call__(
        self,
        named_ops: NamedOps,
        weights: Mapping[str, Weights],
        images: Array,
        *,
        notes: Mapping[str, str] | None = None,
    ) -> bytes:
        """The file of operators in sequence, calibrated on normalised images in the format's layout."""


@dataclass(frozen=True)
class FileFormat:
    """A kind of model file, in one precision.

    Attributes:
        suffix: of the files' names.
        layout: of the input: `NCHW` or `NHWC`.
        emit: writes a file; for int8, one that is calibrated on noise, to be timed and not to be used.
        quantise: for int8, writes a file that is calibrated on images.
    """

    suffix: str
    layout: str
    emit: Emit
    quantise: Quantise | None = None

    def native(self, x: Array) -> Array:
        """An input of shape (n, channels, height, width) in the format's layout."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if self.layout == "NHWC" else x

    def taking_nchw(self, run: Run) -> Run:
        """What takes inputs in the format's layout, as a function of (n, channels, height, width); for checks."""
        return lambda x: run(self.native(x))


def format_of(device: Device) -> FileFormat:
    """The format of the files that a device runs."""
    return FILE_FORMATS[device.file_format, device.precision]


def _emitter(module: str) -> Emit:
    """A module's function `emit`; the module is imported when a file is written, and what it needs then."""

    def emit(
        named_ops: NamedOps, weights: Mapping[str, Weights], *, batch: int = 1, notes: Mapping[str, str] | None = None
    ) -> bytes:
        return cast(Emit, _module(module).emit)(named_ops, weights, batch=batch, notes=notes)

    return emit


def _quantiser(module: str) -> Quantise:
    """A module's function `quantised`; the module is imported when a file is written, and what it needs then."""

    def quantise(
        named_ops: NamedOps, weights: Mapping[str, Weights], images: Array, *, notes: Mapping[str, str] | None = None
    ) -> bytes:
        return cast(Quantise, _module(module).quantised)(named_ops, weights, images, notes=notes)

    return quantise


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ofa_deploy.graphs.{name}")


FILE_FORMATS: dict[tuple[str, str], FileFormat] = {
    ("onnx", "fp32"): FileFormat(".onnx", "NCHW", _emitter("onnx")),
    ("onnx", "int8"): FileFormat(".onnx", "NCHW", _emitter("onnx_int8"), _quantiser("onnx_int8")),
    ("tflite", "fp32"): FileFormat(".tflite", "NHWC", _emitter("tflite")),
    ("tflite", "int8"): FileFormat(".tflite", "NHWC", _emitter("tflite_int8"), _quantiser("tflite_int8")),
    ("torch-npz", "fp32"): FileFormat(".npz", "NHWC", _emitter("torch")),
    ("torch-npz", "fp16"): FileFormat(".npz", "NHWC", _emitter("torch")),  # rounded when a session starts
}
"""Every format by what devices call it and the precision that they compute in."""
