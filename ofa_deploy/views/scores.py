"""Costs, predicted accuracy and latency of a list of architectures, as rows and as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.accuracy.intervals import NORMAL_90
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.csv_text import records_csv
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.space import SearchSpace

CODES = ("ks", "e", "d", "w", "r")
"""Columns that an architecture may be given by."""


def score_file(
    space: SearchSpace, archs: Path, predictor: Path, lut: Path | None, out: Path | None
) -> list[dict[str, Any]]:
    """Score the architectures of a file, in its order.

    Args:
        space: search space of the architectures.
        archs: CSV or JSON file that `arch_lists.read` understands.
        predictor: file of the accuracy predictor.
        lut: file of the latency table; without one there is no latency.
        out: CSV file to write as well.

    Returns:
        a row an architecture: arch, macs, params, top1_percent with the ends of its 90 % interval, and latency_ms;
        None where a figure is not known; then the other columns of a CSV as they are.

    Raises:
        ArtifactError: a file is missing, damaged or of another space; the table lacks one of the resolutions.
    """
    if out is not None:
        outputs.check_plain(out, ".csv")
        if out.resolve() == archs.resolve():
            raise ArtifactError(f"the scores would overwrite the list {archs}; choose another --out")
    networks, cells = arch_lists.read(archs, space, results=True)
    columns = _figures(networks, Predictor.load(predictor, space))
    if lut is not None:
        columns["latency_ms"] = _latencies(networks, LatencyTable.load(lut, space), lut)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if archs.suffix != ".json":
        others = [name for name in cells[0] if name and name not in {*columns, *CODES}]
        rows = [row | {name: line[name] for name in others} for row, line in zip(rows, cells, strict=True)]
    if out is not None:
        atomic.write(out, records_csv(rows))
    return rows


def _figures(archs: Sequence[Arch], predictor: Predictor) -> dict[str, list[Any]]:
    """Columns of architectures: their text, costs, and accuracy as predicted."""
    space = predictor.space
    genes = space.genes(archs)
    mean, std = predictor.predict(genes, return_std=True)
    return {
        "arch": list(map(str, archs)),
        "macs": list(map(int, space.macs(genes))),
        "params": list(map(int, space.params(genes))),
        "top1_percent": _rounded(mean, 3),
        "top1_low_percent": _rounded(mean - NORMAL_90 * std, 3),
        "top1_high_percent": _rounded(mean + NORMAL_90 * std, 3),
    }


def _latencies(archs: Sequence[Arch], table: LatencyTable, lut: Path) -> list[float | None]:
    """Milliseconds of architectures by the table of the file `lut`, which must have their resolutions."""
    space = table.space
    if missing := sorted({arch.resolution for arch in archs} - set(table.resolutions)):
        raise ArtifactError(
            f"{lut} has no resolution {', '.join(map(str, missing))}; build one with: "
            f"ofa-deploy build-lut --space {space.name} --resolutions {','.join(map(str, missing))}"
        )
    return _rounded(table.latency_ms(space.genes(archs)), 5)


def _rounded(values: Floats, digits: int) -> list[float | None]:
    return [None if math.isnan(value) else round(value, digits) for value in values.tolist()]
