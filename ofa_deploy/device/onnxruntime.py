"""onnxruntime on the CPU, or on an NVIDIA GPU by its CUDA and TensorRT providers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ofa_deploy.device.timing import Array, Session, Visit, run_checked, visited
from ofa_deploy.errors import MeasureError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


def start(graph: bytes, threads: int) -> Session:
    """A session of a serialised ONNX graph with one input and one output.

    Args:
        graph: the serialised model.
        threads: of the CPU; work between operators is sequential.

    Raises:
        MeasureError: onnxruntime is not installed, or does not take the graph.
    """
    made = _session(graph, threads, [CPU], {})
    name = made.get_inputs()[0].name

    def run(x: Array) -> Array:
        return np.asarray(made.run(None, {name: x})[0])

    return run


def start_gpu(graph: bytes, threads: int, provider: str) -> Session:
    """A session on the first GPU, which times itself; what the provider leaves to the CPU is refused, see `start`.

    Raises:
        MeasureError: this onnxruntime lacks the provider, it does not load, or it does not take all of the graph.
    """
    need_provider(provider)
    cuda = (CUDA, {"use_tf32": "0"})  # so that float32 is what the table says
    providers = [cuda] if provider == CUDA else [provider, cuda]
    made = _session(graph, threads, providers, {"session.disable_cpu_ep_fallback": "1"})
    if made.get_providers()[:1] != [provider]:
        raise MeasureError(f"onnxruntime's {provider} does not load here; install the CUDA and cuDNN that it wants")
    return Bound(made, "cuda")


START: dict[str, Callable[[bytes, int], Session]] = {
    "onnxruntime": start,
    "onnxruntime-cuda": partial(start_gpu, provider=CUDA),
    "onnxruntime-tensorrt": partial(start_gpu, provider=TENSORRT),
}
"""How each of these runtimes gets ready."""


def gpu_name(provider: str) -> str:
    """The GPU that a provider uses, as NVIDIA's driver calls it.

    Raises:
        MeasureError: this onnxruntime lacks the provider, or there is no GPU.
    """
    need_provider(provider)
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", f"--id={chosen}", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise MeasureError("nvidia-smi finds no GPU here; install NVIDIA's driver") from error


GPUS = {"onnxruntime-cuda": partial(gpu_name, CUDA), "onnxruntime-tensorrt": partial(gpu_name, TENSORRT)}
"""What tells the name of the GPU that a runtime uses."""


def need_provider(provider: str) -> None:
    """Make sure that this onnxruntime has a provider.

    Raises:
        MeasureError: it has not, or is not installed.
    """
    if provider not in _onnxruntime().get_available_providers():
        raise MeasureError(
            f"this onnxruntime has no {provider}; install the one for GPUs: pip uninstall onnxruntime and "
            "pip install onnxruntime-gpu"
        )


class Bound:
    """A session whose input and output lie on a device."""

    def __init__(self, made: Any, device: str) -> None:
        self._made, self._device = made, device

    def __call__(self, x: Array) -> Array:
        """Copy an input there, run, and copy the output back."""
        binding = self._bound(x)
        self._made.run_with_iobinding(binding)
        return np.asarray(binding.copy_outputs_to_cpu()[0])

    def visit(self, x: Array, runs: int, seconds: float) -> Visit:
        """Time runs by the wall clock until the device is done; copies to and fro are not part of it."""
        run_checked(self, x)
        binding = self._bound(x)

        def sample() -> float:
            begin = time.perf_counter_ns()
            self._made.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return (time.perf_counter_ns() - begin) * 1e-6

        sample()
        return visited(sample, runs, seconds)

    def _bound(self, x: Array) -> Any:
        binding = self._made.io_binding()
        value = _onnxruntime().OrtValue.ortvalue_from_numpy(x, self._device, 0)
        binding.bind_ortvalue_input(self._made.get_inputs()[0].name, value)
        binding.bind_output(self._made.get_outputs()[0].name, self._device)
        return binding


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MeasureError("onnxruntime is not installed; pip install onnxruntime") from error
    return onnxruntime


def _session(graph: bytes, threads: int, providers: list[Any], entries: dict[str, str]) -> Any:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise MeasureError(f"onnxruntime does not take the graph: {str(error).splitlines()[0]}") from error
