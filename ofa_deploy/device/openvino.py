"""OpenVINO on the CPU. It runs the ONNX files that `graphs.onnx` writes."""

from __future__ import annotations

from functools import cache
from typing import Any

from ofa_deploy.device.timing import Array, CpuSession
from ofa_deploy.errors import MeasureError


def start(content: bytes, threads: int) -> CpuSession:
    """A session of an ONNX model with one input and one output.

    With one thread there is no stream: the caller's thread computes, and a table's thousands of sessions start no
    threads that idle.

    Args:
        content: of the model file.
        threads: of the CPU.

    Raises:
        MeasureError: OpenVINO does not take the model.
    """
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # otherwise bfloat16 where the processor has it
        "NUM_STREAMS": 0 if threads == 1 else 1,
    }
    core = _core()
    try:
        request = core.compile_model(core.read_model(content), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        raise MeasureError(f"OpenVINO does not take the graph: {lines[-1]}") from error

    def run(x: Array) -> Array:
        output: Array = request.infer([x], share_inputs=True)[0]
        return output

    return CpuSession(run)


def probe() -> dict[str, Any]:
    """The processors that OpenVINO can use."""
    return {"devices": list(_core().available_devices)}


@cache
def _core() -> Any:
    """OpenVINO's entry point, which loads its plugins once."""
    import openvino

    return openvino.Core()
