"""The main job: from a trained supernet to the best model for this machine within a budget, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy import artifacts
from ofa_deploy import data as data_sets
from ofa_deploy.accuracy.predictors import file_name as predictor_file
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.export.card import write_card
from ofa_deploy.export.check import top1
from ofa_deploy.export.formats import DELIVERED
from ofa_deploy.export.run import export
from ofa_deploy.latency import table as tables
from ofa_deploy.latency.build import Job, build
from ofa_deploy.latency.device.conditions import conditions
from ofa_deploy.latency.device.rounds import Plan
from ofa_deploy.latency.runtimes import RUNTIMES
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.whole import beside_table
from ofa_deploy.progress import Report
from ofa_deploy.search.budget import parse_latency
from ofa_deploy.search.evolve import Settings
from ofa_deploy.search.limits import latency_limit
from ofa_deploy.search.result import SearchResult, write
from ofa_deploy.search.run import search
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint


@dataclass(frozen=True)
class Deployed:
    """One model that was delivered: what was predicted, and what was measured of its file.

    Attributes:
        budget: as the user typed it.
        file: the model.
        result: of the search.
        card: of the exported model, with what was measured.
    """

    budget: str
    file: Path
    result: SearchResult
    card: artifacts.Json

    def row(self) -> dict[str, Any]:
        """The figures side by side: latencies in ms, accuracies in percent."""
        measured, limit = self.card["measured"], self.result.limits[0]
        return {
            "budget": self.budget, "budget_ms": limit["upper"], "arch": str(self.result.arch),
            "predicted_ms": limit["predicted"], "measured_ms": measured["latency"]["latency_ms"],
            "within_budget": measured["latency"]["latency_ms"] <= limit["upper"],
            "margin_percent": limit["margin_percent"],
            "machine_slower_percent": measured["latency"]["machine_slower_percent"],
            "predicted_top1_percent": self.result.score,
            "heldout_top1_percent": measured["heldout"]["top1_percent"],
            "test_top1_percent": measured["test"]["top1_percent"] if measured["test"] else None,
            "interval95_points": max(m["interval95_points"] for m in (measured["heldout"], measured["test"]) if m),
            "macs": self.result.macs, "params": self.result.params, "bytes": self.card["bytes"], "file": str(self.file),
        }  # fmt: skip

    def measured(self) -> SearchResult:
        """The result with what was measured of its file in `verified`, as `search.verify` has it."""
        row, latency, heldout = self.row(), self.card["measured"]["latency"], self.card["measured"]["heldout"]
        candidate = {
            "arch": row["arch"], "predicted_ms": row["predicted_ms"], "measured_ms": row["measured_ms"],
            "spread_percent": latency["spread_percent"], "predicted_top1_percent": row["predicted_top1_percent"],
            "measured_top1_percent": row["heldout_top1_percent"], "interval95_points": heldout["interval95_points"],
        }  # fmt: skip
        about = {key: row[key] for key in ("budget_ms", "measured_ms", "within_budget", "machine_slower_percent")}
        about |= {"rounds": 1, "conditions": latency["conditions"], "candidates": [candidate]}
        return replace(self.result, verified=about)


def deploy(
    space: SearchSpace, data: str | None, budgets: Sequence[str], device: str, weights: Path | str, out: Path | str,
    settings: Settings | None = None, plan: Plan | None = None, margin_percent: float | None = None,
    report: Report = lambda line: None,
) -> list[Deployed]:  # fmt: skip
    """Deliver the most accurate model of this machine for each budget, and measure the delivered files.

    A latency table of this machine is built into the working folder's `lut/` unless one is there. Predicted
    accuracies are about the held-out images; the test images are touched only here.

    Args:
        space: of the supernet.
        data: the images, as `data.load` takes them.
        budgets: latencies as users type them.
        device: a friendly device name, see `latency.device.conditions.DEVICES`.
        weights: file of the supernet.
        out: folder for the models, their cards and `results_file`.
        settings: of the search; None takes `Settings()`.
        plan: of the table, should it be built; None takes `Plan()`.
        margin_percent: see `search.limits.latency_limit`.
        report: receives lines of progress.

    Raises:
        OfaDeployError: something is missing or unusable, or a budget cannot be met.
    """
    if device not in DELIVERED:
        raise MeasureError(f"deploy writes and measures models for {', '.join(DELIVERED)}, not for {device}")
    settings, plan, weights, out = settings or Settings(), plan or Plan(), Path(weights), Path(out)
    for budget in budgets:
        parse_latency(budget, 1.0, 2.0)  # a mistyped one is refused before anything is measured
    found = artifacts.find("predictors", predictor_file(space), "run ofa-deploy sample and ofa-deploy fit-predictor")
    predictor = Predictor.load(found, space)
    images = data_sets.load(data, space)
    net = checkpoint.load(weights, space)
    origin = checkpoint.provenance(weights)
    if predictor.weights_sha256 not in (None, origin["sha256"]):
        raise ArtifactError(
            f"{found} was fitted on subnetworks of other weights than {weights}; for these, run: "
            f"ofa-deploy sample --space {space.name} and ofa-deploy fit-predictor --space {space.name}"
        )
    table = own_table(space, device, plan, report)
    inputs = {"table_of_this_machine": True, "predictor_sha256": predictor.sha256}
    limits = [latency_limit(table, budget, margin_percent) for budget in budgets]
    results = [search(space, predictor, [limit], settings, report, inputs=inputs) for limit in limits]

    runtime = RUNTIMES[table.conditions["runtime"]]
    cards, sessions = [], {}
    for budget, result in zip(budgets, results, strict=True):
        file = out / f"{_stem(space, device)}_{budget.strip().replace('%', 'pct')}{runtime.suffix}"
        report(f"{budget}: {result.arch}, exporting {file}")
        card = export(net, result.arch, images, file, origin, result.predicted(), DELIVERED[device])
        content, size = artifacts.read(file), result.arch.resolution
        image = np.random.default_rng(0).standard_normal((1, space.in_channels, size, size)).astype(np.float32)
        sessions[budget] = runtime.start(content, plan.threads), runtime.native(image)
        cards.append((file, card))
    report("measuring the exported files")
    latencies, slower = beside_table(sessions, table, plan.threads, report)
    delivered = []
    for budget, result, (file, card) in zip(budgets, results, cards, strict=True):
        session, size = runtime.taking_nchw(sessions[budget][0]), result.arch.resolution
        card["measured"] = {
            "latency": latencies[budget] | {"machine_slower_percent": slower, "conditions": dict(table.conditions)},
            "heldout": top1(session, images, images.heldout, size),
            "test": top1(session, images, images.test, size) if images.test is not None else None,
        }
        write_card(file, card)
        delivered.append(Deployed(budget, file, result, card))
    write([one.measured() for one in delivered], results_file(space, device, out))
    return delivered


def results_file(space: SearchSpace, device: str, out: Path) -> Path:
    """Where `deploy` writes the results of its searches and what was measured."""
    return out / f"{_stem(space, device)}_results.json"


def _stem(space: SearchSpace, device: str) -> str:
    """What names of delivered files begin with, so that those for several devices lie side by side in one folder."""
    return space.name if device == "cpu" else f"{space.name}_{device}"


def own_table(space: SearchSpace, device: str, plan: Plan, report: Report) -> LatencyTable:
    """This machine's table from the working folder, built if it is not there."""
    measured = conditions(device, plan.threads)
    path = Path("lut") / tables.file_name(space, measured)
    if path.with_suffix(".json").exists() and not path.with_suffix(".partial").exists():
        table = LatencyTable.load(path, space)
        if dict(table.conditions) == measured and table.resolutions == space.resolutions:
            report(f"using {path}: {table.error_in_words}")
            return table
    report(f"building {path}")
    table = build(Job(space, space.resolutions, plan), device, path, report)
    report(f"built {path}: {table.error_in_words}")
    return LatencyTable.load(path, space)
