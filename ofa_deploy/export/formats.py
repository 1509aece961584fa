"""The formats that a subnetwork can be exported in: how each is written, and how a file of it runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ofa_deploy.device.devices import DEVICES, Device
from ofa_deploy.device.timing import Array, Run
from ofa_deploy.errors import ArtifactError, MeasureError, OfaDeployError
from ofa_deploy.files import outputs
from ofa_deploy.graphs.formats import FileFormat, format_of

if TYPE_CHECKING:  # PyTorch is imported when a file is written
    from ofa_deploy.export.subject import Subject


@dataclass(frozen=True)
class Format:
    """One kind of model file.

    Attributes:
        suffix: of its files.
        write: the content of a file.
        start: from a file's content and a number of threads to what takes inputs in the format's own layout.
        imports: of a Python program that runs a file, one line.
        run: an expression for its logits, with FILE for its name and `x` for the input.
        layout: of its inputs: `NCHW` or `NHWC`.
        precision: that it computes in: `fp32` or `int8`.
        device: that its latency is measured on; None where it is not measured.
    """

    suffix: str
    write: Callable[[Subject], bytes]
    start: Callable[[bytes, int], Run]
    imports: str
    run: str
    layout: str = "NCHW"
    precision: str = "fp32"
    device: Device | None = None

    def native(self, x: Array) -> Array:
        """An input of shape (n, channels, height, width) in the format's layout."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if self.layout == "NHWC" else x

    def session(self, content: bytes, device: Device | None = None) -> Run:
        """What takes inputs of shape (n, channels, height, width), with one thread; for checks.

        Args:
            content: of a file.
            device: that runs it; None takes what the format itself says.
        """
        run = (self.start if device is None else device.session)(content, 1)
        return lambda x: run(self.native(x))

    def runs_on(self, device: Device) -> bool:
        """Whether its files are those that a device runs."""
        return self.device is not None and format_of(self.device) is format_of(device)


def _of_module(name: str, *, suffix: str, imports: str, run: str) -> Format:
    """The format that a module of this package writes and starts; the module is imported when it is used."""

    def write(subject: Subject) -> bytes:
        content: bytes = importlib.import_module(f"ofa_deploy.export.{name}").write(subject)
        return content

    def start(content: bytes, threads: int) -> Run:
        started: Run = importlib.import_module(f"ofa_deploy.export.{name}").start(content, threads)
        return started

    return Format(suffix, write, start, imports, run)


def _of_device(name: str) -> Format:
    """The format of the files that a device runs, written by the emitter that tables time."""
    device = DEVICES[name]
    file_format = format_of(device)
    assert device.usage is not None
    return Format(
        file_format.suffix,
        lambda subject: _emitted(file_format, subject),
        device.session,
        *device.usage,
        layout=file_format.layout,
        precision=device.precision,
        device=device,
    )


def _emitted(file_format: FileFormat, subject: Subject) -> bytes:
    named_ops = subject.net.space.walk(subject.net.arch)
    if file_format.quantise is not None:
        images = file_format.native(subject.calibration())
        return file_format.quantise(named_ops, subject.weights, images, notes=subject.notes)
    return file_format.emit(named_ops, subject.weights, notes=subject.notes)


FORMATS: dict[str, Format] = {
    "onnx": _of_device("cpu"),
    "onnx-int8": _of_device("cpu-int8"),
    "tflite": _of_device("tflite"),
    "tflite-int8": _of_device("tflite-int8"),
    "pt2": _of_module(
        "torch_program",
        suffix=".pt2",
        imports="import torch",
        run='torch.export.load("FILE").module()(torch.from_numpy(x)).detach().numpy()',
    ),
    "pte": _of_module(
        "executorch",
        suffix=".pte",
        imports="import torch; from executorch.runtime import Runtime",
        run='Runtime.get().load_program("FILE").load_method("forward").execute([torch.from_numpy(x)])[0].numpy()',
    ),
    "safetensors": _of_module(
        "safetensors",
        suffix=".safetensors",
        imports="import torch; from ofa_deploy.supernet.checkpoint import load_subnet",
        run='load_subnet("FILE")(torch.from_numpy(x)).detach().numpy()',
    ),
}
"""Every format by the name that users give."""
DEFAULTS = {form.suffix: name for name, form in FORMATS.items() if form.precision == "fp32"}
"""The format that the name of a file stands for, where none is given: fp32."""


def format_for(device: Device) -> str:
    """The name of the format whose files a device runs.

    Raises:
        MeasureError: no format is; the message names the devices that have one.
    """
    for name, form in FORMATS.items():
        if form.runs_on(device):
            return name
    served = [name for name, other in DEVICES.items() if any(form.runs_on(other) for form in FORMATS.values())]
    raise MeasureError(
        f"deploy writes and measures models for {', '.join(served)}, not for {device.name}: what it runs "
        f"({device.file_format}) is no format of export"
    )


def output_files(text: str | None, out: Path | None, *, space: str, folder: Path = Path()) -> dict[str, Path]:
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
        _check_file(out, *DEFAULTS)
        return {DEFAULTS[out.suffix]: out}
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise OfaDeployError(f"unknown format {unknown[0]!r}; choose of {', '.join(FORMATS)}")
    files = _named(names, out, folder / space)
    for name, path in files.items():
        _check_file(path, FORMATS[name].suffix)
    return files


def _check_file(path: Path, *suffixes: str) -> None:
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
