"""LiteRT (TensorFlow Lite) on the CPU, with XNNPACK."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ofa_deploy.device.timing import Array, Session
from ofa_deploy.errors import MeasureError


def interpreter_class() -> Any:
    """LiteRT's interpreter, or that of tflite-runtime where only that is installed.

    Raises:
        MeasureError: neither is, or it cannot be loaded.
    """
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        found = _class_of(name)
        if found is not None:
            return found
    raise MeasureError("LiteRT is not installed; pip install ai-edge-litert")


def _class_of(module: str) -> Any:
    """The interpreter of a module; None where it is not installed."""
    try:
        return importlib.import_module(module).Interpreter
    except ModuleNotFoundError:
        return None
    except ImportError as error:  # it is there, but made for another numpy or C library
        raise MeasureError(f"{module.split('.')[0]} is installed but cannot be loaded: {error}") from error


def start(graph: bytes, threads: int) -> Session:
    """A session of a TFLite model with one input and one output.

    Args:
        graph: the content of the file.
        threads: of the CPU.

    Raises:
        MeasureError: LiteRT is not installed, or does not take the model.
    """
    try:
        made = interpreter_class()(model_content=graph, num_threads=threads)
        made.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise MeasureError(f"LiteRT does not take the graph: {str(error).splitlines()[0]}") from error
    source, target = made.get_input_details()[0]["index"], made.get_output_details()[0]["index"]

    def run(x: Array) -> Array:
        made.set_tensor(source, x)
        made.invoke()
        return np.asarray(made.get_tensor(target))

    return run
