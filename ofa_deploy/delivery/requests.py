"""What users ask a search for: limits in text form, tables and predictors in files; and what is read from these."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.accuracy.predictors import file_name as predictor_file
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.delivery.loop import SearchPlan
from ofa_deploy.device.conditions import conditions
from ofa_deploy.errors import MeasureError, OfaDeployError
from ofa_deploy.files import artifacts
from ofa_deploy.files.machine import this_machine
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import build_command, select
from ofa_deploy.search.exploration import RISK, check_risk
from ofa_deploy.search.limits import SLACK, Limit, cost_limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

logger = logging.getLogger(__name__)

OBJECTIVES = ("accuracy", "macs")
COSTS = ("macs", "params", "size")
"""What can be limited beside latency; attributes of a request."""
ELSEWHERE = ("settings", "stopping")
"""Attributes of a request that a result has as its own."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        space: name of the search space.
        latency: budgets, one for each table, or one for all; may be empty where there are other limits.
        luts: latency tables; none stands for this machine's.
        macs: limit on multiply-accumulates as users type it, such as `300M` or `200M..300M`; None for no limit.
        params: limit on learned numbers as users type it, such as `5M`; None for no limit.
        size: limit on the weights in float32 as users type it, such as `10MB`; None for no limit.
        device: that this machine's table is of, by name.
        threads: that this machine's table was measured with.
        batch: images that this machine's table was measured with at once.
        predictor: file; None finds the space's own.
        objective: one of `OBJECTIVES`.
        margin_percent: by this, predicted latencies are raised before they are compared with a budget; None takes the
            error that 95 % of the table's test networks stay under.
        risk: the best few networks are compared by prediction minus this many of its standard deviations.
        front: whether the whole front of the objective against the first limit's cost is searched.
        prove_seconds: time for a proof of the best prediction; None does without.
        settings: of each search.
        stopping: when each search ends.
        start: texts of architectures to begin with as well.

    Raises:
        OfaDeployError: the objective or the risk is none, or there is no limit.
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
        """A request of its own for every table and budget.

        Raises:
            OfaDeployError: there are several of both, and not as many of one as of the other.
        """
        luts, budgets = self.luts or (None,), self.latency or (None,)
        number = max(len(luts), len(budgets))
        if len(luts) not in (1, number) or len(budgets) not in (1, number):
            raise OfaDeployError(f"{len(budgets)} latencies do not go with {len(luts)} tables; give one for each --lut")
        pairs = zip(luts * (number // len(luts)), budgets * (number // len(budgets)), strict=True)
        return [
            replace(self, luts=() if lut is None else (lut,), latency=() if budget is None else (budget,))
            for lut, budget in pairs
        ]


@dataclass(frozen=True)
class Prepared:
    """What a request needs, read from files.

    Attributes:
        space: of the search.
        limits: those of latencies first, in the order of the tables.
        tables: of the devices whose latency is limited.
        predictor: of accuracy; None where the objective needs none.
        inputs: recorded in the result: what was asked for, and the checksums of files; JSON values.
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


def prepare(request: Request) -> Prepared:
    """Read the files of a request, and tell what a user should know of them.

    Where the working folder has no table of this machine, the reference table that ships is used, with a warning that
    says whose it is.

    Raises:
        OfaDeployError: a file is missing or unusable, or the limits cannot be understood.
    """
    space = get_space(request.space)
    inputs: dict[str, Any] = {"request": {key: v for key, v in asdict(request).items() if key not in ELSEWHERE}}
    tables, here = _tables(space, request)
    limits = [*_latency_limits(tables, request), *_cost_limits(space, request)]
    inputs["table_of_this_machine"] = here
    predictor = None
    if request.objective == "accuracy":
        hint = f"run ofa-deploy fit-predictor --space {space.name}, or search with --objective macs"
        file = request.predictor or artifacts.find_artifact("predictors", predictor_file(space), hint=hint)
        predictor = Predictor.load(Path(file), space)
        inputs["predictor_sha256"] = predictor.sha256
        if predictor.doubt:
            logger.warning(predictor.doubt)
    return Prepared(space, tuple(limits), tuple(tables), predictor, inputs)


def plan_of(request: Request, prepared: Prepared) -> SearchPlan:
    """How each search of a request runs."""
    return SearchPlan(request.settings, request.stopping, request.risk, prepared.inputs)


def _tables(space: SearchSpace, request: Request) -> tuple[list[LatencyTable], bool | None]:
    """The tables of a request, and whether all are of this machine; None where no latency is limited.

    Raises:
        OfaDeployError: a table is missing or unusable, or none is needed.
    """
    against_latency = request.front and not any(getattr(request, name) for name in COSTS)
    if not (request.latency or against_latency):
        if request.luts:
            raise OfaDeployError("--lut needs a --latency, or --front")
        return [], None
    if request.luts:
        tables = [LatencyTable.load(Path(lut), space) for lut in request.luts]
        return tables, all(map(of_this_machine, tables))
    here = conditions(request.device, request.threads, batch=request.batch)
    table, measured_here = select(space, here)
    if not measured_here:
        threads = f" for {request.threads} threads" * (request.threads != table.conditions["threads"])
        logger.warning(
            f"not this machine's table{threads}, but that of {table.label}; for your own, run: "
            f"{build_command(space, here)}"
        )
    return [table], measured_here


def _latency_limits(tables: Sequence[LatencyTable], request: Request) -> Iterator[Limit]:
    """A limit for each table.

    Raises:
        OfaDeployError: a budget cannot be understood, or there are not as many as tables.
    """
    budgets = request.latency or ("100%",)
    if tables and len(budgets) not in (1, len(tables)):
        raise OfaDeployError(
            f"{len(budgets)} latencies do not go with {len(tables)} table{'s' * (len(tables) > 1)}: give one for "
            "each --lut, or add --each for a search of its own for every latency"
        )
    for table, budget in zip(tables, budgets * (len(tables) // len(budgets)), strict=True):
        limit = latency_limit(table, budget, margin_percent=request.margin_percent)
        _remark(table, limit, request)
        yield limit


def _cost_limits(space: SearchSpace, request: Request) -> Iterator[Limit]:
    """The limits on other costs than latency."""
    for name in COSTS:
        if (text := getattr(request, name)) is not None:
            yield cost_limit(space, name, budget=text)


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
    measured, here = table.conditions, this_machine()
    if any(measured["machine"].get(key) != value for key, value in here.items()):
        return False
    try:
        return dict(measured) == conditions(measured["device"], measured["threads"], batch=measured["batch"])
    except MeasureError:  # nothing here serves that device
        return False
