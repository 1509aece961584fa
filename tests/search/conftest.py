"""What the tests of the search share: spaces that can be enumerated, and a score that no sum explains."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.parts import Layer, Stage
from ofa_deploy.spaces.space import SearchSpace


def everything(space: SearchSpace) -> Genes:
    """Genes of every network of a small space."""
    stages = [
        [blocks for depth in stage.depths for blocks in itertools.product(stage.choices, repeat=depth)]
        for stage in space.stages
    ]
    return space.genes(
        Arch(r, tuple(s), w)
        for r in space.resolutions
        for s in itertools.product(*stages)
        for w in itertools.product(*space.widths)
    )


def rugged(genes: Genes) -> Floats:
    """A score with interactions that no sum over blocks explains."""
    weights = np.random.default_rng(5).standard_normal((genes.shape[1], 40))
    return np.asarray(np.sin(genes @ weights).sum(axis=1) + 0.5 * (genes > 0).sum(axis=1))


class Rugged:
    """A predictor of that score; the more MACs a network has, the less sure it is."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def predict(self, genes: Genes, *, return_std: bool = False) -> Any:
        scores = self.score(genes)
        return (scores, self.space.macs(genes) / 1e4) if return_std else scores

    def score(self, genes: Genes) -> Floats:
        """What it predicts, shape (n,)."""
        return rugged(genes)


@pytest.fixture(scope="session")
def wide() -> SearchSpace:
    """A small space with elastic widths and a stage that can be left out: 2 * 2 * 6 * 6 * 8 = 1,152 networks."""
    shape = {"depths": (1, 2), "kind": "bottleneck", "kernels": (3,), "expands": (0.25, 0.5)}
    parts = (
        Layer("input_stem.0", "conv", (8, 16), 3, 2, "relu"),
        Stage(0, 1, "relu", depths=(0, 1), kind="conv", kernels=(3,), expands=(1,), names=("input_stem.1",)),
        Layer("max_pooling", "maxpool", kernel=3, stride=2),
        Stage((16, 24), 1, "relu", **shape),
        Stage((24, 32), 2, "relu", **shape),
        Layer("global_avg_pool", "pool"),
    )
    return SearchSpace("wide", (16, 24), 1, 3, parts)


@pytest.fixture(params=["tiny", "wide"])
def small(request: pytest.FixtureRequest) -> SearchSpace:
    """Each of the spaces that can be enumerated."""
    space: SearchSpace = request.getfixturevalue(request.param)
    return space
