"""An ensemble of multilayer perceptrons: fitted with torch, evaluated with numpy alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ofa_deploy import artifacts
from ofa_deploy.accuracy.predictors import Features, features
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.samples import file_name as samples_file
from ofa_deploy.costs import Floats, Genes
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.progress import Progress, Report
from ofa_deploy.space import SearchSpace

if TYPE_CHECKING:
    import torch

KIND = "accuracy-predictor"
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How the ensemble is fitted: AdamW with a one-cycle schedule on the squared error of the standardised target.

    Attributes:
        members: networks, each from its own initial weights.
        hidden: width of the three hidden layers.
        steps: of the optimiser.
        batch: samples a step.
        lr: highest learning rate.
        weight_decay: of AdamW; strong, since accuracies are noisy and architectures few.
        seed: of initial weights and batches.
    """

    members: int = 5
    hidden: int = 128
    steps: int = 1000
    batch: int = 128
    lr: float = 3e-3
    weight_decay: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class MLPPredictor:
    """Top-1 accuracy from an architecture: three hidden layers with ReLU, several members.

    Attributes:
        space: the search space.
        arrays: `weight0..3` of shape (members, in, out), `bias0..3` of (members, 1, out), `shift` and `scale` of the
            features, `target` (mean, standard deviation), `noise` (standard deviation in points that the members'
            disagreement leaves unexplained on held-out samples).
        report: the held-out error: rmse_points, kendall_tau, ...
        sha256: of the file that it was read from; empty for one just fitted.
        weights_sha256: of the supernet whose subnetworks were measured; None where that is not known.
    """

    space: SearchSpace
    arrays: Mapping[str, Array]
    report: Mapping[str, float]
    sha256: str = ""
    weights_sha256: str | None = None

    def predict(self, genes: Genes) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the top-1 accuracy in percent, shape (n,) each."""
        a = self.arrays
        x = (features(self.space, genes) - a["shift"]) / a["scale"]
        each = np.empty((len(a["weight0"]), len(x)))
        for member in range(len(each)):
            h = x
            for layer in range(4):
                h = h @ a[f"weight{layer}"][member] + a[f"bias{layer}"][member]
                if layer < 3:
                    np.maximum(h, 0, out=h)
            each[member] = h[:, 0]
        mean, std = (float(v) for v in a["target"])
        spread = each.std(axis=0) * std
        return each.mean(axis=0) * std + mean, np.sqrt(spread**2 + float(a["noise"][0]) ** 2)

    def save(self, path: Path, details: Mapping[str, Any]) -> artifacts.Json:
        """Write safetensors and their JSON."""
        from safetensors.numpy import save

        about = {"model": "mlp", "error": dict(self.report), **details}
        return artifacts.save(path, save(dict(self.arrays)), KIND, self.space.name, about)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> MLPPredictor:
        """Read what `save` wrote.

        Raises:
            ArtifactError: it is missing, damaged, of another space, or not such a predictor.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        data, about = artifacts.load(path, KIND, space.name)
        try:
            arrays = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error
        made = cls(space, arrays, about.get("error", {}), about["sha256"], about.get("weights_sha256"))
        try:
            fits = bool(np.isfinite(made.predict(space.genes([space.extreme(True)]))).all())
        except (KeyError, ValueError, IndexError):
            fits = False
        if not fits:
            raise ArtifactError(
                f"{path} does not fit the space {space.name}; fit it anew with ofa-deploy fit-predictor"
            )
        return made


def fit(samples: Samples, settings: Settings | None = None, report: Report = lambda line: None) -> MLPPredictor:
    """Fit an ensemble: once on four fifths to learn its error on the last fifth, then on everything.

    Args:
        samples: at least 20 measured architectures.
        settings: how.
        report: receives a line of progress now and then.

    Returns:
        the predictor fitted on all samples, with the error of the one that was fitted on four fifths.

    Raises:
        OfaDeployError: there are fewer than 20 samples, or all accuracies are equal.
    """
    from sklearn.model_selection import train_test_split

    settings = settings or Settings()
    if len(samples) < 20:
        raise OfaDeployError(f"{len(samples)} samples are too few to fit a predictor; measure at least 20")
    first, last = train_test_split(np.arange(len(samples)), test_size=0.2, random_state=settings.seed)
    if min(np.ptp(samples.top1_percent[part]) for part in (first, last)) == 0:
        raise OfaDeployError(
            "the measured accuracies are all equal, or nearly all: there is nothing to fit; "
            "measure more subnetworks, on more images, or check the supernet's weights"
        )
    x, y = features(samples.space, samples.genes), samples.top1_percent
    trial = MLPPredictor(
        samples.space, _fit(x[first], y[first], settings, lambda line: report(f"first of two fits: {line}")), {}
    )
    mean, spread = trial.predict(samples.genes[last])
    noise = np.sqrt(max(float(np.mean((mean - y[last]) ** 2 - spread**2)), 1e-6))
    error = {"fitted": len(first), "held_out": len(last), **_error(mean, y[last])}
    arrays = _fit(x, y, settings, lambda line: report(f"second: {line}")) | {"noise": np.array([noise], np.float32)}
    return MLPPredictor(samples.space, arrays, error)


def fit_file(
    space: SearchSpace, samples: Path | None, out: Path, settings: Settings, report: Report
) -> Mapping[str, float]:
    """Fit on a file of samples and save the predictor.

    Args:
        space: the search space.
        samples: CSV file; None finds the space's own, in the working folder or as shipped.
        out: file to write.
        settings: how.
        report: receives a line of progress now and then.

    Returns:
        the held-out error.
    """
    hint = f"measure some with: ofa-deploy sample --space {space.name}"
    path = samples or artifacts.find("predictors", samples_file(space), hint)
    measured = Samples.load(path, space)
    artifacts.check_output(out, ".safetensors")
    predictor = fit(measured, settings, report)
    details = {
        "samples": path.name, "samples_sha256": measured.sha256, "weights_sha256": measured.weights_sha256,
        "settings": asdict(settings),
    }  # fmt: skip
    predictor.save(out, details)
    return predictor.report


def _error(predicted: Floats, measured: Floats) -> dict[str, float]:
    from scipy.stats import kendalltau

    return {
        "rmse_points": round(float(np.sqrt(np.mean((predicted - measured) ** 2))), 4),
        "kendall_tau": round(float(kendalltau(predicted, measured).statistic), 4),
    }


def _fit(x: Features, y: Floats, settings: Settings, report: Report) -> dict[str, Array]:
    """Train all members at once, each on its own batches."""
    import torch

    generator = torch.Generator().manual_seed(settings.seed)
    shift, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-6] = 1
    mean, std = float(y.mean()), float(y.std())
    inputs = torch.from_numpy((x - shift) / scale)
    target = torch.from_numpy((y - mean) / std).float()
    widths = [x.shape[1], *[settings.hidden] * 3, 1]
    weights, biases = [], []
    for fan_in, fan_out in itertools.pairwise(widths):
        uniform = torch.rand((settings.members, fan_in, fan_out), generator=generator) * 2 - 1
        weights.append((uniform * (3 / fan_in) ** 0.5).requires_grad_())
        biases.append(torch.zeros(settings.members, 1, fan_out, requires_grad=True))
    optimizer = torch.optim.AdamW([*weights, *biases], lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, settings.steps)
    batch = min(settings.batch, len(x))
    progress = Progress(settings.steps, "steps", report, seconds=2)
    for _ in range(settings.steps):
        rows = torch.randint(len(x), (settings.members, batch), generator=generator)
        loss = (_forward(inputs[rows], weights, biases) - target[rows]).square().mean(1).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress.add()
    arrays = {
        "shift": shift,
        "scale": scale,
        "target": np.array([mean, std], np.float32),
        "noise": np.zeros(1, np.float32),
    }
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        arrays |= {f"weight{layer}": weight.detach().numpy(), f"bias{layer}": bias.detach().numpy()}
    return {key: np.ascontiguousarray(value, np.float32) for key, value in arrays.items()}


def _forward(h: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor]) -> torch.Tensor:
    import torch

    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = torch.baddbmm(bias, h, weight)
        if layer < 3:
            h = torch.relu(h)
    return h.squeeze(2)
