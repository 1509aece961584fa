"""Costs, predicted accuracy and latency of a list of architectures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.accuracy.predictors.predictor import NORMAL_90, Predictor
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.space import SearchSpace

CODES = ("ks", "e", "d", "w", "r")
"""Columns that an architecture may be given by."""


def score_file(
    space: SearchSpace, archs: Path, predictor: Path, lut: Path | None, out: Path | None
) -> list[dict[str, Any]]:
    """Score the architectures of a file, in its order.

    Args:
        space: theirs.
        archs: see `arch_lists.read`.
        predictor: of their accuracy.
        lut: latency table; without one there is no latency.
        out: CSV file to write as well.

    Returns:
        for each: arch, macs, params, top1_percent with the ends of its 90 % interval, and latency_ms; None where a
        figure is not known; then other columns of a CSV as they are.

    Raises:
        ArtifactError: a file is missing, damaged or of another space; the table lacks one of the resolutions.
    """
    if out is not None:
        outputs.check_plain(out, ".csv")
        if out.resolve() == archs.resolve():
            raise ArtifactError(f"the scores would overwrite the list {archs}; choose another --out")
    listed, given = arch_lists.read(archs, space, results=True)
    model = Predictor.load(predictor, space)
    genes = space.genes(listed)
    mean, std = model.predict(genes, return_std=True)
    columns: dict[str, list[Any]] = {
        "arch": list(map(str, listed)),
        "macs": list(map(int, space.macs(genes))),
        "params": list(map(int, space.params(genes))),
        "top1_percent": _rounded(mean, 3),
        "top1_low_percent": _rounded(mean - NORMAL_90 * std, 3),
        "top1_high_percent": _rounded(mean + NORMAL_90 * std, 3),
    }
    if lut is not None:
        table = LatencyTable.load(lut, space)
        if missing := sorted({a.resolution for a in listed} - set(table.resolutions)):
            raise ArtifactError(
                f"{lut} has no resolution {', '.join(map(str, missing))}; build one with: "
                f"ofa-deploy build-lut --space {space.name} --resolutions {','.join(map(str, missing))}"
            )
        columns["latency_ms"] = _rounded(table.latency_ms(genes), 5)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if archs.suffix != ".json":
        more = [key for key in given[0] if key and key not in {*columns, *CODES}]
        rows = [row | {key: one[key] for key in more} for row, one in zip(rows, given, strict=True)]
    if out is not None:
        atomic.write(out, to_csv(rows))
    return rows


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV text, with empty cells where a figure is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rounded(values: Floats, digits: int) -> list[float | None]:
    return [None if math.isnan(v) else round(v, digits) for v in values.tolist()]
