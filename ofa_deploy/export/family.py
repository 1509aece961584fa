"""Exporting a family of models: every result of a file, or networks spread over a front, with an index."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.data.dataset import RECALIBRATION
from ofa_deploy.data.loading import load_data
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.formats import output_files
from ofa_deploy.export.run import MAX_DROP, check_figures, make, time_and_write
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.json_text import Json
from ofa_deploy.progress import Progress
from ofa_deploy.search.result import SearchResult, load_results
from ofa_deploy.search.result_parts import FrontPoint
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint

INDEX = "index.csv"


def export_family(
    space: SearchSpace,
    result: Path,
    number: int,
    data: str | None,
    weights: Path,
    folder: Path,
    formats: str | None,
    max_drop: float = MAX_DROP,
    recalibration: int = RECALIBRATION,
) -> dict[Path, Json]:
    """Export every network of a result file, or some of a front.

    Args:
        space: of the supernet.
        result: the file of one or several search results.
        number: of networks that are taken of a front, evenly spread over it; the ends are among them.
        data: the images, as `data.load` takes them.
        weights: file of the supernet.
        folder: for the models, their cards and `index.csv`.
        formats: see `formats.output_files`.
        max_drop: see `run.export_files`.
        recalibration: likewise.

    Returns:
        the card of each file.

    Raises:
        OfaDeployError: see `run.export_files`; the results are of another space.
    """
    check_figures(max_drop, recalibration)
    networks = _networks(space, result, load_results(result), number)
    names = [f"{space.name}_{i}" for i in range(1, len(networks) + 1)]
    targets = [output_files(formats, None, space=name, folder=folder) for name in names]
    outputs.check_folder(folder / INDEX)
    net, origin, images = (
        checkpoint.load_supernet(weights, space),
        checkpoint.provenance(weights),
        load_data(data, space),
    )
    progress = Progress(len(networks), "networks")
    cards: dict[Path, Json] = {}
    for (arch, predicted), files in zip(networks, targets, strict=True):
        made = make(net, arch, images, files, origin, predicted, max_drop, recalibration=recalibration)
        cards |= time_and_write(made, space, arch)
        atomic.write(folder / INDEX, _index(list(cards.values())))
        progress.add()
    return cards


def _networks(
    space: SearchSpace, path: Path, results: Sequence[SearchResult], number: int
) -> list[tuple[Arch, dict[str, Any]]]:
    """Architectures, and what was predicted of each."""
    if others := {result.space for result in results} - {space.name}:
        raise OfaDeployError(f"{path} is of {others.pop()}, not of {space.name}; choose with --space")
    if len(results) > 1 or not results[0].front:
        return [(result.arch, result.predicted()) for result in results]
    if number < 1:
        raise OfaDeployError(f"a family needs at least 1 network of the front, not {number}")
    front = results[0].front
    chosen = sorted({round(i) for i in np.linspace(len(front) - 1, 0, min(number, len(front)))})
    return [(front[i].arch, _predicted(results[0], front[i])) for i in chosen]


def _predicted(result: SearchResult, point: FrontPoint) -> dict[str, Any]:
    """What was predicted of a network of a front; its first limit is what the front is against."""
    first = result.limits[0]
    accuracy = {"top1_percent": point.score} if result.objective == "accuracy" else {}
    return {**accuracy, "limits": [{"name": first.name, "unit": first.unit, "predicted": point.cost}]}


def _index(cards: Sequence[Json]) -> str:
    """A row a file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "format", "arch", "macs", "params", "bytes", "predicted_top1_percent", "latency_ms"])
    for card in cards:
        measured = card["measured"].get("latency", {}).get("latency_ms", "")
        top = card["predicted"].get("top1_percent", "")
        figures = [card[key] for key in ("file", "format", "arch", "macs", "params", "bytes")]
        writer.writerow([*figures, top, measured])
    return text.getvalue()
