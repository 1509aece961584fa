"""PyTorch in eager mode, channels-last: on the CPU, or on an NVIDIA GPU as a CUDA graph that is timed by CUDA events.

Both run the same functions on the file that `graphs.torch` writes; where tensors lie and how runs are timed differs.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from typing import Any, Callable

import numpy as np

from ofa_deploy.device.timing import Array, CpuSession, Visit, run_checked, time_by_samples
from ofa_deploy.errors import MeasureError

NODES = "nodes"
"""Name of the JSON among the arrays of a file."""
WARM = 3
"""Runs before a CUDA graph is captured; in the first cuDNN looks for its fastest algorithms."""
SAMPLE_MS = 1.0
"""A sample on a GPU is as many replays in a row as take this long: events have about 1 µs of noise."""
MOST = 50
"""Replays of a sample at most."""
FP32, FP16 = "float32", "float16"
"""Precisions by PyTorch's names."""


def start(content: bytes, threads: int) -> CpuSession:
    """A session on the CPU, of float32 inputs (n, height, width, channels).

    Args:
        content: of the file.
        threads: of the processor; PyTorch has one such number for the whole process, which each run sets.

    Raises:
        MeasureError: the file does not hold a network.
    """
    torch = _torch()
    network = _network(torch, content, "cpu", FP32)

    def run(x: Array) -> Array:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.inference_mode():
            return _to_numpy(network(_to_tensor(torch, x)))

    return CpuSession(run)


def start_cuda(content: bytes, threads: int, *, precision: str = FP32) -> GraphedSession:
    """A session on the first GPU, of float32 inputs (n, height, width, channels).

    Args:
        content: of the file.
        threads: of the processor, which a GPU does not need.
        precision: PyTorch's name for that of weights and activations.

    Raises:
        MeasureError: PyTorch finds no GPU, or the file does not hold a network.
    """
    gpu_name()
    torch = _torch()
    return GraphedSession(torch, _network(torch, content, "cuda", precision), precision)


def gpu_name() -> str:
    """The GPU that PyTorch uses.

    Raises:
        MeasureError: PyTorch finds none.
    """
    torch = _torch()
    if not torch.cuda.is_available():
        raise MeasureError(
            f"PyTorch {torch.__version__} finds no CUDA GPU; install NVIDIA's driver, and a build of PyTorch for CUDA: "
            "pip install torch"
        )
    return str(torch.cuda.get_device_name(0))


class GraphedSession:
    """A network as a CUDA graph for the shape of its input, captured at the first run; it times itself.

    Args:
        torch: the module.
        network: a function of a tensor.
        precision: PyTorch's name for that of weights and activations.
    """

    def __init__(self, torch: Any, network: Callable[[Any], Any], precision: str) -> None:
        self._torch, self._network, self._type = torch, network, getattr(torch, precision)
        self._graph: Any = None
        self._input: Any = None
        self._output: Any = None

    def __call__(self, x: Array) -> Array:
        """Copy an input there, replay, and copy the output back; for checks, not for timing."""
        self._load(x)
        self._graph.replay()
        return _to_numpy(self._output.float().cpu())  # copying back waits for the GPU

    def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
        """Time replays by events on the GPU; copies to and fro are not part of it."""
        run_checked(self, x)
        once = self._replays(1)
        number = max(1, min(MOST, round(SAMPLE_MS / max(once, 1e-3))))
        return time_by_samples(lambda: self._replays(number), runs=runs, seconds=seconds * number)

    def _replays(self, number: int) -> float:
        """Milliseconds of each of some replays in a row."""
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(number):
            self._graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / number

    def _load(self, x: Array) -> None:
        torch = self._torch
        source = _to_tensor(torch, x).to(self._type)
        if self._graph is None or self._input.shape != source.shape:
            self._input = source.to("cuda", memory_format=torch.channels_last)
            self._capture()
        self._input.copy_(source)

    def _capture(self) -> None:
        """As PyTorch's notes on CUDA graphs ask for: warmed up on a stream of its own, then captured on that stream.

        TF32 is off, so that float32 is what the table says.
        """
        torch = self._torch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
        with torch.inference_mode(), exact:
            with torch.cuda.stream(stream):
                for _ in range(WARM):
                    self._network(self._input)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=stream):
                self._output = self._network(self._input)


def probe() -> dict[str, Any]:
    """PyTorch's version, the CUDA that it was built for, and the GPUs that it finds."""
    torch = _torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver that is too old is told by the absence of its GPU
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"version": str(torch.__version__), "cuda": torch.version.cuda, "gpus": gpus}


def _torch() -> Any:
    import torch

    return torch


def _to_tensor(torch: Any, x: Array) -> Any:
    """An input (n, height, width, channels) as a channels-last tensor, without a copy."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def _to_numpy(y: Any) -> Array:
    output: Array = (y.permute(0, 2, 3, 1) if y.ndim == 4 else y).numpy()
    return output


def _network(torch: Any, content: bytes, device: str, precision: str) -> Callable[[Any], Any]:
    """A network as a function of a tensor.

    Raises:
        MeasureError: the file does not hold a network.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        description = json.loads(arrays.pop(NODES).tobytes())
        tensors = {name: _placed(torch, array, device, precision) for name, array in arrays.items()}
        functions = _functions(torch)
        steps = [
            (functions[node["kind"]], node["inputs"], node["output"], node["attributes"])
            for node in description["nodes"]
        ]
        source, target = description["input"], description["output"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise MeasureError(f"PyTorch does not take the graph: {(str(error).splitlines() or ['damaged'])[0]}") from error
    last = {name: i for i, (_, names, _, _) in enumerate(steps) for name in names if name not in tensors}
    freed = [[name for name in names if last.get(name) == i] for i, (_, names, _, _) in enumerate(steps)]

    def run(x: Any) -> Any:
        values = {source: x}
        for (function, names, output, attributes), done in zip(steps, freed):
            inputs = [tensors[name] if name in tensors else values[name] for name in names]
            values[output] = function(attributes, *inputs)
            for name in set(done):
                del values[name]
        return values[target]

    return run


def _placed(torch: Any, array: Array, device: str, precision: str) -> Any:
    tensor = torch.from_numpy(array).to(device, getattr(torch, precision))
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _functions(torch: Any) -> dict[str, Callable[..., Any]]:
    """What each kind of ONNX node that `graphs.onnx` writes is in PyTorch."""
    f = torch.nn.functional

    def window(a: dict[str, Any]) -> tuple[Any, Any]:
        return a.get("strides", [1, 1]), a.get("pads", [0, 0])[:2]

    def conv(a: dict[str, Any], x: Any, weight: Any, bias: Any = None) -> Any:
        strides, pads = window(a)
        return f.conv2d(x, weight, bias, strides, pads, 1, a.get("group", 1))

    def average_pool(a: dict[str, Any], x: Any) -> Any:
        return f.avg_pool2d(x, a["kernel_shape"], *window(a), ceil_mode=bool(a.get("ceil_mode")))

    return {
        "Conv": conv,
        "Relu": lambda a, x: f.relu(x),
        "Clip": lambda a, x, low, high: f.relu6(x),
        "HardSwish": lambda a, x: f.hardswish(x),
        "HardSigmoid": lambda a, x: f.hardsigmoid(x),
        "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
        "AveragePool": average_pool,
        "MaxPool": lambda a, x: f.max_pool2d(x, a["kernel_shape"], *window(a)),
        "Flatten": lambda a, x: x.flatten(1),
        "Gemm": lambda a, x, weight, bias: f.linear(x, weight, bias),
        "Mul": lambda a, x, y: x * y,
        "Add": lambda a, x, y: x + y,
    }
