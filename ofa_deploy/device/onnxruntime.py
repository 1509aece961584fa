"""onnxruntime on the CPU, or on an NVIDIA GPU by its CUDA and TensorRT providers."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import numpy as np

from ofa_deploy.device.timing import Array, CpuSession, Visit, run_checked, time_by_samples
from ofa_deploy.errors import MeasureError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
"""Execution providers, by onnxruntime's names."""


def start(content: bytes, threads: int) -> CpuSession:
    """A session of an ONNX model with one input and one output.

    Args:
        content: of the model file.
        threads: of the CPU; work between operators is sequential.

    Raises:
        MeasureError: onnxruntime does not take the graph.
    """
    session = _session(content, threads, [CPU], {})
    name = session.get_inputs()[0].name

    def run(x: Array) -> Array:
        return np.asarray(session.run(None, {name: x})[0])

    return CpuSession(run)


def start_gpu(content: bytes, threads: int, *, provider: str) -> BoundSession:
    """A session of an ONNX model on the first GPU; a model that the provider leaves to the CPU is refused.

    Args:
        content: of the model file.
        threads: of the CPU, for what feeds the GPU.
        provider: of onnxruntime: `CUDA` or `TENSORRT`.

    Raises:
        MeasureError: this onnxruntime lacks the provider, it does not load, or it does not take all of the graph.
    """
    check_provider(provider)
    cuda = (CUDA, {"use_tf32": "0"})  # so that float32 is what the table says
    providers = [cuda] if provider == CUDA else [provider, cuda]
    session = _session(content, threads, providers, {"session.disable_cpu_ep_fallback": "1"})
    if session.get_providers()[:1] != [provider]:
        raise MeasureError(f"onnxruntime's {provider} does not load here; install the CUDA and cuDNN that it wants")
    return BoundSession(session, "cuda")


def gpu_name(provider: str) -> str:
    """The GPU that a provider uses, as NVIDIA's driver calls it.

    Raises:
        MeasureError: this onnxruntime lacks the provider, or there is no GPU.
    """
    check_provider(provider)
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", f"--id={number}", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise MeasureError("nvidia-smi finds no GPU here; install NVIDIA's driver") from error


def check_provider(provider: str) -> None:
    """Make sure that this onnxruntime has a provider.

    Raises:
        MeasureError: it has not.
    """
    if provider not in _onnxruntime().get_available_providers():
        raise MeasureError(
            f"this onnxruntime has no {provider}; install the one for GPUs: pip uninstall onnxruntime and "
            "pip install onnxruntime-gpu"
        )


class BoundSession:
    """A session whose input and output lie on a device, and which times itself.

    Args:
        session: onnxruntime's.
        device: as onnxruntime calls it, such as `cuda`.
    """

    def __init__(self, session: Any, device: str) -> None:
        self._session, self._device = session, device

    def __call__(self, x: Array) -> Array:
        """Copy an input there, run, and copy the output back."""
        binding = self._bound(x)
        self._session.run_with_iobinding(binding)
        return np.asarray(binding.copy_outputs_to_cpu()[0])

    def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
        """Time runs by the wall clock until the device is done; copies to and fro are not part of it."""
        run_checked(self, x)
        binding = self._bound(x)

        def sample() -> float:
            begin = time.perf_counter_ns()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return (time.perf_counter_ns() - begin) * 1e-6

        sample()
        return time_by_samples(sample, runs=runs, seconds=seconds)

    def _bound(self, x: Array) -> Any:
        binding = self._session.io_binding()
        value = _onnxruntime().OrtValue.ortvalue_from_numpy(x, self._device, 0)
        binding.bind_ortvalue_input(self._session.get_inputs()[0].name, value)
        binding.bind_output(self._session.get_outputs()[0].name, self._device)
        return binding


def probe() -> dict[str, Any]:
    """Version and execution providers of the onnxruntime that is installed."""
    onnxruntime = _onnxruntime()
    return {"version": str(onnxruntime.__version__), "providers": list(onnxruntime.get_available_providers())}


def _onnxruntime() -> Any:
    import onnxruntime

    return onnxruntime


def _session(content: bytes, threads: int, providers: list[Any], entries: dict[str, str]) -> Any:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise MeasureError(f"onnxruntime does not take the graph: {str(error).splitlines()[0]}") from error
