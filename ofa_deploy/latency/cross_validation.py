"""How wrong a table is about networks that its fit had not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.costs import Floats

FOLDS = 5
"""Of the cross-validation that tells a table's error."""
Numbers = npt.NDArray[np.intp]
"""Of networks, counted from 0, shape (n,)."""


def cross_validated(number: int, seed: int, predict: Callable[[Numbers, Numbers], Floats]) -> Floats:
    """Predictions for networks by fits that had not seen them, in `FOLDS` folds, shape (number,).

    Args:
        number: of networks.
        seed: of the folds.
        predict: from the numbers of those to fit to, and of those kept out, to predictions for the latter.
    """
    from sklearn.model_selection import KFold

    unseen = np.zeros(number)
    for fitted, held in KFold(min(FOLDS, number), shuffle=True, random_state=seed).split(unseen):
        unseen[held] = predict(fitted, held)
    return unseen


def compared(names: Iterable[str], predicted_ms: Floats, measured_ms: Floats) -> tuple[dict[str, Any], ...]:
    """What a table keeps of the whole networks that it was calibrated with; they were predicted by cross-validation."""
    return tuple(
        {"arch": name, "measured_ms": round(measured, 5), "predicted_ms": round(predicted, 5)}
        for name, measured, predicted in zip(names, measured_ms.tolist(), predicted_ms.tolist(), strict=True)
    )


def errors(predicted_ms: Floats, measured_ms: Floats) -> dict[str, float]:
    """How far predicted latencies of whole networks are from measured ones, shape (n,) each, in percent."""
    from scipy.stats import spearmanr

    relative = predicted_ms / measured_ms - 1
    percent = 100 * np.abs(relative)
    varied = min(np.ptp(predicted_ms), np.ptp(measured_ms)) > 0
    rank = spearmanr(predicted_ms, measured_ms).statistic if varied else 0.0
    return {
        "networks": len(measured_ms),
        "mape_percent": round(float(percent.mean()), 3),
        "p95_percent": round(float(np.quantile(percent, 0.95)), 3),
        "worst_percent": round(float(percent.max()), 3),
        "within_5_percent": round(float(100 * (percent <= 5).mean()), 1),
        "bias_percent": round(float(100 * relative.mean()), 3),
        "spearman": round(float(np.nan_to_num(rank)), 4),
    }
