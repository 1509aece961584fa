"""Latency tables: what each operator costs on one device, and how wrong their sum is about whole networks."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import artifacts
from ofa_deploy.files.json_text import Json
from ofa_deploy.latency.machine_state import Estimate
from ofa_deploy.spaces.costs import Cost, Floats, Genes, SmoothMaximum
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace

KIND = "latency-table"
_COLUMNS = [field.name for field in fields(Op)]
LARGEST_MS = 1e9
"""Of an operator; sums of latencies that a file may hold stay finite."""
LARGEST_POWER = 1e3
"""Of a smooth maximum; above, it is the maximum."""
DOUBTFUL_PERCENT, DOUBTFUL_SPEARMAN = 10.0, 0.8
"""See `LatencyTable.doubt`."""
_ERRORS = ("networks", "mape_percent", "p95_percent", "worst_percent")
_CONDITIONS = ("device", "runtime", "runtime_version", "threads", "batch", "precision", "machine")


@dataclass(frozen=True)
class LatencyTable:
    """Latency of every network of a space at some resolutions, on one device.

    A network's latency is `scale` times the sum of its operators' rows, plus `per_op_ms` for each operator, plus
    `per_million_ms` for each million parameters, plus `constant_ms`: an operator in a network is spared the call of the
    runtime that it pays for when it is timed alone, and its weights have left the caches but for a share that fits. To
    each operator there may be a correction as well, see `calibration`.

    Of an asynchronous device it may be the smooth maximum of that sum, which is then the time for computing, and of the
    times for launching the operators, see `costs.SmoothMaximum`.

    Attributes:
        space: the search space.
        rows: by operator.
        resolutions: which ones are covered, in pixels.
        conditions: device, runtime, runtime_version, threads, batch, precision, machine.
        scale: fitted to whole networks.
        per_op_ms: likewise; usually negative.
        per_million_ms: likewise; not negative.
        constant_ms: likewise; mostly negative: minus what the weights that stay in the caches would take.
        corrections: of each operator in ms; empty where there are none.
        error: against whole networks that the fit has not seen: mape_percent, within_5_percent, ...; of no networks
            where it is not known.
        networks: the whole networks that were measured: arch, measured_ms, predicted_ms (by cross-validation).
        launch_ms: time for launching each operator; empty where the table is a sum.
        power: of the smooth maximum; 0 where the table is a sum.
        sha256: of the data file that the table was read from; empty for one just built.
    """

    space: SearchSpace
    rows: Mapping[Op, Estimate]
    resolutions: tuple[int, ...]
    conditions: Mapping[str, Any]
    scale: float = 1.0
    per_op_ms: float = 0.0
    per_million_ms: float = 0.0
    constant_ms: float = 0.0
    corrections: Mapping[Op, float] = dataclasses.field(default_factory=dict)
    error: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(_ERRORS, 0.0))
    networks: tuple[Mapping[str, Any], ...] = ()
    launch_ms: Mapping[Op, float] = dataclasses.field(default_factory=dict)
    power: float = 0.0
    sha256: str = ""

    @cached_property
    def cost(self) -> Cost:
        """The table compiled for its space, in ms; resolutions that it does not cover cost NaN.

        Raises:
            MeasureError: listing the operators that are missing.
        """
        missing = [op for op in self.space.all_ops(self.resolutions) if op not in self.rows]
        if missing:
            listed = "; ".join(map(str, missing[:3]))
            raise MeasureError(f"the table lacks {len(missing)} operators, first: {listed}; build it anew")
        work = self.space.cost(self.in_network_ms, self.resolutions).raised(self.constant_ms)
        if not self.power:
            return work
        return SmoothMaximum((work, self.space.cost(self.launch_ms.__getitem__, self.resolutions)), self.power)

    def in_network_ms(self, op: Op) -> float:
        """What an operator adds to the latency of a network, or to its time for computing, in ms."""
        alone = self.scale * self.rows[op].latency_ms + self.per_op_ms + self.per_million_ms * op.params / 1e6
        return alone + self.corrections.get(op, 0.0)

    def latency_ms(self, genes: Genes) -> Floats:
        """Predicted latency of whole networks in ms, shape (n,), from genes of shape (n, columns)."""
        return self.cost(genes)

    @property
    def _more_columns(self) -> dict[str, Mapping[Op, float]]:
        """Of the file, where they are not empty."""
        return {"launch_ms": self.launch_ms, "correction_ms": self.corrections}

    @property
    def identity(self) -> str:
        """Checksum of the data file and of the calibration: equal tables predict alike. In hexadecimal."""
        terms = [self.sha256, self.scale, self.per_op_ms, self.per_million_ms]
        terms += [term for term in (self.constant_ms, self.power) if term]  # files of before had neither
        return hashlib.sha256(" ".join(map(str, terms)).encode()).hexdigest()

    @property
    def label(self) -> str:
        """Device, machine and runtime in words."""
        c = self.conditions
        threads = f"{c['threads']} thread{'s' if c['threads'] != 1 else ''}"
        batch = f", batches of {c['batch']}" if c["batch"] != 1 else ""
        where = c["machine"]["gpu" if "gpu" in c["machine"] else "cpu"]
        return f"{c['device']} of {where}, {c['runtime']} {c['runtime_version']}, {threads}{batch}"

    @property
    def error_in_words(self) -> str:
        """How wrong the table is about whole networks."""
        e = self.error
        if not e["networks"]:
            return "its error on whole networks is not known"
        return (
            f"off by {e['mape_percent']:.2g} % on average and {e['worst_percent']:.2g} % at worst "
            f"on {e['networks']:.0f} whole networks, each by a calibration that had not seen it"
        )

    @property
    def doubt(self) -> str | None:
        """What should keep a user from relying on the table; None where nothing does."""
        e = self.error
        if not e["networks"]:
            return None
        if (off := e["p95_percent"]) > DOUBTFUL_PERCENT:
            return f"this table is off by {off:.0f} % or more for one network in 20: measure again when it is quiet"
        if e.get("spearman", 1.0) < DOUBTFUL_SPEARMAN:
            return f"this table hardly tells fast networks from slow ones (Spearman {e['spearman']:.2f}): measure again"
        return None

    def save(self, path: Path | str, details: Mapping[str, Any] | None = None) -> Json:
        """Write the rows as CSV and everything else as JSON beside it, with `details`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        more = {name: column for name, column in self._more_columns.items() if column}
        writer.writerow([*_COLUMNS, "latency_ms", "minimum_ms", "spread_percent", "runs", *more])
        for op, row in self.rows.items():
            shape = [int(v) if isinstance(v, bool) else v for v in dataclasses.astuple(op)]
            values = [f"{row.latency_ms:.6f}", f"{row.minimum_ms:.6f}", f"{row.spread_percent:.2f}", row.runs]
            writer.writerow([*shape, *values, *(f"{column[op]:.6f}" for column in more.values())])
        about = {
            **{key: self.conditions[key] for key in _CONDITIONS},
            "resolutions": list(self.resolutions),
            "scale": self.scale,
            "per_op_ms": self.per_op_ms,
            "per_million_ms": self.per_million_ms,
            "constant_ms": self.constant_ms,
            **({"power": self.power} if self.power else {}),
            "error": dict(self.error),
            "networks": list(self.networks),
            **(details or {}),
        }
        return artifacts.save(Path(path), text.getvalue().encode(), KIND, self.space.name, about)

    @classmethod
    def load(cls, path: Path | str, space: SearchSpace | None = None) -> LatencyTable:
        """Read a table.

        Args:
            path: its CSV file.
            space: which it must be of; None takes the space that its description names.

        Raises:
            ArtifactError: it is missing, damaged, or of another space.
            OfaDeployError: its space is unknown.
        """
        path = Path(path)
        data, about = artifacts.load(path, KIND, None if space is None else space.name)
        space = space or get_space(about["space"])
        try:
            rows, launch_ms, corrections, power = {}, {}, {}, float(about.get("power", 0.0))
            if power and not 1 < power < LARGEST_POWER:
                raise ValueError(f"a smooth maximum of power {power}")
            for line in csv.DictReader(io.StringIO(data.decode())):
                row = Estimate(
                    float(line["latency_ms"]),
                    float(line["minimum_ms"]),
                    float(line["spread_percent"]),
                    int(line["runs"]),
                )
                counted = row.latency_ms > 0 or row == Estimate(0, 0, 0, 0)  # a format may leave an operator out
                if not (row.latency_ms < LARGEST_MS and counted):
                    raise ValueError(f"a latency of {row.latency_ms} ms")
                rows[op := _read_op(line)] = row
                if "correction_ms" in line:
                    corrections[op] = float(line["correction_ms"])
                    if not abs(corrections[op]) < LARGEST_MS:
                        raise ValueError(f"a correction of {corrections[op]} ms")
                if power:
                    launch_ms[op] = float(line["launch_ms"])
                    if not 0 <= launch_ms[op] < LARGEST_MS:
                        raise ValueError(f"a launch of {launch_ms[op]} ms")
            resolutions = tuple(about["resolutions"])
            if not resolutions or not set(resolutions) <= set(space.resolutions):
                raise ValueError(f"resolutions {resolutions}")
            scale, per_op, per_million = (float(about[key]) for key in ("scale", "per_op_ms", "per_million_ms"))
            constant = float(about.get("constant_ms", 0.0))
            calibration = [scale, per_op, per_million, constant]
            figures = [*calibration, *(about["error"][key] for key in _ERRORS)]
            if not np.isfinite(np.array(figures, float)).all():
                raise ValueError("a figure of its calibration or error is not finite")
            if scale <= 0 or max(map(abs, calibration)) >= LARGEST_MS:
                raise ValueError(f"a calibration of {calibration}")
            if not all(isinstance(n["arch"], str) and 0 < float(n["measured_ms"]) < np.inf for n in about["networks"]):
                raise ValueError("one of its networks has no latency")
            return cls(
                space,
                rows,
                resolutions,
                {key: about[key] for key in _CONDITIONS},
                scale,
                per_op,
                per_million,
                constant,
                corrections,
                about["error"],
                tuple(about["networks"]),
                launch_ms,
                power,
                about["sha256"],
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"{path} is not a latency table: {error}; build it anew") from error


def file_name(space: SearchSpace, measured: Mapping[str, Any], blocks: bool = True) -> str:
    """Name of a table's file: space, device, threads, batch, processor; without `blocks`, that it is fitted."""
    machine = measured["machine"]
    where = machine.get("gpu", f"{machine['cpu']} {machine['cores']} cores")
    kind, batch = "" if blocks else "_fitted", "" if measured["batch"] == 1 else f"_b{measured['batch']}"
    return f"{space.name}_{measured['device']}_{measured['threads']}t{batch}_{artifacts.slug(where)}{kind}.csv"


def path_elsewhere(space: SearchSpace, device: str) -> Path:
    """Where the table of a device that is elsewhere lies by default.

    Raises:
        MeasureError: the device's name cannot be a part of a file's name.
    """
    if not device or Path(device).name != device:
        raise MeasureError(f"{device!r} cannot be a part of a file's name; call the device by letters and digits")
    return Path("lut") / f"{space.name}_{device}.csv"


def build_command(space: SearchSpace, measured: Mapping[str, Any]) -> str:
    """What a user types to build a table for these conditions."""
    threads = f" --threads {measured['threads']}" if measured["threads"] != 1 else ""
    batch = f" --batch {measured['batch']}" if measured["batch"] != 1 else ""
    return f"ofa-deploy build-lut --device {measured['device']} --space {space.name}{threads}{batch}"


def select(space: SearchSpace, measured: Mapping[str, Any]) -> tuple[LatencyTable, bool]:
    """The table for these conditions, else the reference table that ships.

    Args:
        space: of the table.
        measured: the conditions wanted (see `device.conditions`).

    Returns:
        a table, and whether it was measured under these very conditions on a machine of this kind.

    Raises:
        ArtifactError: there is neither.
    """
    found: dict[Path, Json] = {}
    damaged: ArtifactError | None = None
    for beside in artifacts.candidates("lut", f"{space.name}_{measured['device']}_*.json"):
        try:
            about = artifacts.describe(beside, KIND)
        except ArtifactError as error:  # another file there may be the right one
            damaged = error
            continue
        if about["space"] == space.name:
            found[beside.with_suffix(".csv")] = about
    for path, about in found.items():
        if not differing(about, measured):
            return LatencyTable.load(path, space), True
    if damaged is not None:
        raise damaged
    ships = artifacts.shipped("lut").resolve()
    reference = [
        path
        for path, about in found.items()
        if path.parent.resolve() == ships and about.get("batch") == measured["batch"]
    ]
    if not reference:
        images = f", batches of {measured['batch']}" if measured["batch"] != 1 else ""
        raise ArtifactError(
            f"no latency table of {space.name} for {measured['device']}{images}; run: {build_command(space, measured)}"
        )
    return LatencyTable.load(reference[0], space), False


def check_replaces(out: Path, resolutions: Sequence[int], others: Sequence[LatencyTable] = ()) -> None:
    """Refuse to write a table in the place of one that says more, or that it is made from.

    Args:
        out: the CSV file to write.
        resolutions: of the new table.
        others: that it is made from.

    Raises:
        ArtifactError: naming the file.
    """
    try:
        about = artifacts.describe(out, KIND)
    except ArtifactError:
        return
    if about.get("sha256") in {table.sha256 for table in others}:
        raise ArtifactError(f"the table would overwrite {out}, which it is made from; choose another --out")
    if lost := sorted(set(about.get("resolutions", [])) - set(resolutions)):
        raise ArtifactError(
            f"{out} has the resolutions {', '.join(map(str, lost))}, which the new table would lack; name another "
            "--out, or remove it"
        )


def differing(about: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """Which conditions of a table, by its JSON, are not those of a machine (see `device.conditions`)."""
    return [key for key in _CONDITIONS if about.get(key) != measured[key]]


def _read_op(line: Mapping[str, str]) -> Op:
    values: dict[str, Any] = {}
    for field in fields(Op):
        text = line[field.name]
        values[field.name] = text if field.type == "str" else bool(int(text)) if field.type == "bool" else int(text)
    return Op(**values)
