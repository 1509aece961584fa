"""The models of accuracies: a row each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ofa_deploy.accuracy.predictors.concave import Concave, ConcaveModel
from ofa_deploy.accuracy.predictors.gp import GP, GPModel
from ofa_deploy.accuracy.predictors.mlp import MLP, MLPModel
from ofa_deploy.accuracy.predictors.model import Model, Recipe
from ofa_deploy.accuracy.predictors.official import OfficialModel
from ofa_deploy.accuracy.predictors.ridge import Ridge, RidgeModel


class Kind(NamedTuple):
    """A kind of model: what it predicts, and how it is fitted; None where it is only read from files."""

    model: type[Model]
    recipe: type[Recipe] | None


MODELS: Mapping[str, Kind] = {
    "ridge": Kind(RidgeModel, Ridge),
    "gp": Kind(GPModel, GP),
    "concave": Kind(ConcaveModel, Concave),
    "mlp": Kind(MLPModel, MLP),
    "official": Kind(OfficialModel, None),
}
"""By the name that files and commands call them."""

RECIPES: Mapping[str, type[Recipe]] = {name: kind.recipe for name, kind in MODELS.items() if kind.recipe is not None}
"""The kinds that can be fitted, in the order in which they are compared."""
