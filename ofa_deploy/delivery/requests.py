"""Searches as users ask for them: limits in text form, tables and predictors from files, and again from a result."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.accuracy.predictors import file_name as predictor_file
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.device.conditions import conditions
from ofa_deploy.errors import ArtifactError, MeasureError, OfaDeployError
from ofa_deploy.files import artifacts
from ofa_deploy.files.machine import this_machine
from ofa_deploy.latency import table_files as tables
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.limits import SLACK, Limit, cost_limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, load_result
from ofa_deploy.search.run import RISK, check_risk, find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

logger = logging.getLogger(__name__)

OBJECTIVES = ("accuracy", "macs")
COSTS = ("macs", "params", "size")
FEW = 4
SHORT = {"restarts": 4, "recombinations": 30}
NEAREST = 4
"""See `search_each`: of more searches than that, all but the first have those settings at most, and begin with so many
networks within their limits, and as many without."""
ELSEWHERE = ("settings", "stopping")
"""Attributes of a request that a result has as its own."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        space: name of the search space.
        latency: budgets, one for each table, or one for all; may be empty where there are other limits.
        luts: latency tables; none stands for this machine's.
        macs: limit as users type it, see `budget.parse_range`; likewise `params` and `size`.
        device: a friendly device name, for this machine's table.
        threads: likewise.
        batch: likewise.
        predictor: file; None finds the space's own.
        objective: one of `OBJECTIVES`.
        margin_percent: see `limits.latency_limit`.
        risk: see `run.search`.
        front: likewise.
        prove_seconds: likewise.
        settings: of the search.
        stopping: when each search ends.
        start: architectures to begin with as well.
    """

    space: str
    latency: tuple[str, ...] = ()
    luts: tuple[str, ...] = ()
    macs: str | None = None
    params: str | None = None
    size: str | None = None
    device: str = "cpu"
    threads: int = 1
    batch: int = 1
    predictor: str | None = None
    objective: str = "accuracy"
    margin_percent: float | None = None
    risk: float = RISK
    front: bool = False
    prove_seconds: float | None = None
    settings: SearchSettings = field(default_factory=SearchSettings)
    stopping: Stopping = field(default_factory=Stopping)
    start: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise OfaDeployError(f"unknown objective {self.objective!r}; choose one of {', '.join(OBJECTIVES)}")
        check_risk(self.risk)
        if not (self.latency or self.macs or self.params or self.size or self.front):
            raise OfaDeployError("a search needs a limit: --latency 30ms, --macs 300M, --params 5M or --size 10MB")

    def each(self) -> list[Request]:
        """A request of its own for every table and budget."""
        luts, budgets = self.luts or (None,), self.latency or (None,)
        number = max(len(luts), len(budgets))
        if len(luts) not in (1, number) or len(budgets) not in (1, number):
            raise OfaDeployError(f"{len(budgets)} latencies do not go with {len(luts)} tables; give one for each --lut")
        pairs = zip(luts * (number // len(luts)), budgets * (number // len(budgets)), strict=True)
        return [
            replace(self, luts=() if lut is None else (lut,), latency=() if b is None else (b,)) for lut, b in pairs
        ]


@dataclass(frozen=True)
class Prepared:
    """What a request needs, read from files.

    Attributes:
        space: of the search.
        limits: those of latencies first, in the order of `tables`.
        tables: latency tables.
        predictor: None where the objective needs none.
        inputs: to be recorded in the result.
    """

    space: SearchSpace
    limits: tuple[Limit, ...]
    tables: tuple[LatencyTable, ...]
    predictor: Predictor | None
    inputs: dict[str, Any]

    @property
    def problem(self) -> Problem:
        """What is searched."""
        return Problem(self.space, self.limits, self.predictor)


def search_files(request: Request) -> SearchResult:
    """Search with tables and a predictor from files.

    Where the working folder has no table of this machine, the reference table that ships is used: `report` says whose
    it is, and the result is marked.

    Args:
        request: what is asked for.

    Raises:
        OfaDeployError: a file is missing or unusable, the limits cannot be understood or met.
    """
    return _searched(prepare(request), request)


def _searched(ready: Prepared, request: Request) -> SearchResult:
    return find_network(
        ready.problem,
        request.settings,
        stopping=request.stopping,
        risk=request.risk,
        inputs=ready.inputs,
        front=request.front,
        prove_seconds=request.prove_seconds,
        start=ready.space.genes(list(map(Arch.parse, request.start))) if request.start else None,
    )


def prepare(request: Request) -> Prepared:
    """Read what a request needs; see `search_files`."""
    space = get_space(request.space)
    inputs: dict[str, Any] = {"request": {key: v for key, v in asdict(request).items() if key not in ELSEWHERE}}
    limits, named, own = _limits(space, request)
    inputs["table_of_this_machine"] = own
    model = None
    if request.objective == "accuracy":
        hint = f"run ofa-deploy fit-predictor --space {space.name}, or search with --objective macs"
        chosen = Path(request.predictor) if request.predictor else None
        model = Predictor.load(chosen or artifacts.find_artifact("predictors", predictor_file(space), hint), space)
        inputs["predictor_sha256"] = model.sha256
        if model.doubt:
            logger.warning(model.doubt)
    return Prepared(space, tuple(limits), tuple(named), model, inputs)


def search_each(request: Request) -> list[SearchResult]:
    """A search of its own for every table and budget of a request; see `search_files`.

    Where there are many, all but the first are short and begin with what those before them have found.
    """
    requests = request.each()
    found: list[SearchResult] = []
    with _each_line_once():
        for one, ready in zip(requests, checked(requests), strict=True):
            if found and len(requests) > FEW:
                start = _nearest(ready, [result.arch for result in found])
                short = {name: min(most, getattr(one.settings, name)) for name, most in SHORT.items()}
                one = replace(one, start=start, settings=replace(one.settings, **short))
                ready.inputs["request"]["start"] = start
            found.append(_searched(ready, one))
    return found


def checked(requests: Sequence[Request]) -> list[Prepared]:
    """What the requests need, once it is known of each that something is within its limits: before the first search.

    Raises:
        OfaDeployError: see `search_files`.
    """
    ready = [prepare(one) for one in requests]
    for one in ready:
        one.problem.check_feasible()
    return ready


@contextlib.contextmanager
def _each_line_once() -> Iterator[None]:
    """While the block lasts, what this module has logged already is not logged again."""
    lines: set[str] = set()

    def fresh(record: logging.LogRecord) -> bool:
        known = record.getMessage() in lines
        lines.add(record.getMessage())
        return not known

    logger.addFilter(fresh)
    try:
        yield
    finally:
        logger.removeFilter(fresh)


def _nearest(ready: Prepared, archs: Sequence[Arch]) -> tuple[str, ...]:
    """Those of some architectures that are closest to what a search wants: the best within its limits and without."""
    space = ready.space
    genes = space.genes(list(dict.fromkeys(archs)))
    scores, outside = ready.problem.score(genes), ready.problem.excess(genes)
    ranked = np.lexsort((-scores, outside))
    within = int((outside == 0).sum())
    chosen = [*ranked[:within][:NEAREST], *ranked[within:][:NEAREST]]
    return tuple(map(str, space.archs(genes[chosen])))


def again(path: Path) -> SearchResult:
    """Repeat the search of a result file; one that time has ended is repeated for as many evaluations.

    Raises:
        ArtifactError: table or predictor are not those of then, or the result rests on measurements.
    """
    before = load_result(path)
    if before.verified is not None or before.refined is not None:
        raise ArtifactError(
            f"{path} rests on what was measured meanwhile, which no search gives again; search with the "
            "options themselves"
        )
    try:
        asked = dict(before.inputs["request"])
        stopping = before.stopping.repeatable(before.stopped_by, before.evaluations)
        lists = {key: tuple(map(str, asked[key])) for key in ("latency", "luts", "start")}
        request = Request(**{**asked, **lists, "settings": before.settings, "stopping": stopping})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} does not say what was asked for; search again with the options themselves"
        ) from error
    ready = prepare(request)
    if ready.tables and not request.luts and before.limits[0].sha256 != ready.limits[0].sha256:
        then = prepare(replace(request, luts=_table_of(before, request)))
        ready = replace(then, inputs=then.inputs | {"request": ready.inputs["request"]})
    pairs = zip(before.limits, ready.limits, strict=True)
    changed = [limit.source for limit, now in pairs if limit.sha256 != now.sha256]
    changed += ["the predictor"] * (before.inputs.get("predictor_sha256") != ready.inputs.get("predictor_sha256"))
    if changed:
        raise ArtifactError(f"{' and '.join(changed)} changed since {path} was made, so its search cannot be repeated")
    return _searched(ready, request)


def _table_of(before: SearchResult, request: Request) -> tuple[str, ...]:
    """The table of a result, found by its checksum; of none of that, nothing."""
    space = get_space(request.space)
    for beside in artifacts.candidates("lut", f"{space.name}_*.json"):
        with contextlib.suppress(OfaDeployError):
            table = LatencyTable.load(beside.with_suffix(".csv"), space)
            if table.identity == before.limits[0].sha256:
                return (str(beside.with_suffix(".csv")),)
    return ()


def _limits(space: SearchSpace, request: Request) -> tuple[list[Limit], list[LatencyTable], bool | None]:
    """The limits of a request, its tables, and whether these are this machine's; None without a latency."""
    limits: list[Limit] = []
    found: list[LatencyTable] = []
    own: bool | None = None
    if request.latency or (request.front and not (request.macs or request.params or request.size)):
        found, own = _tables(space, request)
        budgets = request.latency or ("100%",)
        if len(budgets) not in (1, len(found)):
            raise OfaDeployError(
                f"{len(budgets)} latencies do not go with {len(found)} table{'s' * (len(found) > 1)}: give one for "
                "each --lut, or add --each for a search of its own for every latency"
            )
        for table, budget in zip(found, budgets * (len(found) // len(budgets)), strict=True):
            limits.append(latency_limit(table, budget, request.margin_percent))
            _remark(table, limits[-1], request)
    elif request.luts:
        raise OfaDeployError("--lut needs a --latency, or --front")
    texts = {name: getattr(request, name) for name in COSTS}
    limits += [cost_limit(space, name, text) for name, text in texts.items() if text is not None]
    return limits, found, own


def _remark(table: LatencyTable, limit: Limit, request: Request) -> None:
    """Tell what a user should know of a table before relying on it."""
    space = table.space
    if len(table.resolutions) < len(space.resolutions):
        logger.warning(
            f"that table has {len(table.resolutions)} of the {len(space.resolutions)} resolutions of "
            f"{space.name} ({', '.join(map(str, table.resolutions))}); the search stays with those"
        )
    if not table.error["networks"] and request.margin_percent is None:
        logger.warning("the error of this table is not known, so nothing is kept below the budget; see --margin")
    if table.doubt:
        logger.warning(table.doubt)
    slowest = extreme(space, table.cost, dearest=True)[1]
    without_effect = slowest < limit.allowed * (1 - SLACK) and not np.isfinite(limit.lower)
    if request.latency and np.isfinite(limit.upper) and without_effect:
        logger.warning(
            f"the slowest network of {space.name} takes {slowest:.4g} ms there, so this budget excludes none"
        )


def of_this_machine(table: LatencyTable) -> bool:
    """Whether a table was measured here, under whatever conditions."""
    about, here = table.conditions, this_machine()
    if any(about["machine"].get(key) != value for key, value in here.items()):
        return False
    try:
        return dict(about) == conditions(about["device"], about["threads"], batch=about["batch"])
    except MeasureError:  # nothing here serves that device
        return False


def _tables(space: SearchSpace, request: Request) -> tuple[list[LatencyTable], bool]:
    """The tables of a request, and whether all are of this machine."""
    if request.luts:
        named = [LatencyTable.load(Path(lut), space) for lut in request.luts]
        return named, all(map(of_this_machine, named))
    wanted = conditions(request.device, request.threads, batch=request.batch)
    table, own = tables.select(space, wanted)
    if not own:
        asked = f" for {request.threads} threads" * (request.threads != table.conditions["threads"])
        logger.warning(
            f"not this machine's table{asked}, but that of {table.label}; for your own, run: "
            f"{tables.build_command(space, wanted)}"
        )
    return [table], own
