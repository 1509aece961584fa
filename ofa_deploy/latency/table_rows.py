"""The rows of a latency table: an operator, what was measured of it, and what calibrations add, from and to records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ofa_deploy.latency.machine_state import Estimate
from ofa_deploy.spaces.ops import Op

if TYPE_CHECKING:
    import pandas as pd

LARGEST_MS = 1e9
"""Of an operator; sums of latencies that a file may hold stay finite."""
LAUNCH, CORRECTION = "launch_ms", "correction_ms"
"""Columns that a table only has where it is a smooth maximum, and where its calibration has corrections."""
FORMATS = {"latency_ms": ".6f", "minimum_ms": ".6f", "spread_percent": ".2f", LAUNCH: ".6f", CORRECTION: ".6f"}
"""How numbers of a column are written."""
FLAGS = tuple(field.name for field in fields(Op) if field.type == "bool")
"""Columns that are written as 0 or 1."""


@dataclass(frozen=True)
class TableRows:
    """What a table says of operators.

    Attributes:
        estimates: latencies of operators alone.
        launch_ms: times for launching them; empty where the table is a sum.
        corrections: in ms; empty where the calibration has none.
    """

    estimates: Mapping[Op, Estimate]
    launch_ms: Mapping[Op, float] = field(default_factory=dict)
    corrections: Mapping[Op, float] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """A row an operator: its fields, those of its estimate, and `launch_ms` and `correction_ms` where there are."""
        import pandas as pd

        columns = {LAUNCH: self.launch_ms, CORRECTION: self.corrections}
        more = {name: values for name, values in columns.items() if values}
        records = (
            (*astuple(op), *astuple(estimate), *(values[op] for values in more.values()))
            for op, estimate in self.estimates.items()
        )
        return pd.DataFrame(records, columns=[column.name for column in (*fields(Op), *fields(Estimate))] + [*more])


def frame_csv(frame: pd.DataFrame) -> str:
    """The CSV text of a table's frame, as its file holds it."""
    text = {name: frame[name].map(f"{{:{spec}}}".format) for name, spec in FORMATS.items() if name in frame}
    flags = {name: frame[name].astype(int) for name in FLAGS}
    return str(frame.assign(**text, **flags).to_csv(index=False, lineterminator="\n"))


def read_rows(records: Iterable[Mapping[str, Any]], *, smooth_maximum: bool) -> TableRows:
    """Rows from records whose values are numbers, or numbers as text.

    Args:
        records: an operator each, by the names of the columns.
        smooth_maximum: whether the table is one, so that each operator has a time for launching.

    Raises:
        KeyError: a column is missing.
        ValueError, TypeError, OverflowError: a value is malformed, or out of its bounds.
        ArchError: there is no such operator.
    """
    estimates, launch_ms, corrections = {}, {}, {}
    for record in records:
        op = _operator(record)
        estimates[op] = _estimate(record)
        if CORRECTION in record:
            corrections[op] = float(record[CORRECTION])
            if not abs(corrections[op]) < LARGEST_MS:
                raise ValueError(f"a correction of {corrections[op]} ms")
        if smooth_maximum:
            launch_ms[op] = float(record[LAUNCH])
            if not 0 <= launch_ms[op] < LARGEST_MS:
                raise ValueError(f"a launch of {launch_ms[op]} ms")
    return TableRows(estimates, launch_ms, corrections)


def _estimate(record: Mapping[str, Any]) -> Estimate:
    estimate = Estimate(
        float(record["latency_ms"]),
        float(record["minimum_ms"]),
        float(record["spread_percent"]),
        int(record["runs"]),
    )
    counted = estimate.latency_ms > 0 or estimate == Estimate(0, 0, 0, 0)  # a format may leave an operator out
    if not (estimate.latency_ms < LARGEST_MS and counted):
        raise ValueError(f"a latency of {estimate.latency_ms} ms")
    return estimate


def _operator(record: Mapping[str, Any]) -> Op:
    values: dict[str, Any] = {}
    for column in fields(Op):
        value = record[column.name]
        values[column.name] = (
            value if column.type == "str" else int(value) if column.type == "int" else bool(int(value))
        )
    return Op(**values)
