"""The fitted predictor as a file: one model, or the mean of several, with calibrated intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from ofa_deploy.accuracy.predictors.kinds import MODELS
from ofa_deploy.accuracy.predictors.model import Array, Arrays, Gains, Model
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import artifacts
from ofa_deploy.files.json_text import Json
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.encoding import layout_of
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

KIND = "accuracy-predictor"
DOUBTFUL_TAU = 0.3
"""Kendall's tau below which a predictor hardly tells good networks from bad ones."""
CHUNK = 4096
"""Architectures that are predicted at a time, which bounds memory."""


@dataclass(frozen=True)
class Predictor:
    """Top-1 accuracy from an architecture.

    Attributes:
        space: the search space.
        fits: the models whose mean is predicted: name in `kinds.MODELS` and arrays of each.
        widen: factor of the standard deviation that lets 90 % of samples lie within `NORMAL_90` of it.
        error: on samples that were not fitted: rmse_points, kendall_tau, ...
        sha256: of the file that it was read from; empty for one just fitted.
        weights_sha256: of the supernet whose subnetworks were measured; None where that is not known.
    """

    space: SearchSpace
    fits: tuple[tuple[str, Arrays], ...]
    widen: float = 1.0
    error: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    weights_sha256: str | None = None

    @property
    def model(self) -> str:
        """Names of the models in alphabetical order, joined by `+`."""
        return "+".join(sorted(name for name, _ in self.fits))

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
        mean, std = blend(self._each(genes, spread=return_std))
        return (mean, std * self.widen) if return_std else mean

    @property
    def gains(self) -> Gains | None:
        """A function from genes to what each of the m changes of `SearchSpace.changes` adds to `predict`, shape (n, m).

        It is for a search that looks for the best changes: thousands are estimated as quickly as a few are predicted.
        Those that are not possible (a block where the stage has none) have some number. None where a model has none.
        """
        functions = [function for function in self._gains if function is not None]
        if len(functions) < len(self._gains):
            return None
        return lambda genes: np.asarray(np.mean([function(genes) for function in functions], axis=0))

    @cached_property
    def models(self) -> tuple[Model, ...]:
        """The models whose mean is predicted."""
        layout = layout_of(self.space)
        return tuple(MODELS[name].model(arrays, layout) for name, arrays in self.fits)

    @cached_property
    def _gains(self) -> list[Gains | None]:
        return [model.gains(self.space) for model in self.models]

    def _each(self, genes: Genes, *, spread: bool) -> list[tuple[Floats, Floats]]:
        """Mean and standard deviation by each model, chunk by chunk."""
        if len(genes) > CHUNK:
            chunks = [self._each(genes[i : i + CHUNK], spread=spread) for i in range(0, len(genes), CHUNK)]
            return [
                (np.concatenate([mean for mean, _ in pairs]), np.concatenate([std for _, std in pairs]))
                for pairs in zip(*chunks, strict=True)
            ]
        return [model.predict(model.inputs(self.space, genes), spread=spread) for model in self.models]

    @property
    def doubt(self) -> str | None:
        """What should keep a user from relying on the predictor; None where nothing does."""
        if (tau := self.error.get("kendall_tau", 1.0)) < DOUBTFUL_TAU:
            return f"this predictor hardly tells good networks from bad ones (Kendall's tau {tau:.2f}): measure more"
        return None

    def save(self, path: Path | str, details: Mapping[str, Any] | None = None) -> Json:
        """Write safetensors and their JSON, with `details`."""
        from safetensors.numpy import save

        arrays: dict[str, Array] = {f"{name}.{key}": value for name, fit in self.fits for key, value in fit.items()}
        plain = {key: np.ascontiguousarray(value) for key, value in arrays.items()} | {"widen": np.array([self.widen])}
        description = {"model": self.model, "error": dict(self.error), **(details or {})}
        return artifacts.save(Path(path), save(plain), kind=KIND, space=self.space.name, details=description)

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
        data, description = artifacts.load(path, KIND, space=space.name if space else None)
        space = space or get_space(description["space"])
        try:
            arrays = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error
        try:
            predictor = cls(
                space,
                _fits(arrays),
                float(arrays["widen"][0]),
                description.get("error", {}),
                description["sha256"],
                description.get("weights_sha256"),
            )
            usable = _gives_numbers(predictor)
        except (KeyError, ValueError, IndexError, TypeError, ArithmeticError, np.linalg.LinAlgError):
            usable = False
        if not usable:
            raise ArtifactError(
                f"{path} does not fit the space {space.name}; fit it anew with ofa-deploy fit-predictor"
            )
        return predictor


def _fits(arrays: Arrays) -> tuple[tuple[str, Arrays], ...]:
    """The arrays of each model of a file, where they are named `model.array`."""
    fits: dict[str, dict[str, Array]] = {}
    for key, value in arrays.items():
        name, _, rest = key.partition(".")
        if name in MODELS:
            fits.setdefault(name, {})[rest] = value
    return tuple(fits.items())


def _gives_numbers(predictor: Predictor) -> bool:
    """Whether a predictor has models, and what they predict of a network are numbers."""
    if not predictor.fits:
        return False
    genes = predictor.space.genes([predictor.space.extreme(largest=True)])
    if predictor.model == "official":  # which does not say how sure it is
        return bool(np.isfinite(predictor.predict(genes)).all())
    return bool(np.isfinite(predictor.predict(genes, return_std=True)).all())


def blend(each: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Mean of several predictions, and the root of their mean variance."""
    means, stds = zip(*each, strict=True)
    return np.mean(means, axis=0), np.sqrt(np.mean(np.square(stds), axis=0))
