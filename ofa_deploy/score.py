"""Costs, predicted accuracy and latency of a list of architectures."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from ofa_deploy import arch_lists, artifacts
from ofa_deploy.accuracy.predictors.predictor import NORMAL_90, Predictor
from ofa_deploy.errors import ArtifactError
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.space import SearchSpace


def score_file(space: SearchSpace, archs: Path, predictor: Path, lut: Path | None, out: Path | None) -> str:
    """Score the architectures of a file, in its order.

    Args:
        space: theirs.
        archs: see `arch_lists.read`.
        predictor: of their accuracy.
        lut: latency table; without one there is no latency.
        out: CSV file to write as well.

    Returns:
        CSV text: arch, macs, params, top1_percent with the ends of its 90 % interval, and latency_ms.

    Raises:
        ArtifactError: a file is missing, damaged or of another space; the table lacks one of the resolutions.
    """
    if out is not None:
        artifacts.check_output(out, ".csv")
    listed, _ = arch_lists.read(archs, space)
    model = Predictor.load(predictor, space)
    genes = space.genes(listed)
    mean, std = model.predict(genes)
    columns = {
        "arch": list(map(str, listed)),
        "macs": [f"{v:.0f}" for v in space.macs(genes)],
        "params": [f"{v:.0f}" for v in space.params(genes)],
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    if out is not None:
        artifacts.write(out, text.getvalue())
    return text.getvalue()


def _rounded(values: np.ndarray[tuple[int], np.dtype[np.float64]], digits: int) -> list[str]:
    """Cells, empty where a figure is not known."""
    return ["" if np.isnan(v) else f"{v:.{digits}f}" for v in values]
