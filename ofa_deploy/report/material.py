"""What a page is made of: the results, and the files that belong to them, as far as they are found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ofa_deploy.search.result_parts import LimitOutcome
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
class TableFile:
    """A latency table, where it lies, and its JSON."""

    path: Path
    table: LatencyTable
    about: Mapping[str, Any]


@dataclass(frozen=True)
class PredictorFile:
    """An accuracy predictor, where it lies, its JSON, and the plot beside it (PNG; empty where there is none)."""

    path: Path
    predictor: Predictor
    about: Mapping[str, Any]
    plot: bytes


@dataclass(frozen=True)
class Point:
    """A network in a chart: predicted cost and score."""

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
    """Results that can be drawn into one chart: of one space, one objective and one cost."""

    space: SearchSpace
    objective: str
    cost: str
    unit: str
    series: tuple[Series, ...]

    @property
    def results(self) -> list[tuple[int, SearchResult]]:
        """Every result with the number of its series."""
        return [(i, result) for i, one in enumerate(self.series) for result in one.results]


@dataclass(frozen=True)
class Material:
    """Everything that a page shows.

    Attributes:
        files: the result files, with their checksums and `made_with`.
        panels: the results.
        predictors: that were found, by checksum.
    """

    files: tuple[tuple[Path, str, Mapping[str, Any]], ...]
    panels: tuple[Panel, ...]
    predictors: Mapping[str, PredictorFile]


def gather(paths: Sequence[Path], seed: int = 0) -> Material:
    """Read results, and find what belongs to them: named by them, in the working folder, or shipped.

    Raises:
        ArtifactError: a file is no result.
    """
    files = []
    groups: dict[tuple[str, str, str, str], list[SearchResult]] = {}
    for path in paths:
        found = load_results(path)
        data = atomic.read(path)
        files.append((path, atomic.sha256(path), mapping(json_text.loads(data, path).get("made_with"))))
        for result in found:
            first = first_limit(result)
            group = (result.space, str(result.objective), first.name, first.unit)
            groups.setdefault(group, []).append(result)
    predictors: dict[str, PredictorFile] = {}
    for result in (result for results in groups.values() for result in results):
        wanted = mapping(result.inputs).get("predictor_sha256")
        if isinstance(wanted, str) and wanted not in predictors and (model := find_predictor(result, wanted)):
            predictors[wanted] = model
    panels = tuple(_panel(group, results, predictors, seed) for group, results in groups.items())
    return Material(tuple(files), panels, predictors)


def _panel(
    group: tuple[str, str, str, str],
    results: Sequence[SearchResult],
    predictors: Mapping[str, PredictorFile],
    seed: int,
) -> Panel:
    space, (objective, cost, unit) = get_space(group[0]), group[1:]
    devices: dict[tuple[str, str], list[SearchResult]] = {}
    for result in results:
        first = first_limit(result)
        devices.setdefault((first.source, first.sha256), []).append(result)
    return Panel(
        space,
        objective,
        cost,
        unit,
        tuple(_series(space, cost, name, of, predictors, seed) for (name, _), of in devices.items()),
    )


def _series(
    space: SearchSpace,
    cost: str,
    name: str,
    results: Sequence[SearchResult],
    predictors: Mapping[str, PredictorFile],
    seed: int,
) -> Series:
    table = find_table(space, results[0]) if cost == "latency" else None
    fronts = [_front(result) for result in results if result.front]
    cloud = _cloud(space, cost, results[0], table, predictors, seed)
    return Series(name, tuple(results), table, tuple(filter(None, fronts)), cloud)


def _front(result: SearchResult) -> tuple[Point, ...]:
    """The points of a front that can be shown, cheapest first."""
    points = [Point(point.arch, point.cost, point.score) for point in result.front]
    shown = [point for point in points if number(point.cost) is not None and number(point.score) is not None]
    return tuple(sorted(shown, key=lambda point: point.cost))


def _cloud(
    space: SearchSpace,
    cost: str,
    result: SearchResult,
    table: TableFile | None,
    predictors: Mapping[str, PredictorFile],
    seed: int,
) -> tuple[Point, ...]:
    """Random networks by the predictor and the cost of a result, where both are there."""
    price, resolutions = _price(space, cost, table)
    model = predictors.get(str(mapping(result.inputs).get("predictor_sha256")))
    if price is None or (model is None and result.objective != "macs"):
        return ()
    genes = np.unique(space.sample(np.random.default_rng(seed), CLOUD, resolutions), axis=0)
    scores = space.macs(genes) / 1e6 if model is None else model.predictor.predict(genes)
    each = zip(space.archs(genes), price(genes).tolist(), np.asarray(scores).tolist(), strict=True)
    return tuple(Point(arch, c, s) for arch, c, s in each if number(c) is not None and number(s) is not None)


def _price(space: SearchSpace, cost: str, table: TableFile | None) -> tuple[Cost | None, tuple[int, ...] | None]:
    """What gives a network's cost, and at which resolutions; None where that is not known."""
    if cost == "latency":
        return (table.table.cost, table.table.resolutions) if table else (None, None)
    return (cost_limit(space, cost, "100%").cost, None) if cost in UNITS else (None, None)


def find_table(space: SearchSpace, result: SearchResult) -> TableFile | None:
    """The latency table that a result's first limit is about, by its checksum."""
    wanted = first_limit(result).sha256
    for path in _paths("lut", request_of(result).get("luts"), space, TABLE):
        try:
            table = LatencyTable.load(path, space)
            if table.identity == wanted:
                return TableFile(path, table, artifacts.describe(path, TABLE))
        except (OfaDeployError, KeyError, TypeError, ValueError, OverflowError):
            continue  # a page about a result does not fail because of another table
    return None


def find_predictor(result: SearchResult, sha256: str) -> PredictorFile | None:
    """The predictor of a result, by its checksum."""
    space = get_space(result.space)
    for path in _paths("predictors", [request_of(result).get("predictor")], space, PREDICTOR):
        try:
            about = artifacts.describe(path, PREDICTOR)
            if about.get("sha256") == sha256:
                return PredictorFile(path, Predictor.load(path, space), about, _plot(path.with_suffix(".png")))
        except OfaDeployError:
            continue
    return None


def _paths(folder: str, named: Any, space: SearchSpace, kind: str) -> Iterator[Path]:
    """Data files of a kind and space: those that a result names, then the working folder's and the shipped."""
    listed = [Path(name) for name in _strings(named)]
    for path in [*listed, *artifacts.candidates(folder, "*.json")]:
        try:
            about = artifacts.describe(path, kind)
        except (OfaDeployError, ValueError):
            continue
        if about["space"] == space.name and isinstance(about.get("file"), str):
            yield path.with_name(Path(about["file"]).name)


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
