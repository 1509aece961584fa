"""How good predictors are on samples that they were not fitted on, and which one is best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, spearmanr
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ofa_deploy.accuracy.intervals import NORMAL_90
from ofa_deploy.accuracy.predictors.estimator import Estimator
from ofa_deploy.accuracy.predictors.predictor import blend
from ofa_deploy.accuracy.workers import Workers
from ofa_deploy.progress import Progress
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.encoding import FeatureLayout, Features

FOLDS = 5
Predicted = tuple[Floats, Floats]
"""Mean and standard deviation of each sample, from a model that was fitted without it."""


def line(layout: FeatureLayout) -> Any:
    """What every model must beat: a line on the logarithm of the multiply-accumulates."""
    return make_pipeline(FunctionTransformer(_column, kw_args={"column": layout.costs.start}), LinearRegression())


def _column(x: Features, column: int) -> Features:
    return x[:, [column]]


def errors(
    y: Floats,
    predicted: Predicted,
    resolution: npt.NDArray[Any] | None = None,
    sure: npt.NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Errors of predictions.

    Args:
        y: measured top-1 in percent, shape (n,).
        predicted: mean and standard deviation, shape (n,) each.
        resolution: of each network; where there are several, Kendall's tau within one is added.
        sure: the samples that the standard deviations are about; None means all.

    Returns:
        rmse_points, kendall_tau, spearman_rho, coverage90_percent (share of samples within the 90 % interval), and
        kendall_tau_within_resolution; without those that are not defined.
    """
    mean, std = predicted
    out = {
        "rmse_points": float(np.sqrt(np.mean((mean - y) ** 2))),
        "kendall_tau": float(kendalltau(mean, y).statistic),
        "spearman_rho": float(spearmanr(mean, y).statistic),
    }
    if std.any():
        inside = abs(mean - y) <= NORMAL_90 * std
        out["coverage90_percent"] = 100 * float(np.mean(inside if sure is None else inside[sure]))
    if resolution is not None and len(same := [resolution == r for r in np.unique(resolution)]) > 1:
        taus = np.array([kendalltau(mean[p], y[p]).statistic if p.sum() > 1 else np.nan for p in same])
        if (defined := np.isfinite(taus)).any():
            weights = np.array([p.sum() for p in same])
            out["kendall_tau_within_resolution"] = float(np.average(taus[defined], weights=weights[defined]))
    return {key: round(value, 4) for key, value in out.items() if np.isfinite(value)}


def folds(x: Features, seed: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Indices to fit and to predict, for each fold; samples of one architecture are in the same."""
    _, same = np.unique(x, axis=0, return_inverse=True)
    return list(GroupKFold(FOLDS, shuffle=True, random_state=seed).split(x, groups=same.ravel()))


def cross_validated(
    estimators: Mapping[str, Any], x: Features, y: Floats, weight: Floats, *, seed: int, jobs: int
) -> dict[str, Predicted]:
    """Predict every sample by models that were fitted without it.

    Args:
        estimators: by name, their open settings chosen already.
        x: features, shape (n, f).
        y: top-1 in percent, shape (n,).
        weight: of each sample, shape (n,).
        seed: of the folds.
        jobs: processes.
    """
    splits = folds(x, seed)
    tasks = [
        (name, number, clone(estimator), _Fold(x, y, weight, *split))
        for name, estimator in estimators.items()
        for number, split in enumerate(splits)
    ]
    progress = Progress(len(tasks), "fits")
    out = {name: (np.zeros(len(y)), np.zeros(len(y))) for name in estimators}
    for name, number, (mean, std) in Workers(jobs).run(_fold, tasks, prepare=load_torch):
        held = splits[number][1]
        out[name][0][held], out[name][1][held] = mean, std
        progress.add()
    return out


@dataclass(frozen=True)
class _Fold:
    """What an estimator is fitted on, and what it predicts.

    Attributes:
        x: features, shape (n, f).
        y: top-1 in percent, shape (n,).
        weight: of each sample, shape (n,).
        fitted: indices of the samples to fit on.
        held: indices of the samples to predict.
    """

    x: Features
    y: Floats
    weight: Floats
    fitted: npt.NDArray[np.intp]
    held: npt.NDArray[np.intp]


def load_torch() -> None:
    """Load PyTorch, before the first task of a process.

    Loky ends a process whose memory has grown by 300 MB since its first task, and loading PyTorch takes most of that.
    """
    import torch  # noqa: F401


def _fold(name: str, number: int, estimator: Any, fold: _Fold) -> tuple[str, int, Predicted]:
    """Predictions of a fold by an estimator that is fitted without it; with the estimator's name and fold's number."""
    x, y, unseen = fold.x[fold.fitted], fold.y[fold.fitted], fold.x[fold.held]
    if isinstance(estimator, Estimator):
        estimator.fit(x, y, sample_weight=fold.weight[fold.fitted])
        return name, number, estimator.predict(unseen, return_std=True)
    estimator.fit(x, y)
    return name, number, (estimator.predict(unseen), np.zeros(len(unseen)))


def rank(y: Floats, predicted: Predicted, splits: list[Any]) -> float:
    """What models are chosen by: mean minus spread of Kendall's tau over the folds (0 where all are equal)."""
    taus = np.nan_to_num([kendalltau(predicted[0][held], y[held]).statistic for _, held in splits])
    return float(np.mean(taus) - np.std(taus))


def choose(
    y: Floats, predicted: Mapping[str, Predicted], splits: list[Any], sure: npt.NDArray[np.bool_]
) -> tuple[str, ...]:
    """The best model by `rank`, or it and another where their mean has a smaller error than it has alone.

    Only the samples in `sure` count, shape (n,): those of the first source, on whose scale predictions are.
    """
    judged = [(fitted, held[sure[held]]) for fitted, held in splits]
    best = max(predicted, key=lambda name: rank(y, predicted[name], judged))
    teams = [tuple(sorted({best, name})) for name in predicted]
    means = [blend([predicted[name] for name in team])[0] for team in teams]
    return teams[int(np.argmin([np.mean((mean - y)[sure] ** 2) for mean in means]))]


def widening(y: Floats, predicted: Predicted, sure: npt.NDArray[np.bool_] | None = None) -> float:
    """Factor of the standard deviation with which 90 % of the samples (of those in `sure`) lie in the 90 % interval."""
    mean, std = predicted
    off = abs(mean - y) / std
    off = off if sure is None else off[sure]
    return float(np.quantile(off, min(1.0, 0.9 * (1 + 1 / len(off)))) / NORMAL_90)
