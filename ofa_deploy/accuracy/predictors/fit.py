"""Fitting the predictor of a space: candidates are compared, the best is calibrated and fitted on everything."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors.estimator import make_estimator
from ofa_deploy.accuracy.predictors.evaluate import (
    Predicted,
    choose,
    cross_validated,
    errors,
    folds,
    line,
    widening,
)
from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.accuracy.predictors.predictor import Predictor, blend
from ofa_deploy.accuracy.predictors.published import PublishedMLP
from ofa_deploy.accuracy.predictors.sources import Merged, check, merge
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.samples import file_name as samples_file
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import artifacts, outputs
from ofa_deploy.spaces.encoding import layout_of
from ofa_deploy.spaces.space import SearchSpace

logger = logging.getLogger(__name__)

AUTO = "auto"


@dataclass(frozen=True)
class Fitted:
    """A predictor and how it was chosen.

    Attributes:
        predictor: fitted on all samples.
        models: for each candidate and for what they are compared with, its errors on samples that it was not fitted on.
        samples: what was fitted.
        held_out: what the chosen model predicts for each sample without having been fitted on it.
    """

    predictor: Predictor
    models: Mapping[str, Mapping[str, float]]
    samples: Merged
    held_out: Predicted


def fit_predictor(
    sources: Sequence[Samples],
    model: str = AUTO,
    *,
    seed: int = 0,
    jobs: int | None = None,
    names: Sequence[str] | None = None,
) -> Fitted:
    """Fit a predictor.

    Every candidate predicts each sample in a five-fold cross-validation. `auto` takes the model with the best mean
    minus spread of Kendall's tau over the folds, or its mean with another where that errs less (RMSE), both on the
    first source's samples. The standard deviation is then widened so that the 90 % interval holds 90 % of these, and
    the model is fitted on all. The few settings of a model (lengths of a Gaussian process, a weight decay) are chosen
    once, on all samples.

    Args:
        sources: measured architectures, at least 20 each; predictions are on the scale of the first source.
        model: `auto`, or one of `kinds.RECIPES`.
        seed: of everything random.
        jobs: processes; None takes one a core.
        names: what to call the sources in errors.

    Raises:
        OfaDeployError: the samples are too few, all equal, or contradict one another; there is no such model.
    """
    check_model(model)
    sources = [distinct(s, name) for s, name in zip(sources, names or ["the samples"] * len(sources), strict=True)]
    weights = _weights(sources)
    with threadpool_limits(1, "blas"):
        return _fit(merge(sources), weights, model, seed, jobs or joblib.cpu_count())


def _fit(samples: Merged, weights: str | None, model: str, seed: int, jobs: int) -> Fitted:
    space, x, y, weight = samples.space, samples.x, samples.y, samples.weight
    layout = layout_of(space)
    candidates = list(RECIPES) if model == AUTO else [model]
    estimators: dict[str, Any] = {}
    for name in candidates:
        logger.info(f"settings of {name}")
        estimators[name] = make_estimator(name, space, seed=seed).tuned(x, y, weight)
    compared = {"line on log MACs": line(layout), "published recipe": PublishedMLP(layout, seed=seed)}
    logger.info(f"cross-validation: {', '.join([*candidates, *compared])}")
    predicted = cross_validated({**estimators, **compared}, x, y, weight, seed=seed, jobs=jobs)
    splits, sure = folds(x, seed), samples.source == 0
    team = choose(y, {name: predicted[name] for name in candidates}, splits, sure)
    held = blend([predicted[name] for name in team])
    widen = widening(y, held, sure)
    held = held[0], held[1] * widen
    resolution = samples.genes[:, 0]
    models = {
        name: errors(y, (mean, std * widening(y, (mean, std), sure)) if std.any() else (mean, std), resolution, sure)
        for name, (mean, std) in predicted.items()
    }
    if len(team) > 1:
        models["+".join(team)] = errors(y, held, resolution, sure)
    logger.info(f"fitting {'+'.join(team)} on all {len(y)} samples")
    fitted = tuple((name, clone(estimators[name]).fit(x, y, weight).model_.arrays) for name in team)
    error = {"fitted": len(y), **errors(y, held, resolution, sure)}
    predictor = Predictor(space, fitted, widen, error, weights_sha256=weights)
    return Fitted(predictor, models, samples, held)


def _weights(sources: Sequence[Samples]) -> str | None:
    """Checksum of the supernet that all sources are of, where any knows it."""
    checksums = {s.weights_sha256 for s in sources} - {None}
    if len(checksums) > 1:
        raise OfaDeployError("the samples are of different supernets; several sources must have measured the same one")
    return checksums.pop() if checksums else None


def check_model(model: str) -> None:
    """Refuse a model that does not exist.

    Raises:
        OfaDeployError: naming those that do.
    """
    if model != AUTO and model not in RECIPES:
        raise OfaDeployError(f"unknown model {model!r}; choose one of {', '.join([AUTO, *RECIPES])}")


def distinct(samples: Samples, name: str) -> Samples:
    """Each architecture once.

    Raises:
        OfaDeployError: one has two accuracies, or there is nothing to fit.
    """
    rows, first, which = np.unique(samples.genes, axis=0, return_index=True, return_inverse=True)
    if len(rows) < len(samples):
        differ = np.flatnonzero(samples.top1_percent != samples.top1_percent[first][which])
        if len(differ):
            arch = samples.space.archs(samples.genes[differ[:1]])[0]
            a, b = samples.top1_percent[first][which][differ[0]], samples.top1_percent[differ[0]]
            raise OfaDeployError(
                f"{name}: {arch} has two accuracies, {a:g} and {b:g} ({len(differ)} such rows); keep one, or their mean"
            )
        kept = np.sort(first)
        samples = replace(samples, genes=samples.genes[kept], top1_percent=samples.top1_percent[kept])
    check(samples, name)
    return samples


def held_out(predictor: Predictor, samples: Samples) -> dict[str, float]:
    """Errors on samples that were kept apart."""
    return errors(samples.top1_percent, predictor.predict(samples.genes, return_std=True), samples.genes[:, 0])


def fit_file(
    space: SearchSpace,
    samples: Sequence[Path],
    *,
    out: Path,
    model: str,
    seed: int,
    apart: Path | None = None,
    source: str | None = None,
    jobs: int | None = None,
) -> Mapping[str, Any]:
    """Fit on files of samples and save the predictor, with a plot beside it.

    Args:
        space: the search space.
        samples: CSV files, each a source; none finds the space's own, in the working folder or as shipped.
        out: file to write.
        model: `auto`, or one of `kinds.RECIPES`.
        seed: of everything random.
        apart: CSV file of samples that are only predicted.
        source: where the samples come from, in words.
        jobs: processes; None takes one a core.

    Returns:
        `model`: its name; `error` of the predictor; `models` compared; `label_noise` where it was measured; `apart`:
        errors on the samples of that file; `samples`: a description of each source.
    """
    from ofa_deploy.accuracy.predictors.plot import scatter

    check_model(model)
    hint = f"measure some with: ofa-deploy sample --space {space.name}"
    paths = list(samples) or [artifacts.find_artifact("predictors", samples_file(space), hint=hint)]
    sources = [Samples.load(path, space) for path in paths]
    others = None if apart is None else Samples.load(apart, space)
    outputs.check_output(out, ".safetensors")
    _check_stem(out, [*paths, *([apart] if apart else [])])
    fitted = fit_predictor(sources, model, seed=seed, jobs=jobs, names=list(map(str, paths)))
    predictor = fitted.predictor
    comparison: dict[str, Any] = {
        "models": fitted.models,
        "label_noise": sources[0].label_noise,
        "apart": None if others is None else {"file": Path(str(apart)).name, **held_out(predictor, others)},
    }
    details = {
        **({"source": source} if source else {}),
        **{key: value for key, value in comparison.items() if value},
        "widen": predictor.widen,
        "seed": seed,
        "weights_sha256": predictor.weights_sha256,
        "samples": _descriptions(paths, sources, fitted.samples),
    }
    predictor.save(out, details)
    title = f"{space.name}: {predictor.model}"
    scatter(fitted.samples.y, fitted.held_out, predictor.error, title, out.with_suffix(".png"))
    if predictor.doubt:
        logger.warning(predictor.doubt)
    return {"model": predictor.model, "error": predictor.error, **comparison, "samples": details["samples"]}


def _check_stem(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse a predictor whose JSON would replace that of an input."""
    if taken := [path for path in inputs if path.with_suffix("") == out.with_suffix("")]:
        raise OfaDeployError(f"the predictor's JSON would lie where that of {taken[0]} belongs; choose another --out")


def _descriptions(paths: Sequence[Path], sources: Sequence[Samples], merged: Merged) -> list[dict[str, Any]]:
    """What a predictor's JSON says of each source."""
    return [
        {
            "file": path.name,
            "sha256": samples.sha256,
            "number": len(samples),
            "offset_points": round(offset, 4),
            "noise_points": round(noise, 4),
        }
        for path, samples, offset, noise in zip(paths, sources, merged.offsets, merged.noises, strict=True)
    ]
