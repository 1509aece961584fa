"""The main job: from a trained supernet to the best model for this machine within a budget, measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.accuracy.predictors import file_name as predictor_file
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.data.dataset import Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import get_device
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.device.timing import Run
from ofa_deploy.errors import ArtifactError
from ofa_deploy.export.card import write_card
from ofa_deploy.export.checks import top1
from ofa_deploy.export.formats import FORMATS, format_for, output_files
from ofa_deploy.export.run import export_model
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.files.json_text import Json
from ofa_deploy.graphs.formats import format_of
from ofa_deploy.latency import table_files as tables
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.comparison import beside_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.budget import parse_latency
from ofa_deploy.search.limits import Limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, write_results
from ofa_deploy.search.result_parts import Candidate, Verified
from ofa_deploy.search.run import find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

logger = logging.getLogger(__name__)

ROUNDS = 3
"""Searches for a budget at most."""
GUARD_PERCENT = 0.5
"""Added to the margin of a search that is repeated."""


@dataclass(frozen=True)
class Deployed:
    """One model that was delivered: what was predicted, and what was measured of its file.

    Attributes:
        budget: as the user typed it.
        file: the model.
        result: of the last search.
        card: of the exported model, with what was measured.
        run: the model, takes (1, channels, resolution, resolution).
        searches: for this budget.
    """

    budget: str
    file: Path
    result: SearchResult
    card: Json
    run: Run
    searches: int

    @property
    def latency_ms(self) -> float:
        """As measured."""
        return float(self.card["measured"]["latency"]["latency_ms"])

    @property
    def budget_ms(self) -> float:
        """The largest latency that is allowed."""
        upper = self.result.limits[0].upper
        assert upper is not None
        return upper

    @property
    def within_budget(self) -> bool:
        """Whether the file kept its budget when it was measured."""
        return self.latency_ms <= self.budget_ms

    def row(self) -> dict[str, Any]:
        """The figures side by side: latencies in ms, accuracies in percent."""
        measured, limit = self.card["measured"], self.result.limits[0]
        return {
            "budget": self.budget,
            "budget_ms": self.budget_ms,
            "arch": str(self.result.arch),
            "predicted_ms": limit.predicted,
            "measured_ms": self.latency_ms,
            "within_budget": self.within_budget,
            "margin_percent": limit.margin_percent,
            "searches": self.searches,
            "machine_slower_percent": measured["latency"]["machine_slower_percent"],
            "predicted_top1_percent": self.result.score,
            "heldout_top1_percent": measured["heldout"]["top1_percent"],
            "test_top1_percent": measured["test"]["top1_percent"] if measured["test"] else None,
            "heldout_interval95_points": measured["heldout"]["interval95_points"],
            "test_interval95_points": measured["test"]["interval95_points"] if measured["test"] else None,
            "macs": self.result.macs,
            "params": self.result.params,
            "bytes": self.card["bytes"],
            "file": str(self.file),
        }

    def measured(self) -> SearchResult:
        """The result with what was measured of its file in `verified`."""
        latency, heldout = self.card["measured"]["latency"], self.card["measured"]["heldout"]
        candidate = Candidate(
            arch=self.result.arch,
            predicted_ms=self.result.limits[0].predicted,
            measured_ms=self.latency_ms,
            spread_percent=latency["spread_percent"],
            predicted_top1_percent=self.result.score,
            measured_top1_percent=heldout["top1_percent"],
            interval95_points=heldout["interval95_points"],
        )
        verified = Verified(
            budget_ms=self.budget_ms,
            measured_ms=self.latency_ms,
            within_budget=self.within_budget,
            machine_slower_percent=latency["machine_slower_percent"],
            rounds=self.searches,
            conditions=latency["conditions"],
            candidates=(candidate,),
        )
        return replace(self.result, verified=verified)


def deploy_models(
    space: SearchSpace,
    data: str | None,
    budgets: Sequence[str],
    device: str,
    weights: Path | str,
    out: Path | str,
    settings: SearchSettings | None = None,
    plan: MeasurePlan | None = None,
    margin_percent: float | None = None,
) -> list[Deployed]:
    """Deliver the most accurate model of this machine for each budget, and measure the delivered files.

    A latency table of this machine is built into the working folder's `lut/` unless one is there. Predicted
    accuracies are about the held-out images; the test images are touched only here. Where a file takes longer than its
    budget, the search is repeated with as much of a margin, and the file is replaced.

    Args:
        space: of the supernet.
        data: the images, as `data.load` takes them.
        budgets: latencies as users type them.
        device: its name, see `device.devices.DEVICES`.
        weights: file of the supernet.
        out: folder for the models, their cards and `results_file`.
        settings: of the search; None takes `SearchSettings()`.
        plan: of the table, should it be built; None takes `MeasurePlan()`.
        margin_percent: see `search.limits.latency_limit`.

    Raises:
        OfaDeployError: something is missing or unusable, or a budget cannot be met.
    """
    target = get_device(device)
    format_ = format_for(target)
    target.check()
    settings, plan, weights, out = settings or SearchSettings(), plan or MeasurePlan(), Path(weights), Path(out)
    for budget in budgets:
        parse_latency(budget, 1.0, 2.0)  # a mistyped one is refused before anything is measured
    found = artifacts.find_artifact(
        "predictors", predictor_file(space), "run ofa-deploy sample and ofa-deploy fit-predictor"
    )
    predictor = Predictor.load(found, space)
    if predictor.doubt:
        logger.warning(predictor.doubt)
    images = load_data(data, space)
    net = checkpoint.load_supernet(weights, space)
    origin = checkpoint.provenance(weights)
    if predictor.weights_sha256 not in (None, origin["sha256"]):
        raise ArtifactError(
            f"{found} was fitted on subnetworks of other weights than {weights}; for these, run: "
            f"ofa-deploy sample --space {space.name} and ofa-deploy fit-predictor --space {space.name}"
        )
    begin, suffix = _stem(space, device), FORMATS[format_].suffix
    files = {budget: out / f"{begin}_{budget.strip().replace('%', 'pct')}{suffix}" for budget in budgets}
    for file in files.values():
        output_files(format_, file, space=space.name)
    table = own_table(space, device, plan)
    if table.doubt:
        logger.warning(table.doubt)
    bench = _Bench(space, table, net, images, origin, predictor, settings, plan.threads, files)
    todo = {budget: latency_limit(table, budget, margin_percent) for budget in budgets}
    delivered: dict[str, Deployed] = {}
    for number in range(1, ROUNDS + 1):
        made = bench.deliver(todo, number)
        delivered |= made
        if number == ROUNDS or not (todo := bench.tighter(made, todo)):
            break
    logger.info("measuring their accuracy")
    ordered = [bench.with_accuracy(delivered[budget]) for budget in budgets]
    write_results([one.measured() for one in ordered], results_file(space, device, out))
    return ordered


@dataclass(frozen=True)
class _Bench:
    """What searches, exports and measures."""

    space: SearchSpace
    table: LatencyTable
    net: Supernet
    images: Dataset
    origin: Json
    predictor: Predictor
    settings: SearchSettings
    threads: int
    files: Mapping[str, Path]

    def deliver(self, limits: Mapping[str, Limit], number: int) -> dict[str, Deployed]:
        """The best model within each limit, by budget: exported, its latency measured; `number` counts searches."""
        device = get_device(self.table.conditions["device"])
        format_, file_format = format_for(device), format_of(device)
        inputs = {"table_of_this_machine": True, "predictor_sha256": self.predictor.sha256}
        results = {
            budget: find_network(Problem(self.space, [limit], self.predictor), self.settings, inputs=inputs)
            for budget, limit in limits.items()
        }
        cards, sessions = {}, {}
        for budget, result in results.items():
            file, size = self.files[budget], result.arch.resolution
            logger.info(f"{budget}: {result.arch}, exporting {file}")
            card = export_model(
                self.net,
                result.arch,
                data=self.images,
                out=file,
                origin=self.origin,
                predicted=result.predicted(),
                format_=format_,
                device=device.name,
            )
            image = np.random.default_rng(0).standard_normal((1, self.space.in_channels, size, size))
            sessions[budget] = (
                device.session(atomic.read(file), self.threads),
                file_format.native(image.astype(np.float32)),
            )
            cards[budget] = file, card
        logger.info("measuring the exported files")
        latencies, slower = beside_table(sessions, self.table, self.threads)
        found = {}
        for budget, (file, card) in cards.items():
            about = {"machine_slower_percent": slower, "conditions": dict(self.table.conditions)}
            card["measured"] = {"latency": latencies[budget] | about}
            run = file_format.taking_nchw(sessions[budget][0])
            found[budget] = Deployed(budget, file, results[budget], card, run, number)
        return found

    def with_accuracy(self, one: Deployed) -> Deployed:
        """A delivered model, its accuracy measured and its card written."""
        images, size = self.images, one.result.arch.resolution
        one.card["measured"] |= {
            "heldout": top1(one.run, images, images.heldout, size),
            "test": top1(one.run, images, images.test, size) if images.test is not None else None,
        }
        write_card(one.file, one.card)
        return one

    def tighter(self, delivered: Mapping[str, Deployed], limits: Mapping[str, Limit]) -> dict[str, Limit]:
        """Limits for the models that are over their budget: with a margin by which they would have been too slow."""
        out = {}
        for budget, one in delivered.items():
            before, predicted = limits[budget], one.result.limits[0].predicted
            off = 100 * (one.latency_ms / predicted - 1) + GUARD_PERCENT
            limit = replace(before, margin_percent=max(off, before.margin_percent + GUARD_PERCENT))
            if one.latency_ms > limit.upper and limit.excess(extreme(self.space, limit.cost)[0])[0] == 0:
                logger.info(
                    f"{budget}: {one.latency_ms:.4g} ms measured, {limit.upper:.4g} ms allowed; searching again with a "
                    f"margin of {limit.margin_percent:.2g} %"
                )
                out[budget] = limit
        return out


def results_file(space: SearchSpace, device: str, out: Path) -> Path:
    """Where `deploy` writes the results of its searches and what was measured."""
    return out / f"{_stem(space, device)}_results.json"


def _stem(space: SearchSpace, device: str) -> str:
    """What names of delivered files begin with, so that those for several devices lie side by side in one folder."""
    return space.name if device == "cpu" else f"{space.name}_{device}"


def own_table(space: SearchSpace, device: str, plan: MeasurePlan) -> LatencyTable:
    """This machine's table from the working folder, built if it is not there."""
    measured = conditions(device, plan.threads)
    path = Path("lut") / tables.file_name(space, measured)
    if path.with_suffix(".json").exists() and not path.with_suffix(".partial").exists():
        table = LatencyTable.load(path, space)
        if dict(table.conditions) == measured and table.resolutions == space.resolutions:
            logger.info(f"using {path}: {table.error_in_words}")
            return table
    logger.info(f"building {path}")
    table = build_table(TableJob(space, space.resolutions, plan), device, path)
    logger.info(f"built {path}: {table.error_in_words}")
    return LatencyTable.load(path, space)
