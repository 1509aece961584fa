"""What predictors tell of all changes at once, against predictions of the changed networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ofa_deploy.accuracy.predictors import file_name, kinds, official_files
from ofa_deploy.accuracy.predictors.model import Model
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.files import artifacts
from ofa_deploy.search.evolution import SearchSettings
from ofa_deploy.search.limits import cost_limit
from ofa_deploy.search.local_search import Changes
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.run import find_network
from ofa_deploy.spaces.costs import Genes
from ofa_deploy.spaces.encoding import features
from ofa_deploy.spaces.families import get_space
from tests.accuracy.test_official_predictors import nas_state, sequential
from tests.accuracy.test_predictors import made_up, quick


def open_share(predictor: Predictor, genes: Genes, blocks: bool = False) -> float:
    """Of how predictions differ after the possible changes (of blocks alone, or all), what gains leave open."""
    space = predictor.space
    told, true = [], []
    for row, gains in zip(genes, predictor.gains(genes), strict=True):
        changes = Changes.of(space, row, range(len(space.resolutions)))
        which = np.flatnonzero((changes.columns > 0) | (not blocks))
        told.append(gains[changes.numbers[which]])
        true.append(predictor.predict(changes.applied(row, which)) - predictor.predict(row[None]))
    gains, differences = np.concatenate(told), np.concatenate(true)
    return float(np.sqrt(np.mean((gains - differences) ** 2)) / differences.std())


def fitted(*names: str) -> Predictor:
    space = get_space("mbv3-w1.0")
    some = made_up(space, 200)
    x = features(space, some.genes)
    y = some.top1_percent + 2 * x[:, -4] * x[:, -2] + x[:, -2] ** 2  # resolution and multiply-accumulates
    return Predictor(space, tuple((name, quick(name, space).fit(x, y).model_.arrays) for name in names))


@pytest.mark.parametrize("models", ["concave", "ridge", "concave ridge"])
def test_gains_of_simple_models_are_exact(models: str) -> None:
    predictor = fitted(*models.split())
    assert open_share(predictor, predictor.space.sample(np.random.default_rng(1), 12)) < 1e-4


@pytest.mark.parametrize(
    ("name", "model", "of_blocks", "of_all"), [("fmnist", "gp", 0.025, 0.1), ("mbv3-w1.0", "mlp", 0.016, 0.25)]
)
def test_gains_of_the_shipped_predictors(name: str, model: str, of_blocks: float, of_all: float) -> None:
    space = get_space(name)
    predictor = Predictor.load(artifacts.shipped("predictors") / file_name(space), space)
    assert predictor.model == model
    genes = space.sample(np.random.default_rng(1), 12)
    assert open_share(predictor, genes, blocks=True) < of_blocks
    assert open_share(predictor, genes) < of_all


@pytest.mark.parametrize(("name", "inputs"), [("mbv3-w1.2", 145), ("resnet50d", 82)])
@pytest.mark.parametrize(("bias", "share"), [(10.0, 1e-3), (0.0, 0.6)])
def test_gains_of_official_predictors(name: str, inputs: int, bias: float, share: float, tmp_path: Path) -> None:
    """With a bias that turns all units on but those of the first layer, what follows is linear, and gains are exact."""
    space = get_space(name)
    net = sequential(inputs, False)
    for layer in (net[2], net[4]):
        nn.init.constant_(layer.bias, bias)
    torch.save(nas_state(net, 0.7), tmp_path / "p.pth")
    official_files.convert(tmp_path / "p.pth", space, tmp_path / "p.safetensors")
    predictor = Predictor.load(tmp_path / "p.safetensors", space)
    assert open_share(predictor, space.sample(np.random.default_rng(1), 8)) < share


def test_a_value_that_is_there_gains_nothing() -> None:
    predictor = fitted("mlp", "ridge")
    genes = predictor.space.sample(np.random.default_rng(1), 5)
    columns, values = predictor.space.changes
    same = values == genes[:, columns]
    assert (same.sum(axis=1) == predictor.space.columns).all()
    assert predictor.gains(genes)[same] == pytest.approx(0, abs=1e-4)


class Plain(Model):
    """A model without gains: 1 % for each 10^6 multiply-accumulates."""

    def moments(self, x: np.ndarray, *, spread: bool) -> tuple[np.ndarray, np.ndarray]:
        macs = 10 ** x[:, self.layout.costs.start].astype(float)
        return macs / 1e6, np.zeros(len(x))


def test_a_model_without_gains_is_searched_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.MODELS, "plain", kinds.Kind(Plain, None))
    space = get_space("fmnist")
    arrays = {"target": np.array([0.0, 1.0]), "noise": np.array([0.1])}
    predictor = Predictor(space, (("plain", arrays),))
    assert predictor.gains is None
    ridge = fitted("ridge")
    assert ridge.gains is not None
    both = Predictor(ridge.space, (*predictor.fits, *ridge.fits))
    assert both.gains is None, "a mean with it has none either"
    limit = cost_limit(space, "macs", budget="5M")
    found = find_network(Problem(space, [limit], predictor), SearchSettings(restarts=1))
    assert found.score == pytest.approx(found.macs / 1e6, rel=1e-4)
    assert 4.9 < found.score <= 5
