"""The formats that a subnetwork can be exported in: how each is written, and how a file of it runs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.device.conditions import DEVICES, precision_of
from ofa_deploy.device.timing import Array, Session
from ofa_deploy.errors import ArtifactError, DataError, MeasureError, OfaDeployError
from ofa_deploy.files import outputs
from ofa_deploy.graphs.runtimes import RUNTIMES, Runtime
from ofa_deploy.graphs.weights import Weights
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Subnet, folded

BATCH_PIXELS = 8 * 224 * 224
"""That the network takes at once where it is compared with files."""
CALIBRATION = 256
FEWEST = 32
"""Training images that int8 is calibrated on: as many as that where there are, at least so many."""


@dataclass(frozen=True)
class Subject:
    """What is exported.

    Attributes:
        net: a subnetwork, recalibrated.
        data: the images that it was recalibrated on.
        recalibration: how many of the training images.
    """

    net: Subnet
    data: Dataset
    recalibration: int = RECALIBRATION

    @cached_property
    def weights(self) -> dict[str, Weights]:
        """Of each part, batch norms folded."""
        return folded(self.net)

    @property
    def notes(self) -> dict[str, str]:
        """Metadata for inside a file."""
        data, net = self.data, self.net
        props = {"arch": net.arch, "space": net.space.name, "mean": data.mean, "std": data.std, "classes": data.classes}
        return {key: str(value) for key, value in props.items()}

    def logits(self, number: int) -> Array:
        """What the network computes for the first held-out images, (number or fewer, classes).

        Computed once, a few images at a time: activations that leave the caches take three times as long.
        """
        size, images = self.net.arch.resolution, self.data.heldout[:number]
        batch = max(1, BATCH_PIXELS // size**2)
        known = self._known
        with torch.inference_mode():
            for start in range(sum(map(len, known)), len(images), batch):
                known.append(self.net.eval()(self.data.tensor(images.pixels[start : start + batch], size)).numpy())
        return np.concatenate(known)[: len(images)]

    @cached_property
    def _known(self) -> list[Array]:
        """Logits of the first held-out images, batch by batch."""
        return []

    def calibration(self) -> Array:
        """Normalised training images, (n, channels, height, width).

        Raises:
            DataError: they are too few.
        """
        pixels = self.data.train.pixels[:CALIBRATION]
        if len(pixels) < FEWEST:
            raise DataError(
                f"int8 is calibrated on training images, at least {FEWEST}; {self.data.name} has {len(pixels)}"
            )
        return np.ascontiguousarray(self.data.tensor(pixels, self.net.arch.resolution).numpy())


@dataclass(frozen=True)
class Format:
    """One kind of model file.

    Attributes:
        suffix: of its files.
        layout: of its inputs: `NCHW` or `NHWC`.
        precision: that it computes in: `fp32` or `int8`.
        device: friendly name of what its latency is measured with; None where it is not.
        write: the content of a file.
        start: from a file's content and a number of threads to a session that takes the format's own layout.
        imports: of a Python program that runs a file, one line.
        run: an expression for its logits, with FILE for its name and `x` for the input.
    """

    suffix: str
    layout: str
    precision: str
    device: str | None
    write: Callable[[Subject], bytes]
    start: Callable[[bytes, int], Session]
    imports: str
    run: str

    def native(self, x: Array) -> Array:
        """An input of shape (n, channels, height, width) in the format's layout."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if self.layout == "NHWC" else x

    def session(self, content: bytes) -> Session:
        """A session of one thread that takes inputs of shape (n, channels, height, width); for checks."""
        started = self.start(content, 1)
        return lambda x: started(self.native(x))


def _of_runtime(name: str, imports: str, run: str) -> Format:
    """What a runtime that tables time runs, with the emitter that they time."""
    runtime: Runtime = RUNTIMES[name]

    def write(subject: Subject) -> bytes:
        parts = subject.net.space.walk(subject.net.arch)
        if runtime.quantise is not None:
            images = runtime.native(subject.calibration())
            return runtime.quantise(parts, subject.weights, images, subject.notes)
        return runtime.emit(parts, subject.weights, notes=subject.notes)

    device = next(device for device, served in DEVICES.items() if served == name)
    return Format(runtime.suffix, runtime.layout, precision_of(name), device, write, runtime.start, imports, run)


def _write_pt2(subject: Subject) -> bytes:
    net, size = subject.net, subject.net.arch.resolution
    example = torch.zeros(2, net.space.in_channels, size, size)
    batch = torch.export.Dim("batch")
    program = torch.export.export(net.eval(), (example,), dynamic_shapes={"x": {0: batch}})
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=dict(subject.notes))
    return buffer.getvalue()


def _of_module(module: Callable[[torch.Tensor], torch.Tensor]) -> Session:
    def run(x: Array) -> Array:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return run


def _start_pt2(content: bytes, threads: int) -> Session:
    return _of_module(torch.export.load(io.BytesIO(content)).module())


def _write_pte(subject: Subject) -> bytes:
    net, size = subject.net, subject.net.arch.resolution
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of what ExecuTorch itself uses
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
        except ImportError as error:
            raise _no_executorch() from error
        program = torch.export.export(net.eval(), (torch.zeros(1, net.space.in_channels, size, size),))
        parts = [XnnpackPartitioner()]
        lowered = to_edge_transform_and_lower(program, partitioner=parts, constant_methods=subject.notes)
        return bytes(lowered.to_executorch().buffer)


def _start_pte(content: bytes, threads: int) -> Session:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its Python interface calls itself experimental
        try:
            from executorch.runtime import Runtime
        except ImportError as error:
            raise _no_executorch() from error
        method = Runtime.get().load_program(content).load_method("forward")
    return _of_module(lambda x: method.execute([x])[0])


def _no_executorch() -> MeasureError:
    return MeasureError("ExecuTorch is not installed; pip install 'ofa-deploy[executorch]'")


def _write_safetensors(subject: Subject) -> bytes:
    return checkpoint.subnet_content(subject.net, subject.notes)


def _start_safetensors(content: bytes, threads: int) -> Session:
    return _of_module(checkpoint.subnet_of(content, Path("the exported file")))


_ONNX = "import onnxruntime", 'onnxruntime.InferenceSession("FILE").run(None, {"image": x})[0]'
_TFLITE = (
    "from ai_edge_litert.interpreter import Interpreter",
    'Interpreter("FILE").get_signature_runner()(image=x)["logits"]',
)
FORMATS: dict[str, Format] = {
    "onnx": _of_runtime("onnxruntime", *_ONNX),
    "onnx-int8": _of_runtime("onnxruntime-int8", *_ONNX),
    "tflite": _of_runtime("tflite", *_TFLITE),
    "tflite-int8": _of_runtime("tflite-int8", *_TFLITE),
    "pt2": Format(
        ".pt2",
        "NCHW",
        "fp32",
        None,
        _write_pt2,
        _start_pt2,
        "import torch",
        'torch.export.load("FILE").module()(torch.from_numpy(x)).detach().numpy()',
    ),
    "pte": Format(
        ".pte",
        "NCHW",
        "fp32",
        None,
        _write_pte,
        _start_pte,
        "import torch; from executorch.runtime import Runtime",
        'Runtime.get().load_program("FILE").load_method("forward").execute([torch.from_numpy(x)])[0].numpy()',
    ),
    "safetensors": Format(
        ".safetensors",
        "NCHW",
        "fp32",
        None,
        _write_safetensors,
        _start_safetensors,
        "import torch; from ofa_deploy.supernet.checkpoint import load_subnet",
        'load_subnet("FILE")(torch.from_numpy(x)).detach().numpy()',
    ),
}
"""Every format by the name that users give."""
DELIVERED = {one.device: name for name, one in FORMATS.items() if one.device is not None}
"""The format that each device name stands for, where tables of that device are about a format."""
DEFAULTS = {one.suffix: name for name, one in FORMATS.items() if one.precision == "fp32"}
"""The format that the name of a file stands for, where none is given: fp32."""


def chosen(text: str | None, out: Path | None, space: str, folder: Path = Path()) -> dict[str, Path]:
    """The files to write, by their formats.

    Args:
        text: formats, separated by commas; None takes what `out` ends in, else ONNX.
        out: the file, or with several formats the beginning of their names.
        space: whose name begins them otherwise.
        folder: for them, where `out` is not given.

    Raises:
        OfaDeployError: a format is unknown, or `out` does not fit them.
        ArtifactError: a file cannot be written.
    """
    if text is None:
        out = out or folder / f"{space}.onnx"
        _check(out, *DEFAULTS)
        return {DEFAULTS[out.suffix]: out}
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise OfaDeployError(f"unknown format {unknown[0]!r}; choose of {', '.join(FORMATS)}")
    files = _named(names, out, folder / space)
    for name, path in files.items():
        _check(path, FORMATS[name].suffix)
    return files


def _check(path: Path, *suffixes: str) -> None:
    """Refuse a model that cannot be written, or whose card would replace something else."""
    outputs.check_output(path, *suffixes)
    card = path.with_suffix(".md")
    if card.exists() and not path.with_suffix(".json").exists():
        raise ArtifactError(f"{card} is not a card of {path} and would be overwritten; choose another name")


def _named(names: Sequence[str], out: Path | None, otherwise: Path) -> dict[str, Path]:
    if out is not None and len(names) == 1:
        return {names[0]: out}
    if out is not None and (out.is_dir() or out.suffix in DEFAULTS):
        what = "a folder" if out.is_dir() else "one file"
        raise ArtifactError(f"--out {out} is {what}; with several formats give what their names begin with")
    begin = out or otherwise
    return {name: begin.with_name(f"{begin.name}_{name}{FORMATS[name].suffix}") for name in names}
