"""Android phones: TensorFlow's `benchmark_model` on the phone, driven by adb from a computer."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_deploy.device.timing import Array, Visit
from ofa_deploy.errors import MeasureError

FOLDER = "/data/local/tmp/ofa-deploy"
"""Folder on the phone; below it files may be run without its owner's rights."""
SOURCE = "https://ai.google.dev/edge/litert/models/measurement"
"""Where TensorFlow's `benchmark_model` is to be had."""
WARM = 2
"""Runs that do not count, before those that do."""
_COUNT = re.compile(r"\bcount=\d+[^\n]*")
_VALUE = re.compile(r"(\w+)=([-+.\w]+)")


@dataclass(frozen=True)
class Options:
    """What the user says about a phone.

    Attributes:
        binary: TensorFlow's benchmark_model for it.
        serial: which phone, as adb lists it; None where there is one.
        mask: of the processors to use, as `taskset` takes it; None leaves that to the phone.
    """

    binary: Path | None = None
    serial: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and not re.fullmatch(r"[0-9a-fA-F]+", self.mask):
            raise MeasureError(f"--taskset takes a mask in hexadecimal such as f0, not {self.mask!r}")


class Phone:
    """A phone that adb reaches.

    Args:
        options: which one, and how.
        name: of the folder there, below `FOLDER`.

    Raises:
        MeasureError: adb or the binary is missing, or the phone is not reached.
    """

    def __init__(self, options: Options, name: str) -> None:
        if options.binary is None or not options.binary.is_file():
            raise MeasureError(
                f"this bundle measures a phone: --benchmark-model FILE must be TensorFlow's for Android, see {SOURCE}"
            )
        self._options, self._folder = options, f"{FOLDER}/{name}"
        self._digest = hashlib.sha256(options.binary.read_bytes()).hexdigest()[:12]
        self._binary = f"benchmark_model-{self._digest}"
        self._shell(f"mkdir -p {self._folder}")
        self._files = set(self._shell(f"ls {self._folder}").split())
        if self._binary not in self._files:
            self._push(options.binary, self._binary)
            self._shell(f"chmod 755 {self._folder}/{self._binary}")

    def conditions(self, device: str, threads: int, *, batch: int) -> dict[str, Any]:
        """The conditions under which the phone measures, as `conditions.conditions` has a computer's.

        Args:
            device: its name.
            threads: of the phone's processor.
            batch: images a run.

        Raises:
            MeasureError: the phone does not answer.
        """
        names = ("product.manufacturer", "product.model", "soc.model", "product.cpu.abi", "build.version.release")
        maker, model, chip, architecture, release = (self._shell(f"getprop ro.{name}").strip() for name in names)
        details = ", ".join(
            detail for detail in (chip, self._options.mask and f"taskset {self._options.mask}") if detail
        )
        cores = self._shell("nproc").strip()
        if not cores.isdigit():
            raise MeasureError(f"the phone does not tell its number of processors: {cores!r}")
        return {
            "device": device,
            "runtime": "tflite",
            "runtime_version": f"benchmark_model {self._digest}",
            "threads": threads,
            "batch": batch,
            "precision": "fp32",
            "machine": {
                "cpu": f"{maker} {model}" + (f" ({details})" if details else ""),
                "architecture": architecture,
                "cores": int(cores),
                "system": f"Android {release}",
            },
        }

    def session(self, name: str, content: Callable[[str], bytes], *, threads: int) -> PhoneSession:
        """A session of a model, which is copied there unless a run before has done so.

        Args:
            name: of the model.
            content: reads it, by its name.
            threads: of the phone's processor.
        """
        file = name.replace("/", "_")
        if file not in self._files:
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / file
                local.write_bytes(content(name))
                self._push(local, file)
        taskset = f"taskset {self._options.mask} " if self._options.mask else ""
        command = (
            f"cd {self._folder} && {taskset}./{self._binary} --graph={file} --num_threads={threads} "
            f"--warmup_runs={WARM} --warmup_min_secs=0 --min_secs=0"
        )
        return PhoneSession(lambda runs: self._shell(f"{command} --num_runs={runs} 2>&1"))

    def clean(self) -> None:
        """Remove what was copied there."""
        self._shell(f"rm -rf {self._folder}")

    def _push(self, local: Path, name: str) -> None:
        """Copy a file there, whole or not at all."""
        self._adb("push", str(local), f"{self._folder}/{name}.tmp")
        self._shell(f"mv {self._folder}/{name}.tmp {self._folder}/{name}")
        self._files.add(name)

    def _shell(self, command: str) -> str:
        """What a command prints on the phone."""
        return self._adb("shell", command)

    def _adb(self, *arguments: str) -> str:
        """What adb prints.

        Raises:
            MeasureError: it is missing or fails.
        """
        which = ["-s", self._options.serial] if self._options.serial else []
        try:
            process = subprocess.run(["adb", *which, *arguments], capture_output=True, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise MeasureError("adb cannot be run; install Android's platform tools") from error
        printed = process.stdout.decode(errors="replace").replace("\r", "")
        if process.returncode:
            lines = (process.stderr.decode(errors="replace").strip() or printed.strip()).splitlines()
            why = f"{lines[-1] if lines else 'no reason given'} (exit code {process.returncode})"
            raise MeasureError(f"adb {arguments[0]}: {why}; mend that and repeat the command to go on")
        return printed


class PhoneSession:
    """A session on a phone: it times itself, and its output stays on the phone.

    Args:
        run: from a number of runs to what `benchmark_model` prints.
    """

    def __init__(self, run: Callable[[int], str]) -> None:
        self._run = run

    def __call__(self, x: Array) -> Array:
        """Not possible: `benchmark_model` draws its own input and shows no output."""
        raise MeasureError("a model on a phone is timed, its output is not seen")

    def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
        """Time the model on the phone; the runs are not cut short."""
        return parse(self._run(runs))


def parse(printed: str) -> Visit:
    """Times from what `benchmark_model` prints.

    It has a line `count=50 first=... min=... avg=... std=...` in µs for the warm-up and then one for the runs, with
    `median=...` in newer releases; of older ones the average is taken.

    Raises:
        MeasureError: it has no such lines.
    """
    lines = _COUNT.findall(printed)
    try:
        _, last = lines[-2:]
        values = {key: float(value) for key, value in _VALUE.findall(last)}
        typical = values.get("median", values.get("avg", values["curr"]))
        least = values.get("min", typical)
        if not 0 < least < float("inf") or not 0 < typical < float("inf"):
            raise ValueError(last)
    except (ValueError, KeyError) as error:
        why = (printed.strip().splitlines() or ["nothing"])[-1]
        raise MeasureError(f"benchmark_model did not say how long it took; it ended with: {why}") from error
    return Visit(typical * 1e-3, least * 1e-3, int(values["count"]), 0)
