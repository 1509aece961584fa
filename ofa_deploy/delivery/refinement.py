"""The active loop: measure the predicted front, fit the predictor anew with it, and search again.

A search finds what its predictor over-rates. Measuring the networks of the front, which are those that it believes in,
tells it better than any other networks would.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.accuracy.predictors.fit import AUTO, fit_predictor
from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.accuracy.samples import KIND as SAMPLES
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.samples import file_name as samples_file
from ofa_deploy.delivery.requests import Request, prepare
from ofa_deploy.delivery.verification import Accuracies, accuracies_at_hand
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import artifacts, atomic, outputs
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_parts import MeasuredAccuracy, Refined, RefinedRound
from ofa_deploy.search.run import Explored, explore, find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint

logger = logging.getLogger(__name__)

NUMBER = 16
"""Networks of the front that are measured in a round."""
Refit = Callable[[Samples], Predictor]


def search_refined(
    problem: Problem,
    settings: SearchSettings,
    rounds: int,
    *,
    known: Samples,
    accuracies: Accuracies,
    refit: Refit,
    risk: float,
    inputs: Mapping[str, Any],
    stopping: Stopping | None = None,
    keep: Callable[[Samples], None] = lambda samples: None,
) -> SearchResult:
    """Measure the front and fit anew, some times, then search.

    Args:
        problem: with the predictor to begin with; the front is against the cost of the first limit.
        settings: of each search.
        rounds: of measuring and fitting.
        known: what the predictor was fitted to.
        accuracies: measures networks.
        refit: fits a predictor.
        risk: see `run.search`.
        inputs: to be recorded in the result.
        stopping: when each search ends; None takes `Stopping()`.
        keep: receives all samples after each round.

    Returns:
        the result of the last search, with `refined`: what each round predicted and measured, and the same of the
        chosen network.

    Raises:
        OfaDeployError: `rounds` is below 1; see also `run.search`.
    """
    if rounds < 1:
        raise OfaDeployError(f"--refine needs at least 1 round, not {rounds}")
    predictor = problem.predictor
    history: list[RefinedRound] = []
    assert isinstance(predictor, Predictor)
    for number in range(1, rounds + 1):
        chosen = _unmeasured(explore(problem, settings, stopping, front=True), known)
        if not chosen:
            break
        comparison, known = _measured(predictor, chosen, known, accuracies)
        bias = f"{comparison.bias_points:+.2f} points predicted above what is measured"
        logger.info(f"round {number}: {bias}, of {len(chosen)}")
        history.append(replace(comparison, number=number))
        keep(known)
        predictor = refit(known)
        problem = replace(problem, predictor=predictor)
    inputs = {**inputs, "predictor_sha256": predictor.sha256 or None}  # that of the last fit lies in no file
    found = find_network(problem, settings, stopping=stopping, risk=risk, inputs=inputs)
    last, _ = _measured(predictor, [found.arch], known, accuracies)
    return replace(found, refined=Refined(rounds=tuple(history), chosen=last))


def _unmeasured(explored: Explored, known: Samples) -> list[Arch]:
    """Networks spread over the front that are not among the samples."""
    archive = explored.archive
    front = archive.front()
    seen = {row.tobytes() for row in known.genes}
    fresh = [int(i) for i in front if archive.genes[i].tobytes() not in seen]
    spread = sorted({round(i) for i in np.linspace(0, len(fresh) - 1, min(NUMBER, len(fresh)))}) if fresh else []
    return explored.problem.space.archs(archive.genes[[fresh[i] for i in spread]]) if spread else []


def _measured(
    predictor: Predictor, archs: Sequence[Arch], known: Samples, accuracies: Accuracies
) -> tuple[RefinedRound, Samples]:
    """What was predicted and measured of networks, and all samples with them."""
    genes = predictor.space.genes(archs)
    predicted, measured = predictor.predict(genes), accuracies(archs)
    tops = np.array([top for top, _ in measured])
    gaps = predicted - tops
    spread = 1.96 * float(gaps.std(ddof=1)) / np.sqrt(len(gaps)) if len(gaps) > 1 else None
    comparison = RefinedRound(
        bias_points=round(float(gaps.mean()), 4),
        bias_interval95_points=spread and round(float(spread), 4),
        networks=tuple(
            MeasuredAccuracy(
                arch=arch, predicted_top1_percent=round(float(p), 4), measured_top1_percent=top, interval95_points=half
            )
            for arch, p, (top, half) in zip(archs, predicted, measured, strict=True)
        ),
    )
    joined = np.concatenate([known.genes, genes]), np.concatenate([known.top1_percent, tops])
    return comparison, replace(known, genes=joined[0], top1_percent=joined[1])


def refine_files(request: Request, rounds: int, weights: Path | None, data: str | None) -> SearchResult:
    """Search in the active loop with files; see `search_refined`.

    All samples, old and new, are kept in `predictors/SPACE_refined_samples.csv` of the working folder; a later run
    begins with what that adds to the samples of the weights.

    Raises:
        OfaDeployError: weights, images or samples of their subnetworks are not at hand, or another run refines.
    """
    if request.front or request.prove_seconds is not None or request.objective != "accuracy":
        raise OfaDeployError("--refine goes with --objective accuracy, without --front and --certify")
    if rounds < 1:
        raise OfaDeployError(f"--refine needs at least 1 round, not {rounds}")
    ready = prepare(request)
    space, predictor = ready.space, ready.predictor
    assert predictor is not None
    accuracies = accuracies_at_hand(ready, weights, data)
    if accuracies is None:
        raise OfaDeployError(f"--refine measures accuracies: name the supernet's --weights and --data of {space.name}")
    kept = Path("predictors") / f"{space.name}_refined_samples.csv"
    own = _samples_of(weights or artifacts.find_artifact("supernets", checkpoint.file_name(space)), space)
    model = predictor.model if predictor.model in RECIPES else AUTO

    def refit(samples: Samples) -> Predictor:
        return fit_predictor([samples], model, request.settings.seed).predictor

    def keep(samples: Samples) -> None:
        samples.save(kept, {"weights_sha256": samples.weights_sha256, "source": "ofa-deploy search --refine"})

    outputs.check_output(kept, ".csv")
    with atomic.locked(kept):
        known = _joined(own, Samples.load(kept, space)) if kept.exists() else own
        if len(known) > len(own):
            logger.info(f"going on with {len(known) - len(own)} networks of {kept}")
            predictor = refit(known)
        return search_refined(
            replace(ready.problem, predictor=predictor),
            request.settings,
            rounds,
            known=known,
            accuracies=accuracies,
            refit=refit,
            risk=request.risk,
            inputs=ready.inputs,
            stopping=request.stopping,
            keep=keep,
        )


def _samples_of(weights: Path, space: SearchSpace) -> Samples:
    """The measured subnetworks of a weight file: of those in `predictors/`, here or shipped.

    Raises:
        ArtifactError: there are none, or the first that would do are damaged.
    """
    hint = f"run ofa-deploy sample --space {space.name}, with the --weights and --data of this search"
    first = artifacts.find_artifact("predictors", samples_file(space), hint)
    others = [path.with_suffix(".csv") for path in artifacts.candidates("predictors", f"{space.name}*_samples.json")]
    wanted = checkpoint.origin(weights)["sha256"]
    for path in (first, *others):
        if path == first or artifacts.describe(path, SAMPLES).get("space") == space.name:
            found = Samples.load(path, space)
            if found.weights_sha256 in (wanted, None):
                return found
    raise ArtifactError(f"no samples in predictors/ are of the weights {weights}; {hint}")


def _joined(own: Samples, more: Samples) -> Samples:
    """Samples, and those of others of the same weights that are not among them."""
    if more.weights_sha256 != own.weights_sha256:
        return own
    seen = {row.tobytes() for row in own.genes}
    fresh = [i for i, row in enumerate(more.genes) if row.tobytes() not in seen]
    return replace(
        own,
        genes=np.concatenate([own.genes, more.genes[fresh]]),
        top1_percent=np.concatenate([own.top1_percent, more.top1_percent[fresh]]),
    )
