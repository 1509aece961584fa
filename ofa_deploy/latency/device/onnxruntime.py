"""onnxruntime on the CPU."""

from __future__ import annotations

import numpy as np

from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.device.timing import Array, Session


def start(graph: bytes, threads: int) -> Session:
    """A session of a serialised ONNX graph with one input and one output.

    Args:
        graph: the serialised model.
        threads: of the CPU; work between operators is sequential.

    Raises:
        MeasureError: onnxruntime is not installed, or does not take the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MeasureError("onnxruntime is not installed; pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        made = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise MeasureError(f"onnxruntime does not take the graph: {str(error).splitlines()[0]}") from error
    name = made.get_inputs()[0].name

    def run(x: Array) -> Array:
        return np.asarray(made.run(None, {name: x})[0])

    return run
