"""What a page is made of: the results, and the files that belong to them, as far as they are found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.accuracy.predictors.predictor import KIND as PREDICTOR
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import artifacts, atomic, json_text
from ofa_deploy.formatting import DASH, mapping, number
from ofa_deploy.latency.table import KIND as TABLE
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.budget import UNITS
from ofa_deploy.search.limits import cost_limit
from ofa_deploy.search.result import SearchResult, load_results
from ofa_deploy.search.result_records import LimitOutcome
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Cost
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

CLOUD = 300
"""Random networks that are drawn behind a front."""
LARGEST_IMAGE = 4_000_000
"""Bytes of a predictor's plot that is taken into the page."""
NO_LIMIT = LimitOutcome(
    name="macs", unit="M", predicted=math.nan, lower=None, upper=None, margin_percent=0.0, source=DASH, sha256=""
)
"""Stands for the first limit of a result that has none."""


@dataclass(frozen=True)
class ResultFile:
    """A file of results.

    Attributes:
        path: of the file.
        sha256: its checksum.
        made_with: versions and machine, as the file tells them.
    """

    path: Path
    sha256: str
    made_with: Mapping[str, Any]


@dataclass(frozen=True)
class TableFile:
    """A latency table from a file.

    Attributes:
        path: of the file.
        table: the table.
        description: the JSON beside it.
    """

    path: Path
    table: LatencyTable
    description: Mapping[str, Any]


@dataclass(frozen=True)
class PredictorFile:
    """An accuracy predictor from a file.

    Attributes:
        path: of the file.
        predictor: the predictor.
        description: the JSON beside it.
        plot: of its samples, the content of the PNG beside it; empty where there is none.
    """

    path: Path
    predictor: Predictor
    description: Mapping[str, Any]
    plot: bytes


@dataclass(frozen=True)
class Point:
    """A network in a chart.

    Attributes:
        arch: the network.
        cost: predicted, in the unit of its panel.
        score: predicted.
    """

    arch: Arch
    cost: float
    score: float


@dataclass(frozen=True)
class Series:
    """Results about one device (or one other cost).

    Attributes:
        name: of the device, in words.
        results: of it.
        table: its latency table; None where that was not found or the cost is none.
        fronts: of the results that have one, cheapest first.
        cloud: random networks of the space; empty where table or predictor were not found.
    """

    name: str
    results: tuple[SearchResult, ...]
    table: TableFile | None
    fronts: tuple[tuple[Point, ...], ...]
    cloud: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """Results that can be drawn into one chart.

    Attributes:
        space: of all results.
        objective: of all results: `accuracy` or `macs`.
        cost: name of the first limit of all results.
        unit: of the cost.
        series: the results, by device.
    """

    space: SearchSpace
    objective: str
    cost: str
    unit: str
    series: tuple[Series, ...]

    @property
    def results(self) -> list[tuple[int, SearchResult]]:
        """Every result with the number of its series."""
        return [(i, result) for i, series in enumerate(self.series) for result in series.results]


@dataclass(frozen=True)
class Material:
    """Everything that a page shows.

    Attributes:
        files: the result files.
        panels: the results.
        predictors: those of the results that were found, by checksum.
    """

    files: tuple[ResultFile, ...]
    panels: tuple[Panel, ...]
    predictors: Mapping[str, PredictorFile]


def gather(paths: Sequence[Path], seed: int = 0) -> Material:
    """Read results, and find what belongs to them: named by them, in the working folder, or shipped.

    Args:
        paths: files of results.
        seed: of the random networks behind a front.

    Raises:
        ArtifactError: a file is no result.
    """
    loaded = [load_results(path) for path in paths]
    groups = _grouped([result for results in loaded for result in results], _panel_key)
    predictors: dict[str, PredictorFile] = {}
    for result in (result for group in groups for result in group):
        sha256 = mapping(result.inputs).get("predictor_sha256")
        if isinstance(sha256, str) and sha256 not in predictors and (file := find_predictor(result, sha256)):
            predictors[sha256] = file
    sources = _Sources(predictors, seed)
    panels = tuple(_panel(group, sources) for group in groups)
    return Material(tuple(_result_file(path) for path in paths), panels, predictors)


@dataclass(frozen=True)
class _Sources:
    """What random networks behind a front come from.

    Attributes:
        predictors: of their scores, by checksum.
        seed: of the networks.
    """

    predictors: Mapping[str, PredictorFile]
    seed: int


def _result_file(path: Path) -> ResultFile:
    made_with = json_text.loads(atomic.read(path), path).get("made_with")
    return ResultFile(path, atomic.sha256(path), mapping(made_with))


def _grouped(
    results: Iterable[SearchResult], key: Callable[[SearchResult], tuple[str, ...]]
) -> list[tuple[SearchResult, ...]]:
    """Results of the same key together, in the order of their first ones."""
    groups: dict[tuple[str, ...], list[SearchResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return [tuple(group) for group in groups.values()]


def _panel_key(result: SearchResult) -> tuple[str, ...]:
    """What the results of a panel have in common."""
    first = first_limit(result)
    return result.space, str(result.objective), first.name, first.unit


def _series_key(result: SearchResult) -> tuple[str, ...]:
    """What the results of a series have in common."""
    first = first_limit(result)
    return first.source, first.sha256


def _panel(results: Sequence[SearchResult], sources: _Sources) -> Panel:
    """Results that can be drawn into one chart."""
    first, space = first_limit(results[0]), get_space(results[0].space)
    series = tuple(_series(space, group, sources) for group in _grouped(results, _series_key))
    return Panel(space, str(results[0].objective), first.name, first.unit, series)


def _series(space: SearchSpace, results: tuple[SearchResult, ...], sources: _Sources) -> Series:
    """Results about one device, with their table, their fronts and random networks."""
    first = first_limit(results[0])
    table = find_table(space, results[0]) if first.name == "latency" else None
    fronts = tuple(front for result in results if (front := _front(result)))
    return Series(first.source, results, table, fronts, _cloud(space, results[0], table, sources))


def _front(result: SearchResult) -> tuple[Point, ...]:
    """The points of a front that can be shown, cheapest first."""
    points = [Point(point.arch, point.cost, point.score) for point in result.front]
    return tuple(sorted(filter(_can_be_shown, points), key=lambda point: point.cost))


def _can_be_shown(point: Point) -> bool:
    return number(point.cost) is not None and number(point.score) is not None


def _cloud(space: SearchSpace, result: SearchResult, table: TableFile | None, sources: _Sources) -> tuple[Point, ...]:
    """Random networks by the predictor and the cost of a result, where both were found."""
    price, resolutions = _price(space, first_limit(result).name, table)
    file = sources.predictors.get(str(mapping(result.inputs).get("predictor_sha256")))
    if price is None or (file is None and result.objective != "macs"):
        return ()
    genes = np.unique(space.sample(np.random.default_rng(sources.seed), CLOUD, resolutions), axis=0)
    scores = space.macs(genes) / 1e6 if file is None else file.predictor.predict(genes)
    each = zip(space.archs(genes), price(genes).tolist(), np.asarray(scores).tolist(), strict=True)
    return tuple(filter(_can_be_shown, (Point(*point) for point in each)))


def _price(space: SearchSpace, cost: str, table: TableFile | None) -> tuple[Cost | None, tuple[int, ...] | None]:
    """What predicts a network's cost, and at which resolutions; None twice where no table was found."""
    if cost == "latency":
        return (table.table.cost, table.table.resolutions) if table else (None, None)
    return (cost_limit(space, cost, budget="100%").cost, None) if cost in UNITS else (None, None)


def find_table(space: SearchSpace, result: SearchResult) -> TableFile | None:
    """The latency table that a result's first limit is about, by its checksum."""
    sha256 = first_limit(result).sha256
    for path in _paths("lut", request_of(result).get("luts"), space, TABLE):
        try:
            table = LatencyTable.load(path, space)
            if table.identity == sha256:
                return TableFile(path, table, artifacts.describe(path, TABLE))
        except (OfaDeployError, KeyError, TypeError, ValueError, OverflowError):
            continue  # a page about a result does not fail because of another table
    return None


def find_predictor(result: SearchResult, sha256: str) -> PredictorFile | None:
    """The predictor of a result, by its checksum."""
    space = get_space(result.space)
    for path in _paths("predictors", [request_of(result).get("predictor")], space, PREDICTOR):
        try:
            description = artifacts.describe(path, PREDICTOR)
            if description.get("sha256") == sha256:
                return PredictorFile(path, Predictor.load(path, space), description, _plot(path.with_suffix(".png")))
        except OfaDeployError:
            continue
    return None


def _paths(folder: str, named: Any, space: SearchSpace, kind: str) -> Iterator[Path]:
    """Data files of a kind and space: those that a result names, then the working folder's and the shipped."""
    listed = [Path(name) for name in _strings(named)]
    for path in [*listed, *artifacts.candidates(folder, "*.json")]:
        try:
            description = artifacts.describe(path, kind)
        except (OfaDeployError, ValueError):
            continue
        if description["space"] == space.name and isinstance(description.get("file"), str):
            yield path.with_name(Path(description["file"]).name)


def _plot(path: Path) -> bytes:
    """A PNG file's content; nothing where there is none."""
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_IMAGE else b""
    except OSError:
        return b""
    return data if data.startswith(b"\x89PNG\r\n\x1a\n") else b""


def first_limit(result: SearchResult) -> LimitOutcome:
    """The limit whose cost a chart shows; one that says nothing where a result has none."""
    return result.limits[0] if result.limits else NO_LIMIT


def request_of(result: SearchResult) -> Mapping[str, Any]:
    """What was asked for, as far as a file says it."""
    return mapping(mapping(result.inputs).get("request"))


def _strings(values: Any) -> Iterable[str]:
    return [v for v in values if isinstance(v, str) and v] if isinstance(values, (list, tuple)) else []
