"""The main job: from a trained supernet to the best model for this machine within a budget, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy import artifacts
from ofa_deploy import data as data_sets
from ofa_deploy.accuracy.predictors import file_name as predictor_file
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.arch import Arch
from ofa_deploy.errors import ArtifactError
from ofa_deploy.export.card import write_card
from ofa_deploy.export.check import latency, top1
from ofa_deploy.export.run import export
from ofa_deploy.latency import table as tables
from ofa_deploy.latency.build import Job, build
from ofa_deploy.latency.device.conditions import conditions
from ofa_deploy.latency.device.rounds import Plan
from ofa_deploy.latency.device.timing import Array, Session
from ofa_deploy.latency.runtimes import RUNTIMES
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.progress import Report
from ofa_deploy.search.budget import parse_latency
from ofa_deploy.search.evolve import SearchResult, Settings
from ofa_deploy.search.run import search
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint

YARDSTICKS = 4
"""Networks of the table that are timed with the delivered models, to tell the state of the machine."""
SLOWER_PERCENT = 5.0
PASSES = 4
"""See `_measured`."""


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
        measured = self.card["measured"]
        return {
            "budget": self.budget, "budget_ms": self.result.budget_ms, "arch": str(self.result.arch),
            "predicted_ms": self.result.latency_ms, "measured_ms": measured["latency"]["latency_ms"],
            "within_budget": measured["latency"]["latency_ms"] <= self.result.budget_ms,
            "machine_slower_percent": measured["latency"]["machine_slower_percent"],
            "predicted_top1_percent": self.result.score,
            "heldout_top1_percent": measured["heldout"]["top1_percent"],
            "test_top1_percent": measured["test"]["top1_percent"] if measured["test"] else None,
            "interval95_points": max(m["interval95_points"] for m in (measured["heldout"], measured["test"]) if m),
            "macs": self.result.macs, "params": self.result.params, "bytes": self.card["bytes"], "file": str(self.file),
        }  # fmt: skip


def deploy(
    space: SearchSpace, data: str | None, budgets: Sequence[str], device: str, weights: Path, out: Path,
    settings: Settings, plan: Plan, margin_percent: float | None, report: Report,
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
        out: folder for the models and their cards.
        settings: of the search.
        plan: of the table, should it be built.
        margin_percent: see `search.run.search`.
        report: receives lines of progress.

    Raises:
        OfaDeployError: something is missing or unusable, or a budget cannot be met.
    """
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
    results = [search(table, predictor, budget, settings, margin_percent, inputs) for budget in budgets]

    runtime = RUNTIMES[table.conditions["runtime"]]
    cards, sessions = [], {}
    for budget, result in zip(budgets, results, strict=True):
        file = out / f"{space.name}_{budget.strip().replace('%', 'pct')}{runtime.suffix}"
        report(f"{budget}: {result.arch}, exporting {file}")
        card = export(net, result.arch, images, file, origin, result.predicted())
        content, size = artifacts.read(file), result.arch.resolution
        image = np.random.default_rng(0).standard_normal((1, space.in_channels, size, size)).astype(np.float32)
        sessions[budget] = runtime.start(content, plan.threads), runtime.native(image)
        cards.append((file, card))
    report("measuring the exported files")
    latencies, slower = _measured(sessions, table, plan.threads, report)
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
    return delivered


def _measured(
    sessions: Mapping[str, tuple[Session, Array]], table: LatencyTable, threads: int, report: Report
) -> tuple[dict[str, Any], float]:
    """Latencies of the delivered models, and how much slower the machine was than when its table was measured, in %.

    Some of the table's own networks are timed in the same rounds. Where they take `SLOWER_PERCENT` longer than then,
    everything is measured again, a few times; the pass in which the machine was fastest counts.
    """
    known = sorted(table.networks, key=lambda network: float(network["measured_ms"]))
    yardsticks = {n["arch"]: float(n["measured_ms"]) for n in known[:: max(1, len(known) // YARDSTICKS)][:YARDSTICKS]}
    job = Job(table.space, table.resolutions, Plan(threads=threads))
    timed = dict(sessions)
    for arch in yardsticks:
        timed[arch] = job.started(table.space.walk(Arch.parse(arch)), table.conditions["runtime"])
    passes: list[tuple[float, dict[str, Any]]] = []
    for number in range(PASSES):
        found = latency(timed, threads)
        ratios = [found[arch]["latency_ms"] / then for arch, then in yardsticks.items()]
        slower = round(100 * (float(np.median(ratios)) - 1), 1) if ratios else 0.0
        passes.append((slower, found))
        if slower < SLOWER_PERCENT:
            break
        report(
            f"the machine runs {slower:.0f} % slower than when its table was measured"
            + ("; measuring again" if number + 1 < PASSES else "")
        )
    slower, found = min(passes, key=lambda one: one[0])
    return found, slower


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
