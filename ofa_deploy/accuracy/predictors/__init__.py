"""Accuracy predictors: each model is a file here and a row of `kinds.MODELS`; predicting takes numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, overload, runtime_checkable

from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.space import SearchSpace


class AccuracyPredictor(Protocol):
    """What the search needs of a predictor: `Predictor` has it, and so can any class of a user's."""

    @property
    def space(self) -> SearchSpace:
        """The search space that it is fitted to."""

    @overload
    def predict(self, genes: Genes, *, return_std: Literal[False] = False) -> Floats: ...
    @overload
    def predict(self, genes: Genes, *, return_std: Literal[True]) -> tuple[Floats, Floats]: ...
    def predict(self, genes: Genes, *, return_std: bool = False) -> Floats | tuple[Floats, Floats]:
        """Top-1 accuracy in percent, shape (n,), of genes of shape (n, columns).

        Args:
            genes: of the networks.
            return_std: give a pair of that and its standard deviation in points, shape (n,); NaN where that is not
                known.
        """


@runtime_checkable
class TellsGains(AccuracyPredictor, Protocol):
    """A predictor that estimates all single changes of a network at once, so that the search need not evaluate each."""

    @property
    def gains(self) -> Callable[[Genes], Floats] | None:
        """A function (or a method) from genes to the points that each of the m changes of `SearchSpace.changes` adds.

        It gives these roughly, shape (n, m); None where the predictor cannot estimate them.
        """


def file_name(space: SearchSpace) -> str:
    """Name of a space's predictor inside `predictors/`."""
    return f"{space.name}.safetensors"
