"""The fitted predictor as a file: one model, or the mean of several, with calibrated intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from ofa_deploy.accuracy.predictors import features, official
from ofa_deploy.accuracy.predictors.gains import MODELS as GAINS
from ofa_deploy.accuracy.predictors.gains import Gains
from ofa_deploy.accuracy.predictors.inference import MODELS, Array, Arrays, predict, prepared
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import artifacts
from ofa_deploy.files.json_text import Json
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

KIND = "accuracy-predictor"
NORMAL_90 = 1.645
"""Standard deviations on either side of the mean that hold 90 % of a normal distribution."""

DOUBTFUL_TAU = 0.3
"""See `Predictor.doubt`."""
CHUNK = 4096
"""Architectures that are predicted at a time, which bounds memory."""


@dataclass(frozen=True)
class Predictor:
    """Top-1 accuracy from an architecture.

    Attributes:
        space: the search space.
        parts: the models whose mean is predicted: name in `inference.MODELS` and arrays of each.
        widen: factor of the standard deviation that lets 90 % of samples lie within `NORMAL_90` of it.
        error: on samples that were not fitted: rmse_points, kendall_tau, ...
        sha256: of the file that it was read from; empty for one just fitted.
        weights_sha256: of the supernet whose subnetworks were measured; None where that is not known.
    """

    space: SearchSpace
    parts: tuple[tuple[str, Arrays], ...]
    widen: float = 1.0
    error: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    weights_sha256: str | None = None

    @property
    def model(self) -> str:
        """Names of the models in alphabetical order, joined by `+`."""
        return "+".join(sorted(name for name, _ in self.parts))

    @overload
    def predict(self, genes: Genes, *, return_std: Literal[False] = False) -> Floats: ...
    @overload
    def predict(self, genes: Genes, *, return_std: Literal[True]) -> tuple[Floats, Floats]: ...
    def predict(self, genes: Genes, *, return_std: bool = False) -> Floats | tuple[Floats, Floats]:
        """Top-1 accuracy in percent, shape (n,), of genes of shape (n, columns).

        Args:
            genes: of the networks.
            return_std: give a pair of that and its standard deviation in points, shape (n,), which takes longer; NaN
                where a model does not know how sure it is.
        """
        mean, std = blend(self._each(genes, return_std))
        return (mean, std * self.widen) if return_std else mean

    def gains(self, genes: Genes) -> Floats:
        """What each of the m changes of `SearchSpace.changes` adds to `predict`, roughly, shape (n, m).

        For a search that looks for the best changes: thousands are told as quickly as a few are predicted. Those that
        are not possible (a block where the stage has none) have some number.
        """
        return np.asarray(np.mean([told(genes) for told in self._gains], axis=0))

    @cached_property
    def _gains(self) -> list[Gains]:
        return [GAINS[name](self.space, arrays) for name, arrays in self._ready]

    @cached_property
    def _ready(self) -> list[tuple[str, Arrays]]:
        return [(name, prepared(name, arrays)) for name, arrays in self.parts]

    def _each(self, genes: Genes, spread: bool) -> list[tuple[Floats, Floats]]:
        if len(genes) > CHUNK:
            chunks = [self._each(genes[i : i + CHUNK], spread) for i in range(0, len(genes), CHUNK)]
            return [
                (np.concatenate([mean for mean, _ in part]), np.concatenate([std for _, std in part]))
                for part in zip(*chunks, strict=True)
            ]
        own = features(self.space, genes) if self.model != "official" else np.zeros((0, 0), np.float32)
        return [
            predict(name, arrays, official.features(self.space, genes, arrays) if name == "official" else own, spread)
            for name, arrays in self._ready
        ]

    @property
    def doubt(self) -> str | None:
        """What should keep a user from relying on the predictor; None where nothing does."""
        if (tau := self.error.get("kendall_tau", 1.0)) < DOUBTFUL_TAU:
            return f"this predictor hardly tells good networks from bad ones (Kendall's tau {tau:.2f}): measure more"
        return None

    def save(self, path: Path | str, details: Mapping[str, Any] | None = None) -> Json:
        """Write safetensors and their JSON, with `details`."""
        from safetensors.numpy import save

        arrays: dict[str, Array] = {f"{name}.{key}": value for name, part in self.parts for key, value in part.items()}
        plain = {key: np.ascontiguousarray(value) for key, value in arrays.items()} | {"widen": np.array([self.widen])}
        about = {"model": self.model, "error": dict(self.error), **(details or {})}
        return artifacts.save(Path(path), save(plain), KIND, self.space.name, about)

    @classmethod
    def load(cls, path: Path | str, space: SearchSpace | None = None) -> Predictor:
        """Read what `save` wrote.

        Args:
            path: of the `.safetensors` file; its JSON lies beside it.
            space: that it must be of; None takes the one that the JSON names.

        Raises:
            ArtifactError: it is missing, damaged, of another space, or not such a predictor.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = Path(path)
        data, about = artifacts.load(path, KIND, space.name if space else None)
        space = space or get_space(about["space"])
        try:
            arrays = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error
        try:
            parts: dict[str, dict[str, Array]] = {}
            for key, value in arrays.items():
                name, _, rest = key.partition(".")
                if name in MODELS:
                    parts.setdefault(name, {})[rest] = value
            widen = float(arrays["widen"][0])
            made = cls(
                space, tuple(parts.items()), widen, about.get("error", {}), about["sha256"], about.get("weights_sha256")
            )
            genes = space.genes([space.extreme(True)])
            unknown = made.model == "official"  # such a predictor does not say how sure it is
            fits = bool(parts) and bool(
                np.isfinite(made.predict(genes) if unknown else made.predict(genes, return_std=True)).all()
            )
        except (KeyError, ValueError, IndexError, TypeError, ArithmeticError, np.linalg.LinAlgError):
            fits = False
        if not fits:
            raise ArtifactError(
                f"{path} does not fit the space {space.name}; fit it anew with ofa-deploy fit-predictor"
            )
        return made


def blend(each: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Mean of several predictions, and the root of their mean variance."""
    means, stds = zip(*each, strict=True)
    return np.mean(means, axis=0), np.sqrt(np.mean(np.square(stds), axis=0))
