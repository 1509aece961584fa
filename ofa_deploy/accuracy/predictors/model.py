"""What every model of accuracies has: what it predicts from its arrays, and a recipe that fits it.

A model is one file of this package and one row of `kinds.MODELS`. Predicting takes numpy alone; a recipe imports what
it fits with inside its methods, so that a search loads neither PyTorch nor scikit-learn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.encoding import FeatureLayout, features
from ofa_deploy.spaces.space import SearchSpace

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Gains = Callable[[Genes], Floats]
"""Points that each of the m changes of `SearchSpace.changes` adds, roughly: shape (n, columns) to shape (n, m)."""


class Model(ABC):
    """A fitted model: plain functions of its arrays.

    Args:
        arrays: what it was fitted to. All models have `shift` and `scale` of the features, shape (f,), `target` (mean
            and standard deviation of the accuracies in percent) and `noise`, shape (1,): the standard deviation that
            the model leaves unexplained, in units of the target's.
        layout: which columns of the features mean what.
    """

    def __init__(self, arrays: Arrays, layout: FeatureLayout) -> None:
        self.arrays, self.layout = arrays, layout

    @abstractmethod
    def moments(self, x: Array, *, spread: bool) -> tuple[Floats, Floats]:
        """Mean and variance in units of the target, shape (n,) each, from features of shape (n, f).

        Args:
            x: features, as `inputs` gives them.
            spread: whether the variance is needed; without, it is 0.
        """

    def inputs(self, space: SearchSpace, genes: Genes) -> Array:
        """What the model takes of networks, shape (n, f)."""
        return features(space, genes)

    def gains(self, space: SearchSpace) -> Gains | None:
        """A function that estimates all single changes of networks at once; None where the model has none."""
        return None

    def predict(self, x: Array, *, spread: bool = True) -> tuple[Floats, Floats]:
        """Mean and standard deviation in percent, shape (n,) each; without `spread` the deviation is the noise's."""
        mean, variance = self.moments(x, spread=spread)
        shift, scale = self.arrays["target"].tolist()
        return mean * scale + shift, scale * np.sqrt(variance + float(self.arrays["noise"][0]) ** 2)

    def scaled(self, x: Array) -> Array:
        """Features in the scale that the model was fitted in."""
        return np.asarray((x - self.arrays["shift"]) / self.arrays["scale"])

    def points(self, gains: Array) -> Floats:
        """Gains in percentage points, from those in units of the target."""
        return np.asarray(gains * float(self.arrays["target"][1]), np.float64)

    def with_arrays(self, arrays: Arrays) -> Self:
        """The model with more arrays, or others."""
        return type(self)({**self.arrays, **arrays}, self.layout)


@dataclass(frozen=True)
class Labels:
    """Labelled networks to fit.

    Attributes:
        x: features, shape (n, f).
        y: labels, shape (n,).
        weight: inverse variance of each label's noise, shape (n,).
        layout: which columns of the features mean what.
    """

    x: Array
    y: Floats
    weight: Floats
    layout: FeatureLayout

    def rows(self, index: npt.NDArray[np.intp]) -> Labels:
        """Some of them."""
        return replace(self, x=self.x[index], y=self.y[index], weight=self.weight[index])

    def standardised(self) -> tuple[Labels, float, float]:
        """Labels with weighted mean 0 and deviation 1, and what these were."""
        mean = float(np.average(self.y, weights=self.weight))
        scale = float(np.sqrt(np.average((self.y - mean) ** 2, weights=self.weight))) or 1.0
        return replace(self, y=(self.y - mean) / scale), mean, scale

    def scaling(self) -> dict[str, Array]:
        """Shift and scale that standardise the columns of numbers and leave the one-hot ones, shape (f,) each."""
        return scaling(self.x, self.layout)


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How a model is fitted: its settings.

    Attributes:
        seed: of everything random.
    """

    seed: int = 0

    @abstractmethod
    def fit(self, labels: Labels) -> Model:
        """The model of standardised labels."""

    def tuned(self, labels: Labels) -> Self:
        """The recipe with its open settings (None) chosen on these labels, which are in percent."""
        return self


def fit_model(recipe: Recipe, labels: Labels) -> Model:
    """The model of labels in percent, open settings chosen on them."""
    standardised, mean, scale = labels.standardised()
    model = recipe.tuned(labels).fit(standardised)
    return model.with_arrays({"target": np.array([mean, scale])})


def scaling(x: Array, layout: FeatureLayout) -> dict[str, Array]:
    """Shift and scale that standardise the columns of numbers and leave the one-hot ones, shape (f,) each."""
    shift, scale, numbers = np.zeros(x.shape[1]), np.ones(x.shape[1]), layout.numbers
    shift[numbers] = x[:, numbers].mean(axis=0, dtype=np.float64)
    deviation = x[:, numbers].std(axis=0, dtype=np.float64)
    scale[numbers] = np.where(deviation > 1e-6 * (1 + abs(shift[numbers])), deviation, 1)
    return {"shift": shift, "scale": scale}


def unexplained(model: Model, labels: Labels) -> Array:
    """Standard deviation of the residuals at weight 1, shape (1,), in units of the target."""
    mean, _ = model.moments(labels.x, spread=False)
    return np.array([max(float(np.sqrt(np.mean(labels.weight * (labels.y - mean) ** 2))), 1e-4)])
