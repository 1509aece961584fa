"""LiteRT (TensorFlow Lite) on the CPU, with XNNPACK."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import numpy as np

from ofa_deploy.device.timing import Array, CpuSession
from ofa_deploy.errors import MeasureError


def interpreter_class() -> Any:
    """LiteRT's interpreter, or that of tflite-runtime where only that is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module("ai_edge_litert.interpreter").Interpreter
    return importlib.import_module("tflite_runtime.interpreter").Interpreter


def probe() -> dict[str, Any]:
    """Nothing but that LiteRT can be loaded: it does not tell its version, its package does."""
    interpreter_class()
    return {}


def start(content: bytes, threads: int) -> CpuSession:
    """A session of a TFLite model with one input and one output.

    Args:
        content: of the model file.
        threads: of the CPU.

    Raises:
        MeasureError: LiteRT does not take the model.
    """
    try:
        interpreter = interpreter_class()(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise MeasureError(f"LiteRT does not take the graph: {str(error).splitlines()[0]}") from error
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: Array) -> Array:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(target))

    return CpuSession(run)
