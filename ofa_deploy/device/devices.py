"""The devices that networks are measured on and delivered for: one record each, in one dict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

from ofa_deploy.device import onnxruntime, openvino, tflite, torch
from ofa_deploy.device.timing import Session
from ofa_deploy.errors import MeasureError
from ofa_deploy.files.machine import installed_version, this_machine

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Device:
    """One way to run a network.

    Attributes:
        name: that users give.
        runtime: its name in tables.
        precision: that it computes in, one of `PRECISIONS`.
        library: the runtime's name in messages; several devices may share it.
        packages: distributions that the library may come from; the first one installed counts.
        install: the command that installs it.
        file_format: of the model files that it runs, see `graphs.formats`.
        start: from the content of a model file and a number of threads to a session; it imports the library.
        probe: what the library tells about itself, as JSON values; it imports the library.
        usage: for people who have a file: a line of imports, and an expression for the logits of `x`, with FILE for the
            file's name; None where such files only serve to measure.
        gpu_name: tells the name of the GPU that the device is; None where it is a CPU.
    """

    name: str
    runtime: str
    precision: str
    library: str
    packages: tuple[str, ...]
    install: str
    file_format: str
    start: Callable[[bytes, int], Session]
    probe: Callable[[], dict[str, Any]]
    usage: tuple[str, str] | None = None
    gpu_name: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise MeasureError(f"{self.name} must compute in one of {', '.join(PRECISIONS)}, not {self.precision!r}")

    @property
    def version(self) -> str:
        """Of the package that is installed, without importing it; `unknown` where none is."""
        versions = [version for package in self.packages if (version := installed_version(package))]
        return versions[0] if versions else "unknown"

    def session(self, content: bytes, threads: int) -> Session:
        """A session of a model.

        Args:
            content: of a file of `file_format`.
            threads: of the CPU.

        Raises:
            MeasureError: the library is not installed, cannot be loaded or does not take the model, or there is no GPU.
        """
        with self._loading():
            return self.start(content, threads)

    def facts(self) -> dict[str, Any]:
        """What the library tells about itself, as JSON values; `version` is among them.

        Raises:
            MeasureError: it is not installed, or cannot be loaded.
        """
        with self._loading():
            return {"version": self.version, **self.probe()}

    def machine(self) -> dict[str, Any]:
        """The machine as tables describe it, with its GPU where the device is one.

        Raises:
            MeasureError: the GPU is not here, or the library that would find it.
        """
        if self.gpu_name is None:
            return this_machine()
        with self._loading():
            return {**this_machine(), "gpu": self.gpu_name()}

    def check(self) -> None:
        """Make sure that the device can be used here.

        Raises:
            MeasureError: its library is not installed, or cannot be loaded, or its GPU is not here.
        """
        self.facts()
        self.machine()

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """Turns a library that is missing, or broken, into one line that says what to do."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise MeasureError(f"{self.library} is not installed; {self.install}") from error
        except ImportError as error:  # it is there, but made for another numpy or C library
            why = (str(error).splitlines() or ["no reason given"])[0]
            raise MeasureError(f"{self.library} is installed but cannot be loaded: {why}; {self.install}") from error


_ONNXRUNTIME = partial(
    Device,
    library="onnxruntime",
    packages=("onnxruntime",),
    install="pip install onnxruntime",
    file_format="onnx",
    start=onnxruntime.start,
    probe=onnxruntime.probe,
    usage=("import onnxruntime", 'onnxruntime.InferenceSession("FILE").run(None, {"image": x})[0]'),
)
_ORT_GPU = partial(_ONNXRUNTIME, packages=("onnxruntime-gpu",), install="pip install onnxruntime-gpu")
_LITERT = partial(
    Device,
    library="LiteRT",
    packages=("ai-edge-litert", "tflite-runtime"),
    install="pip install ai-edge-litert",
    file_format="tflite",
    start=tflite.start,
    probe=tflite.probe,
    usage=(
        "from ai_edge_litert.interpreter import Interpreter",
        'Interpreter("FILE").get_signature_runner()(image=x)["logits"]',
    ),
)
_TORCH = partial(
    Device,
    library="torch",
    packages=("torch",),
    install="pip install torch",
    file_format="torch-npz",
    start=torch.start,
    probe=torch.probe,
)
_ROWS = (
    _ONNXRUNTIME("cpu", "onnxruntime", "fp32"),
    _LITERT("tflite", "tflite", "fp32"),
    _TORCH("torch", "torch", "fp32"),
    _TORCH("gpu", "torch-cuda", "fp32", start=torch.start_cuda, gpu_name=torch.gpu_name),
    _TORCH(
        "gpu-fp16",
        "torch-cuda-fp16",
        "fp16",
        start=partial(torch.start_cuda, precision=torch.FP16),
        gpu_name=torch.gpu_name,
    ),
    _ORT_GPU(
        "ort-cuda",
        "onnxruntime-cuda",
        "fp32",
        start=partial(onnxruntime.start_gpu, provider=onnxruntime.CUDA),
        gpu_name=partial(onnxruntime.gpu_name, onnxruntime.CUDA),
    ),
    _ORT_GPU(
        "tensorrt",
        "onnxruntime-tensorrt",
        "fp32",
        start=partial(onnxruntime.start_gpu, provider=onnxruntime.TENSORRT),
        gpu_name=partial(onnxruntime.gpu_name, onnxruntime.TENSORRT),
    ),
    _ONNXRUNTIME("cpu-int8", "onnxruntime-int8", "int8"),
    _LITERT("tflite-int8", "tflite-int8", "int8"),
    Device(
        "openvino",
        "openvino",
        "fp32",
        library="OpenVINO",
        packages=("openvino",),
        install="pip install openvino",
        file_format="onnx",
        start=openvino.start,
        probe=openvino.probe,
        usage=("import openvino", 'openvino.compile_model("FILE", "CPU")({"image": x})["logits"]'),
    ),
)
DEVICES = {device.name: device for device in _ROWS}
"""Every device by its name."""


def get_device(name: str) -> Device:
    """A device by its name.

    Raises:
        MeasureError: there is none of that name.
    """
    if name not in DEVICES:
        raise MeasureError(f"unknown device {name!r}; choose one of {', '.join(DEVICES)}")
    return DEVICES[name]


def with_precision(name: str, precision: str | None) -> str:
    """The name of a device that computes in a precision: `tflite` in `int8` is `tflite-int8`.

    Args:
        name: of a device.
        precision: that is asked for; None takes the device as it is.

    Raises:
        MeasureError: there is no such device, or it does not compute in that precision.
    """
    if precision is None or precision == get_device(name).precision:
        return name
    variant = f"{name}-{precision}"
    if variant not in DEVICES:
        others = sorted(device.name for device in DEVICES.values() if device.precision == precision)
        choice = f"with it go {', '.join(others)}" if others else "choose fp32, fp16 or int8"
        raise MeasureError(f"{name} is not measured in {precision}; {choice}")
    return variant


def devices_in_words() -> str:
    """All devices with what runs them: processors first, then GPUs."""
    places: dict[bool, dict[str, list[str]]] = {False: {}, True: {}}
    for device in DEVICES.values():
        places[device.gpu_name is not None].setdefault(device.library, []).append(device.name)
    processors, gpus = (
        ", ".join(f"{' and '.join(names)} ({library})" for library, names in place.items()) for place in places.values()
    )
    return f"{processors}; on a GPU: {gpus}"
