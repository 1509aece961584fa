"""One search from its parts: table, budget, objective, predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ofa_deploy import artifacts
from ofa_deploy.accuracy.predictors import AccuracyPredictor
from ofa_deploy.accuracy.predictors import file_name as predictor_file
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.arch import Arch
from ofa_deploy.costs import Floats, Genes
from ofa_deploy.errors import ArtifactError, InfeasibleError, MeasureError, OfaDeployError
from ofa_deploy.families import get_space
from ofa_deploy.latency import table as tables
from ofa_deploy.latency.device.conditions import conditions
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.progress import Report
from ofa_deploy.search.budget import parse_latency
from ofa_deploy.search.evolve import SearchResult, Settings, evolve
from ofa_deploy.search.knapsack import extreme
from ofa_deploy.space import SearchSpace

OBJECTIVES = ("accuracy", "macs")


def search(
    table: LatencyTable, predictor: AccuracyPredictor | None, latency: str, settings: Settings,
    margin_percent: float | None = None, inputs: Mapping[str, Any] | None = None,
) -> SearchResult:  # fmt: skip
    """The best architecture whose latency, by the table, is within a budget.

    Args:
        table: of the device.
        predictor: of accuracy, which is maximised; without one, the multiply-accumulates are.
        latency: the budget as users type it, see `budget.parse_latency`.
        settings: of the evolution.
        margin_percent: predicted latencies are raised by this before they are compared with the budget; by default
            the error that 95 % of the table's test networks stay under.
        inputs: more to be recorded in the result.

    Raises:
        InfeasibleError: no network fits; the message names the fastest.
        OfaDeployError: the budget is no latency, or table and predictor are of different spaces.
    """
    space = table.space
    if predictor is not None and predictor.space != space:
        raise OfaDeployError(f"the table is of {space.name}, the predictor of {predictor.space.name}; choose one space")
    margin = table.error["p95_percent"] if margin_percent is None else margin_percent
    if not 0 <= margin < 100:
        source = "the table's own error" if margin_percent is None else "--margin"
        raise OfaDeployError(
            f"{source} must be between 0 and 100 percent, not {margin}; build the table anew, or set --margin"
        )
    raised = 1 + margin / 100
    cost = replace(table.cost, fixed=table.cost.fixed * raised, blocks=table.cost.blocks * raised)
    (_, fastest_ms), (_, slowest_ms) = extreme(space, cost), extreme(space, cost, dearest=True)
    if fastest_ms <= 0:
        raise MeasureError(f"the table predicts {fastest_ms:.4g} ms for the fastest network; build it anew")
    budget = parse_latency(latency, fastest_ms, slowest_ms)

    def score(genes: Genes) -> Floats:
        return space.macs(genes) / 1e6 if predictor is None else predictor.mean(genes)

    with threadpool_limits(1, "blas"):  # the matrices are small: more threads only wait for each other
        try:
            genes, history, evaluations = evolve(space, score, cost, budget, settings)
        except InfeasibleError as error:
            raise InfeasibleError(f"{error} ({margin:.2g} % above its prediction, see --margin)") from error
    value, std = float(score(genes)[0]), None
    if predictor is not None:
        deviation = float(predictor.predict(genes)[1][0])
        std = round(deviation, 4) if np.isfinite(deviation) else None
    arch = space.archs(genes)[0]
    predicted_ms = float(table.latency_ms(genes)[0])
    return SearchResult(
        space.name, arch, "macs" if predictor is None else "accuracy", round(value, 4), std, round(predicted_ms, 5),
        round(budget, 5), margin, int(space.macs(genes)[0]), int(space.params(genes)[0]), evaluations,
        tuple((round(s, 4), round(ms / raised, 5)) for s, ms in history), settings,
        {"table": table.label, "table_sha256": table.sha256, **(inputs or {})},
        message=f"{predicted_ms:.4g} ms predicted, {budget:.4g} ms allowed",
    )  # fmt: skip


def search_files(
    space: SearchSpace, latency: str, device: str, threads: int, lut: Path | None, predictor: Path | None,
    objective: str, settings: Settings, margin_percent: float | None, report: Report,
) -> SearchResult:  # fmt: skip
    """Search with a table and a predictor from files.

    Where the working folder has no table of this machine, the reference table that ships is used: `report` says whose
    it is, and the result is marked.

    Args:
        space: the search space.
        latency: the budget as users type it.
        device: a friendly device name.
        threads: of the runtime.
        lut: table; None finds this machine's.
        predictor: accuracy predictor; None finds the space's own.
        objective: one of `OBJECTIVES`.
        settings: of the evolution.
        margin_percent: see `search`.
        report: receives what the user should know.
    """
    if objective not in OBJECTIVES:
        raise OfaDeployError(f"unknown objective {objective!r}; choose one of {', '.join(OBJECTIVES)}")
    wanted = conditions(device, threads)
    if lut is not None:
        table = LatencyTable.load(lut, space)
        own = dict(table.conditions) == wanted
    else:
        table, own = tables.select(space, wanted)
    if not own and lut is None:
        report(
            f"note: not this machine's table, but that of {table.label}; for your own, run: "
            f"{tables.build_command(space, wanted)}"
        )
    if not table.error["networks"] and margin_percent is None:
        report("note: the error of this table is not known, so nothing is kept below the budget; see --margin")
    inputs: dict[str, Any] = {"table_of_this_machine": own}
    model = None
    if objective == "accuracy":
        hint = f"run ofa-deploy fit-predictor --space {space.name}, or search with --objective macs"
        model = Predictor.load(predictor or artifacts.find("predictors", predictor_file(space), hint), space)
        inputs["predictor_sha256"] = model.sha256
    return search(table, model, latency, settings, margin_percent, inputs)


def load_result(path: Path) -> SearchResult:
    """Read a search result that `SearchResult.to_json` wrote.

    Raises:
        ArtifactError: it is missing or not a search result.
    """
    about = artifacts.loads(artifacts.read(path), path)
    if about.pop("kind", None) != "search-result":
        raise ArtifactError(
            f"{path} is not a search result; make one with: ofa-deploy search --latency 30ms --out {path}"
        )
    if about.pop("schema", None) not in range(1, artifacts.SCHEMA + 1):
        raise ArtifactError(f"{path} was written by a newer release; upgrade ofa-deploy")
    about.pop("made_with", None)
    try:
        arch = get_space(about["space"]).check(Arch.parse(about["arch"]))
        history = tuple((float(s), float(ms)) for s, ms in about["history"])
        values = about | {"arch": arch, "settings": Settings(**about["settings"]), "history": history}
        result = SearchResult(**values)
        if not np.isfinite([result.score, result.latency_ms, result.budget_ms]).all():
            raise ValueError("a figure is not finite")
        result.predicted()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}; search again") from error
    return result
