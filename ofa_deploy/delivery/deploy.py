"""The main job: from a trained supernet to the best model for this machine within a budget, measured.

table of this machine ──┐
predictor ──────────────┼──> search ──> export ──> time the files ──> too slow? a margin, and search again
supernet, images ───────┘
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ofa_deploy.accuracy.predictors import file_name as predictor_file
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.data.dataset import Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.delivery.deploy_job import DeployJob
from ofa_deploy.delivery.deployed import Deployed
from ofa_deploy.delivery.loop import SearchPlan, search_again
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.timing import Array, Session
from ofa_deploy.errors import ArtifactError
from ofa_deploy.export.card import write_card
from ofa_deploy.export.checks import top1
from ofa_deploy.export.formats import output_files
from ofa_deploy.export.run import export_model
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.files.json_text import Json
from ofa_deploy.graphs.formats import format_of
from ofa_deploy.latency import table_files as tables
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.comparison import beside_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.limits import Limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, write_results
from ofa_deploy.search.run import find_network
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

logger = logging.getLogger(__name__)

ROUNDS = 3
"""Searches for a budget at most."""
GUARD_PERCENT = 0.5
"""Added to the margin of a search that is repeated."""


def deploy_models(job: DeployJob) -> list[Deployed]:
    """Deliver the most accurate model of this machine for each budget, and measure the delivered files.

    A latency table of this machine is built into the working folder's `lut/` unless one is there. Predicted
    accuracies are about the held-out images; the test images are touched only here. Where a file takes longer than its
    budget, the search is repeated with as much of a margin, and the file is replaced.

    Args:
        job: what is to be delivered.

    Returns:
        a model for each budget, in their order.

    Raises:
        OfaDeployError: something is missing or unusable, or a budget cannot be met.
    """
    job.target.check()
    sources, predictor = _read(job)
    table = own_table(job)
    if table.doubt:
        logger.warning(table.doubt)
    loop = _Deployment(job, sources, predictor, table)
    search_again(loop, ROUNDS)
    return loop.finish()


@dataclass(frozen=True)
class _Sources:
    """What models are made of.

    Attributes:
        net: the supernet.
        images: that it was trained on.
        origin: of its weights, for the cards.
    """

    net: Supernet
    images: Dataset
    origin: Json


def _read(job: DeployJob) -> tuple[_Sources, Predictor]:
    """What models are made of, and the predictor of their accuracy.

    Raises:
        ArtifactError: a file is missing or unusable, a model cannot be written, or the predictor is of other weights.
    """
    space = job.space
    file = artifacts.find_artifact(
        "predictors", predictor_file(space), hint="run ofa-deploy sample and ofa-deploy fit-predictor"
    )
    predictor = Predictor.load(file, space)
    if predictor.doubt:
        logger.warning(predictor.doubt)
    images = load_data(job.data, space)
    net, origin = checkpoint.load_supernet(job.weights, space), checkpoint.provenance(job.weights)
    if predictor.weights_sha256 not in (None, origin["sha256"]):
        raise ArtifactError(
            f"{file} was fitted on subnetworks of other weights than {job.weights}; for these, run: "
            f"ofa-deploy sample --space {space.name} and ofa-deploy fit-predictor --space {space.name}"
        )
    for file in job.files.values():
        output_files(job.format_name, file, space=space.name)
    return _Sources(net, images, origin), predictor


class _Deployment:
    """The loop: candidates are the best networks of several budgets, which are corrected by a margin.

    Args:
        job: what is to be delivered.
        sources: what models are made of.
        predictor: of accuracy.
        table: of this machine.
    """

    def __init__(self, job: DeployJob, sources: _Sources, predictor: Predictor, table: LatencyTable) -> None:
        self._job, self._sources, self._predictor, self._table = job, sources, predictor, table
        inputs = {"table_of_this_machine": True, "predictor_sha256": predictor.sha256}
        self._plan = SearchPlan(job.settings, inputs=inputs)
        self._limits = {
            budget: latency_limit(table, budget, margin_percent=job.margin_percent) for budget in job.budgets
        }
        self._delivered: dict[str, Deployed] = {}

    def search(self) -> dict[str, SearchResult]:
        """The best network within each limit, by budget."""
        return {budget: self._best(limit) for budget, limit in self._limits.items()}

    def _best(self, limit: Limit) -> SearchResult:
        plan, problem = self._plan, Problem(self._job.space, [limit], self._predictor)
        return find_network(problem, plan.settings, stopping=plan.stopping, risk=plan.risk, inputs=plan.inputs)

    def measure(self, candidates: Mapping[str, SearchResult], number: int) -> None:
        """Export the networks, and time the files beside networks of the table."""
        threads, to_nchw = self._job.plan.threads, format_of(self._job.target).taking_nchw
        cards = {budget: self._exported(budget, result) for budget, result in candidates.items()}
        sessions = {budget: self._session(budget, result) for budget, result in candidates.items()}
        logger.info("measuring the exported files")
        latencies, slower_percent = beside_table(sessions, self._table, threads=threads)
        measured = {"machine_slower_percent": slower_percent, "conditions": dict(self._table.conditions)}
        for budget, result in candidates.items():
            cards[budget]["measured"] = {"latency": latencies[budget] | measured}
            run, file = to_nchw(sessions[budget][0]), self._job.files[budget]
            self._delivered[budget] = Deployed(budget, file, result, cards[budget], run, number)

    def correct(self, candidates: Mapping[str, SearchResult], number: int) -> bool:
        """Keep a margin where a file is over its budget; these budgets are searched again."""
        if number == ROUNDS:
            return False
        self._limits = {
            budget: tighter
            for budget in candidates
            if (tighter := self._tighter(self._delivered[budget], self._limits[budget]))
        }
        return bool(self._limits)

    def finish(self) -> list[Deployed]:
        """The delivered models in the order of their budgets: accuracies measured, cards and results written."""
        logger.info("measuring their accuracy")
        models = [self._delivered[budget] for budget in self._job.budgets]
        for model in models:
            self._measure_accuracy(model)
            write_card(model.file, model.card)
        write_results([model.measured() for model in models], self._job.results_file)
        return models

    def _exported(self, budget: str, result: SearchResult) -> Json:
        """The card of a model, which is written."""
        file, sources = self._job.files[budget], self._sources
        logger.info(f"{budget}: {result.arch}, exporting {file}")
        return export_model(
            sources.net,
            result.arch,
            data=sources.images,
            out=file,
            origin=sources.origin,
            predicted=result.predicted(),
            format_=self._job.format_name,
            device=self._job.device,
        )

    def _session(self, budget: str, result: SearchResult) -> tuple[Session, Array]:
        """What runs a written model, and an input to time it with."""
        size, device = result.arch.resolution, self._job.target
        image = np.random.default_rng(0).standard_normal((1, self._job.space.in_channels, size, size))
        session = device.session(atomic.read(self._job.files[budget]), self._job.plan.threads)
        return session, format_of(device).native(image.astype(np.float32))

    def _measure_accuracy(self, model: Deployed) -> None:
        """Add the accuracy on held-out and test images to a model's card."""
        images, size = self._sources.images, model.result.arch.resolution
        model.card["measured"] |= {
            "heldout": top1(model.run, images, images.heldout, size),
            "test": top1(model.run, images, images.test, size) if images.test is not None else None,
        }

    def _tighter(self, model: Deployed, limit: Limit) -> Limit | None:
        """A limit with a margin by which a model would have been too slow; None where it was not, or none keeps it."""
        off_percent = 100 * (model.latency_ms / model.result.limits[0].predicted - 1)
        tighter = replace(limit, margin_percent=max(off_percent, limit.margin_percent) + GUARD_PERCENT)
        fastest, _ = extreme(self._job.space, limit.cost)
        if model.latency_ms <= limit.upper or tighter.excess(fastest)[0] > 0:
            return None
        logger.info(
            f"{model.budget}: {model.latency_ms:.4g} ms measured, {limit.upper:.4g} ms allowed; searching again with a "
            f"margin of {tighter.margin_percent:.2g} %"
        )
        return tighter


def own_table(job: DeployJob) -> LatencyTable:
    """This machine's table from the working folder, built if it is not there."""
    space, measured = job.space, conditions(job.device, job.plan.threads)
    path = Path("lut") / tables.file_name(space, measured)
    if path.with_suffix(".json").exists() and not path.with_suffix(".partial").exists():
        table = LatencyTable.load(path, space)
        if dict(table.conditions) == measured and table.resolutions == space.resolutions:
            logger.info(f"using {path}: {table.error_in_words}")
            return table
    logger.info(f"building {path}")
    table = build_table(TableJob(space, space.resolutions, plan=job.plan), job.device, out=path)
    logger.info(f"built {path}: {table.error_in_words}")
    return LatencyTable.load(path, space)
