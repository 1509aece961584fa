"""Exporting a family of models: every result of a file, or networks spread over a front, with an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.data.loading import load_data
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.formats import output_files
from ofa_deploy.export.run import ExportSettings, model_files, time_and_write
from ofa_deploy.export.subject import Subject
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.csv_text import csv_text
from ofa_deploy.files.json_text import Json
from ofa_deploy.progress import Progress
from ofa_deploy.search.result import SearchResult, load_results
from ofa_deploy.search.result_records import FrontPoint
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.evaluation import specialise

INDEX = "index.csv"
"""Name of the list of a family's files."""


def export_family(
    space: SearchSpace,
    result: Path,
    *,
    number: int,
    data: str | None,
    weights: Path,
    folder: Path,
    formats: str | None = None,
    settings: ExportSettings | None = None,
) -> dict[Path, Json]:
    """Export every network of a result file, or some of a front.

    Args:
        space: of the supernet.
        result: the file of one or several search results.
        number: of networks that are taken of a front, evenly spread over it; the ends are among them.
        data: the images, as `data.loading.load_data` takes them.
        weights: file of the supernet.
        folder: for the models, their cards and `index.csv`.
        formats: separated by commas; None takes ONNX.
        settings: how, without fine-tuning; None takes `ExportSettings()`.

    Returns:
        the card of each file.

    Raises:
        OfaDeployError: the results are of another space, one of the inputs is unusable, or a file does not compute
            what it should.
    """
    settings = settings or ExportSettings()
    networks = _networks(space, load_results(result), path=result, number=number)
    names = [f"{space.name}_{i}" for i in range(1, len(networks) + 1)]
    targets = [output_files(formats, None, space=name, folder=folder) for name in names]
    outputs.check_folder(folder / INDEX)
    net, origin = checkpoint.load_supernet(weights, space), checkpoint.provenance(weights)
    images = load_data(data, space)
    progress = Progress(len(networks), "networks")
    cards: dict[Path, Json] = {}
    for (arch, predicted), files in zip(networks, targets, strict=True):
        subnet = specialise(net, space.check(arch), data=images, images=settings.recalibration)
        subject = Subject(subnet, images, settings.recalibration, origin=origin, predicted=predicted)
        cards |= time_and_write(model_files(subject, files, max_drop=settings.max_drop))
        atomic.write(folder / INDEX, _index(list(cards.values())))
        progress.add()
    return cards


def _networks(
    space: SearchSpace, results: Sequence[SearchResult], *, path: Path, number: int
) -> list[tuple[Arch, dict[str, Any]]]:
    """Architectures of results, or `number` of a front, and what was predicted of each; `path` is for messages."""
    if others := {result.space for result in results} - {space.name}:
        raise OfaDeployError(f"{path} is of {others.pop()}, not of {space.name}; choose with --space")
    if len(results) > 1 or not results[0].front:
        return [(result.arch, result.predicted()) for result in results]
    if number < 1:
        raise OfaDeployError(f"a family needs at least 1 network of the front, not {number}")
    front = results[0].front
    places = sorted({round(i) for i in np.linspace(len(front) - 1, 0, min(number, len(front)))})
    return [(front[i].arch, _predicted(results[0], front[i])) for i in places]


def _predicted(result: SearchResult, point: FrontPoint) -> dict[str, Any]:
    """What was predicted of a network of a front; its first limit is what the front is against."""
    first = result.limits[0]
    accuracy = {"top1_percent": point.score} if result.objective == "accuracy" else {}
    return {**accuracy, "limits": [{"name": first.name, "unit": first.unit, "predicted": point.cost}]}


def _index(cards: Sequence[Json]) -> str:
    """A row a file."""
    facts = ("file", "format", "arch", "macs", "params", "bytes")
    rows = [
        [
            *(card[key] for key in facts),
            card["predicted"].get("top1_percent"),
            card["measured"].get("latency", {}).get("latency_ms"),
        ]
        for card in cards
    ]
    return csv_text([*facts, "predicted_top1_percent", "latency_ms"], rows)
