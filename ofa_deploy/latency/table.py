"""Latency tables: what each operator costs on one device, and how wrong their sum is about whole networks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_deploy.errors import ArchError, ArtifactError, MeasureError
from ofa_deploy.files import artifacts
from ofa_deploy.files.csv_text import read_records
from ofa_deploy.files.json_text import Json
from ofa_deploy.latency.machine_state import Estimate
from ofa_deploy.latency.table_rows import LARGEST_MS, TableRows, frame_csv, read_rows
from ofa_deploy.spaces.costs import Cost, Floats, Genes, SmoothMaximum
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

KIND = "latency-table"
LARGEST_POWER = 1e3
"""Of a smooth maximum; above, it is the maximum."""
DOUBTFUL_PERCENT = 10.0
"""Errors of one network in 20 above which a table should not be relied on."""
DOUBTFUL_SPEARMAN = 0.8
"""Rank correlation of predicted and measured latencies below which it should not either."""
_ERRORS = ("networks", "mape_percent", "p95_percent", "worst_percent")
CONDITIONS = ("device", "runtime", "runtime_version", "threads", "batch", "precision", "machine")
"""What tells one device from another, in the order of a table's JSON."""
_CALIBRATION = ("scale", "per_op_ms", "per_million_ms", "constant_ms")


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
        scale: of the sum of rows, fitted to whole networks.
        per_op_ms: for each operator, fitted to whole networks; usually negative.
        per_million_ms: for each million parameters, fitted to whole networks; not negative.
        constant_ms: of a network as such, fitted to whole networks; mostly negative: minus what the weights that stay
            in the caches would take.
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
    def identity(self) -> str:
        """Checksum of the data file and of the calibration: equal tables predict alike. In hexadecimal."""
        terms = [self.sha256, self.scale, self.per_op_ms, self.per_million_ms]
        terms += [term for term in (self.constant_ms, self.power) if term]  # files of before had neither
        return hashlib.sha256(" ".join(map(str, terms)).encode()).hexdigest()

    @property
    def label(self) -> str:
        """Device, machine and runtime in words."""
        device, runtime, version, threads, batch = (self.conditions[key] for key in CONDITIONS[:5])
        machine = self.conditions["machine"]
        processor = machine["gpu" if "gpu" in machine else "cpu"]
        plural = "s" if threads != 1 else ""
        batches = f", batches of {batch}" if batch != 1 else ""
        return f"{device} of {processor}, {runtime} {version}, {threads} thread{plural}{batches}"

    @property
    def error_in_words(self) -> str:
        """How wrong the table is about whole networks."""
        error = self.error
        if not error["networks"]:
            return "its error on whole networks is not known"
        return (
            f"off by {error['mape_percent']:.2g} % on average and {error['worst_percent']:.2g} % at worst "
            f"on {error['networks']:.0f} whole networks, each by a calibration that had not seen it"
        )

    @property
    def doubt(self) -> str | None:
        """What should keep a user from relying on the table; None where nothing does."""
        error = self.error
        if not error["networks"]:
            return None
        if (percent := error["p95_percent"]) > DOUBTFUL_PERCENT:
            return f"this table is off by {percent:.0f} % or more for one network in 20: measure again when it is quiet"
        if (rank := error.get("spearman", 1.0)) < DOUBTFUL_SPEARMAN:
            return f"this table hardly tells fast networks from slow ones (Spearman {rank:.2f}): measure again"
        return None

    @property
    def _table_rows(self) -> TableRows:
        return TableRows(self.rows, self.launch_ms, self.corrections)

    def to_frame(self) -> pd.DataFrame:
        """A row an operator, with the columns of the table's file; figures are not rounded."""
        return self._table_rows.to_frame()

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, like: LatencyTable) -> LatencyTable:
        """A table with the rows of a frame.

        Args:
            frame: a row an operator, as `to_frame` makes it.
            like: the table whose space, conditions, calibration and error it has.

        Raises:
            MeasureError: a column is missing, or a value is malformed.
        """
        try:
            rows = read_rows(frame.to_dict("records"), smooth_maximum=bool(like.power))
        except (KeyError, TypeError, ValueError, OverflowError, ArchError) as error:
            raise MeasureError(f"the frame has no rows of a table: {error}; take the columns of to_frame") from error
        return dataclasses.replace(
            like, rows=rows.estimates, launch_ms=rows.launch_ms, corrections=rows.corrections, sha256=""
        )

    def save(self, path: Path | str, details: Mapping[str, Any] | None = None) -> Json:
        """Write the rows as CSV and everything else as JSON beside it.

        Args:
            path: of the CSV file.
            details: more JSON values, such as how the measuring went.

        Returns:
            the JSON that was written.
        """
        description = {
            **{key: self.conditions[key] for key in CONDITIONS},
            "resolutions": list(self.resolutions),
            **{key: getattr(self, key) for key in _CALIBRATION},
            **({"power": self.power} if self.power else {}),
            "error": dict(self.error),
            "networks": list(self.networks),
            **(details or {}),
        }
        text = frame_csv(self.to_frame())
        return artifacts.save(Path(path), text.encode(), kind=KIND, space=self.space.name, details=description)

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
        data, description = artifacts.load(path, KIND, space=None if space is None else space.name)
        space = space or get_space(description["space"])
        records = read_records(data, path)  # by the csv module: pandas alone would double a search's start-up
        try:
            figures = _figures(description, space)
            rows = read_rows(records, smooth_maximum=bool(figures["power"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"{path} is not a latency table: {error}; build it anew") from error
        return cls(space, rows.estimates, launch_ms=rows.launch_ms, corrections=rows.corrections, **figures)


def _figures(description: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """The fields of a table that its description holds, checked.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: a field is missing or malformed.
    """
    power = float(description.get("power", 0.0))
    if power and not 1 < power < LARGEST_POWER:
        raise ValueError(f"a smooth maximum of power {power}")
    resolutions = tuple(description["resolutions"])
    if not resolutions or not set(resolutions) <= set(space.resolutions):
        raise ValueError(f"resolutions {resolutions}")
    calibration = {key: float({"constant_ms": 0.0, **description}[key]) for key in _CALIBRATION}
    numbers = [*calibration.values(), *(description["error"][key] for key in _ERRORS)]
    if not np.isfinite(np.array(numbers, float)).all():
        raise ValueError("a figure of its calibration or error is not finite")
    if calibration["scale"] <= 0 or max(map(abs, calibration.values())) >= LARGEST_MS:
        raise ValueError(f"a calibration of {list(calibration.values())}")
    networks = tuple(description["networks"])
    if not all(isinstance(n["arch"], str) and 0 < float(n["measured_ms"]) < np.inf for n in networks):
        raise ValueError("one of its networks has no latency")
    return {
        **calibration,
        "power": power,
        "resolutions": resolutions,
        "conditions": {key: description[key] for key in CONDITIONS},
        "error": description["error"],
        "networks": networks,
        "sha256": description["sha256"],
    }
