"""A picture of how well a predictor predicts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ofa_deploy.accuracy.intervals import NORMAL_90
from ofa_deploy.accuracy.predictors.evaluate import Predicted
from ofa_deploy.files import atomic
from ofa_deploy.spaces.costs import Floats


def scatter(y: Floats, predicted: Predicted, report: Mapping[str, float], title: str, path: Path) -> None:
    """Write a PNG of measured accuracies over those that were predicted without them, with 90 % intervals."""
    from matplotlib.figure import Figure

    mean, std = predicted
    figure = Figure(figsize=(5.5, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.errorbar(mean, y, xerr=NORMAL_90 * std, fmt="none", ecolor="0.85", elinewidth=0.6, zorder=1)
    axes.scatter(mean, y, s=6, alpha=0.6, zorder=2)
    ends = [min(mean.min(), y.min()), max(mean.max(), y.max())]
    axes.plot(ends, ends, color="black", linewidth=0.8, zorder=3)
    axes.set(xlabel="predicted top-1, % (not fitted on that network; 90 % interval)", ylabel="measured top-1, %")
    axes.set_title(f"{title}\nRMSE {report['rmse_points']:.3f} points, Kendall's tau {report['kendall_tau']:.3f}")
    axes.grid(alpha=0.3)
    low, high = np.array(ends) + np.array([-0.03, 0.03]) * np.ptp(ends)
    axes.set(xlim=(low, high), ylim=(low, high))
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    atomic.write(path, content.getvalue())
