"""Searches whose predictor is refined: a predicted front is measured, and the predictor fitted anew with it.

A search finds what its predictor over-rates. Measuring the networks of the front, which are those that it believes in,
tells it better than any other networks would.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ofa_deploy.accuracy.intervals import mean_interval95
from ofa_deploy.accuracy.predictors.fit import AUTO, fit_predictor
from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.accuracy.samples import KIND as SAMPLES
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.samples import file_name as samples_file
from ofa_deploy.delivery.loop import SearchPlan, search_again
from ofa_deploy.delivery.measuring import Accuracies, accuracies_at_hand
from ofa_deploy.delivery.requests import Prepared, Request, plan_of, prepare
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import artifacts, atomic, outputs
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import MeasuredAccuracy, Refined, RefinedRound
from ofa_deploy.search.run import explore, find_network
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint

logger = logging.getLogger(__name__)

NUMBER = 16
"""Networks of the front that are measured in a round."""


@dataclass(frozen=True)
class Refit:
    """What fits a predictor anew.

    Attributes:
        fit: from samples to a predictor.
        keep: receives all samples after each round.
    """

    fit: Callable[[Samples], Predictor]
    keep: Callable[[Samples], None] = lambda samples: None


def search_refined(
    problem: Problem, samples: Samples, accuracies: Accuracies, refit: Refit, *, rounds: int, plan: SearchPlan
) -> SearchResult:
    """Measure the front and fit the predictor anew, some times, then search.

    Args:
        problem: with the predictor to begin with; the front is against the cost of the first limit.
        samples: what the predictor was fitted to.
        accuracies: measures networks.
        refit: fits a predictor to samples.
        rounds: of measuring and fitting.
        plan: how each search runs.

    Returns:
        the result of the last search, with `refined`: what each round predicted and measured, and the same of the
        chosen network.

    Raises:
        InfeasibleError: no network is within the limits.
        OfaDeployError: `rounds` is below 1.
    """
    check_rounds(rounds)
    loop = _Refinement(problem, samples, accuracies, refit, plan)
    search_again(loop, rounds)
    return loop.result()


def check_rounds(rounds: int) -> None:
    """Refuse a number of rounds that is none.

    Raises:
        OfaDeployError: naming what it may be.
    """
    if rounds < 1:
        raise OfaDeployError(f"--refine needs at least 1 round, not {rounds}")


class _Refinement:
    """The loop: candidates are networks of the front, and the predictor is fitted anew.

    Args:
        problem: with the predictor to begin with.
        samples: what the predictor was fitted to.
        accuracies: measures networks.
        refit: fits a predictor to samples.
        plan: how each search runs.
    """

    def __init__(
        self, problem: Problem, samples: Samples, accuracies: Accuracies, refit: Refit, plan: SearchPlan
    ) -> None:
        assert isinstance(problem.predictor, Predictor)
        self._problem, self._predictor, self._samples = problem, problem.predictor, samples
        self._accuracies, self._refit, self._plan = accuracies, refit, plan
        self._rounds: list[RefinedRound] = []

    def search(self) -> list[Arch]:
        """Networks spread over the front that are not among the samples."""
        exploration = explore(self._problem, self._plan.settings, self._plan.stopping, front=True)
        sampled = {row.tobytes() for row in self._samples.genes}
        front = exploration.archive.genes[exploration.archive.front()]
        fresh = front[[row.tobytes() not in sampled for row in front]]
        spread = np.unique(np.linspace(0, len(fresh) - 1, min(NUMBER, len(fresh))).round().astype(int))
        return self._problem.space.archs(fresh[spread]) if len(fresh) else []

    def measure(self, candidates: Sequence[Arch], number: int) -> None:
        """Measure the networks, and add them to the samples."""
        comparison, self._samples = self._measured(candidates)
        bias = f"{comparison.bias_points:+.2f} points predicted above what is measured"
        logger.info(f"round {number}: {bias}, of {len(candidates)}")
        self._rounds.append(replace(comparison, number=number))
        self._refit.keep(self._samples)

    def correct(self, candidates: Sequence[Arch], number: int) -> bool:
        """Fit the predictor anew; there is always more to measure."""
        self._predictor = self._refit.fit(self._samples)
        self._problem = replace(self._problem, predictor=self._predictor)
        return True

    def result(self) -> SearchResult:
        """The result of a last search, its network measured."""
        inputs = {**self._plan.inputs, "predictor_sha256": self._predictor.sha256 or None}  # the last one has no file
        settings, stopping = self._plan.settings, self._plan.stopping
        result = find_network(self._problem, settings, stopping=stopping, risk=self._plan.risk, inputs=inputs)
        comparison, _ = self._measured([result.arch])
        return replace(result, refined=Refined(rounds=tuple(self._rounds), final=comparison))

    def _measured(self, archs: Sequence[Arch]) -> tuple[RefinedRound, Samples]:
        """What was predicted and measured of networks, and all samples with them."""
        samples, genes = self._samples, self._problem.space.genes(archs)
        predictions, accuracies = self._predictor.predict(genes), self._accuracies(archs)
        joined = replace(
            samples,
            genes=np.concatenate([samples.genes, genes]),
            top1_percent=np.concatenate([samples.top1_percent, [top1 for top1, _ in accuracies]]),
        )
        return _comparison(archs, predictions.tolist(), accuracies), joined


def _comparison(
    archs: Sequence[Arch], predictions: Sequence[float], accuracies: Sequence[tuple[float, float]]
) -> RefinedRound:
    """Predicted and measured accuracies of networks in percent, and how far the predictions are off on average."""
    gaps = np.array(predictions) - np.array([top1 for top1, _ in accuracies])
    half = mean_interval95(float(gaps.std(ddof=1)), len(gaps)) if len(gaps) > 1 else None
    networks = tuple(
        MeasuredAccuracy(
            arch=arch,
            predicted_top1_percent=round(prediction, 4),
            measured_top1_percent=top1,
            interval95_points=interval,
        )
        for arch, prediction, (top1, interval) in zip(archs, predictions, accuracies, strict=True)
    )
    return RefinedRound(
        bias_points=round(float(gaps.mean()), 4),
        bias_interval95_points=None if half is None else round(half, 4),
        networks=networks,
    )


def refine_files(request: Request, rounds: int, *, weights: Path | None, data: str | None) -> SearchResult:
    """Search with a predictor that is refined, with files.

    All samples, old and new, are kept in `predictors/SPACE_refined_samples.csv` of the working folder; a later run
    begins with what that adds to the samples of the weights.

    Args:
        request: what is asked for; its objective is accuracy.
        rounds: of measuring and fitting.
        weights: of the supernet; None finds the space's own.
        data: name of the images; None finds the space's own.

    Raises:
        OfaDeployError: weights, images or samples of their subnetworks are not at hand, or another run refines.
    """
    if request.front or request.prove_seconds is not None or request.objective != "accuracy":
        raise OfaDeployError("--refine goes with --objective accuracy, without --front and --certify")
    check_rounds(rounds)
    prepared = prepare(request)
    space = prepared.space
    accuracies = accuracies_at_hand(prepared, weights, data)
    if accuracies is None:
        raise OfaDeployError(f"--refine measures accuracies: name the supernet's --weights and --data of {space.name}")
    file = Path("predictors") / f"{space.name}_refined_samples.csv"
    measured = _samples_of(weights or artifacts.find_artifact("supernets", checkpoint.file_name(space)), space)
    refit, problem = _refit(prepared, file, seed=request.settings.seed), prepared.problem
    outputs.check_output(file, ".csv")
    with atomic.locked(file):
        samples = _joined(measured, Samples.load(file, space)) if file.exists() else measured
        if len(samples) > len(measured):
            logger.info(f"going on with {len(samples) - len(measured)} networks of {file}")
            problem = replace(problem, predictor=refit.fit(samples))
        return search_refined(problem, samples, accuracies, refit, rounds=rounds, plan=plan_of(request, prepared))


def _refit(prepared: Prepared, file: Path, *, seed: int) -> Refit:
    """What fits the model of a predictor anew, and keeps the samples in a file."""
    assert prepared.predictor is not None
    model = prepared.predictor.model if prepared.predictor.model in RECIPES else AUTO

    def fit(samples: Samples) -> Predictor:
        return fit_predictor([samples], model, seed=seed).predictor

    def keep(samples: Samples) -> None:
        samples.save(file, {"weights_sha256": samples.weights_sha256, "source": "ofa-deploy search --refine"})

    return Refit(fit, keep)


def _samples_of(weights: Path, space: SearchSpace) -> Samples:
    """The measured subnetworks of a weight file: of those in `predictors/`, here or shipped.

    Raises:
        ArtifactError: there are none, or the first that would do are damaged.
    """
    hint = f"run ofa-deploy sample --space {space.name}, with the --weights and --data of this search"
    first = artifacts.find_artifact("predictors", samples_file(space), hint=hint)
    others = [path.with_suffix(".csv") for path in artifacts.candidates("predictors", f"{space.name}*_samples.json")]
    sha256 = checkpoint.origin(weights)["sha256"]
    for path in (first, *others):
        if path == first or artifacts.describe(path, SAMPLES).get("space") == space.name:
            samples = Samples.load(path, space)
            if samples.weights_sha256 in (sha256, None):
                return samples
    raise ArtifactError(f"no samples in predictors/ are of the weights {weights}; {hint}")


def _joined(samples: Samples, more: Samples) -> Samples:
    """Samples, and those of others of the same weights that are not among them."""
    if more.weights_sha256 != samples.weights_sha256:
        return samples
    sampled = {row.tobytes() for row in samples.genes}
    fresh = [i for i, row in enumerate(more.genes) if row.tobytes() not in sampled]
    return replace(
        samples,
        genes=np.concatenate([samples.genes, more.genes[fresh]]),
        top1_percent=np.concatenate([samples.top1_percent, more.top1_percent[fresh]]),
    )
