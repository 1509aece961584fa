"""onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import MeasureError


def start(graph: bytes, threads: int) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
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

    def run(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(made.run(None, {name: x})[0])

    return run
