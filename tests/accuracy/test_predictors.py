"""The accuracy predictor: it learns, it is seeded, its file is checked."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ofa_deploy import artifacts
from ofa_deploy.accuracy.predictors.mlp import KIND, MLPPredictor, Settings, fit
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.families import get_space
from ofa_deploy.official import from_ofa
from ofa_deploy.space import SearchSpace
from tests.conftest import SHARED

QUICK = Settings(members=3, hidden=64, steps=600, weight_decay=1.0)


def made_up(space: SearchSpace, n: int, seed: int = 0) -> Samples:
    genes = space.sample(np.random.default_rng(seed), n)
    kernels = space.encode(genes)[:, :60].reshape(n, 20, 3) @ np.array([0, 0.05, 0.1])
    return Samples(space, genes, 70 + 6 * np.log10(space.macs(genes) / 1e6) + kernels.sum(axis=1))


@pytest.fixture(scope="module")
def predictor(space: SearchSpace) -> MLPPredictor:
    return fit(made_up(space, 400), QUICK)


def test_it_predicts_what_it_has_not_seen(space: SearchSpace, predictor: MLPPredictor) -> None:
    fresh = made_up(space, 300, seed=9)
    mean, std = predictor.predict(fresh.genes)
    error = np.sqrt(np.mean((mean - fresh.top1_percent) ** 2))
    assert error < 0.25 * fresh.top1_percent.std()
    assert predictor.report["rmse_points"] == pytest.approx(error, rel=0.6)
    assert predictor.report["kendall_tau"] > 0.85
    assert 0.5 < np.mean(std) / error < 2


def test_same_seed_same_predictor(space: SearchSpace) -> None:
    a, b = (fit(made_up(space, 60), Settings(members=2, hidden=8, steps=30)) for _ in range(2))
    assert all((a.arrays[key] == b.arrays[key]).all() for key in a.arrays)


def test_round_trip(space: SearchSpace, predictor: MLPPredictor, tmp_path: Path) -> None:
    predictor.save(tmp_path / "p.safetensors", {})
    again = MLPPredictor.load(tmp_path / "p.safetensors", space)
    genes = space.sample(np.random.default_rng(0), 50)
    assert (again.predict(genes)[0] == predictor.predict(genes)[0]).all()
    with pytest.raises(ArtifactError, match="of the space fmnist"):
        MLPPredictor.load(tmp_path / "p.safetensors", get_space("mbv3-w1.0"))


def test_what_is_no_predictor_is_refused(space: SearchSpace, predictor: MLPPredictor, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    lacking = {key: value for key, value in predictor.arrays.items() if key != "bias3"}
    broken = dict(predictor.arrays) | {"bias3": np.full_like(predictor.arrays["bias3"], np.nan)}
    for content in (save(lacking), save(broken)):
        artifacts.save(path, content, KIND, "fmnist", {})
        with pytest.raises(ArtifactError, match="fit it anew"):
            MLPPredictor.load(path, space)
    artifacts.save(path, b"no tensors", KIND, "fmnist", {})
    with pytest.raises(ArtifactError, match="damaged"):
        MLPPredictor.load(path, space)


def test_too_little_to_fit(space: SearchSpace) -> None:
    some = made_up(space, 30)
    with pytest.raises(OfaDeployError, match="at least 20"):
        fit(Samples(space, some.genes[:19], some.top1_percent[:19]))
    with pytest.raises(OfaDeployError, match="nothing to fit"):
        fit(Samples(space, some.genes, np.full(30, 90.0)))
    with pytest.raises(OfaDeployError, match="or nearly all"):
        fit(Samples(space, some.genes, np.where(np.arange(30) < 29, 90.0, 91.0)))


@pytest.mark.skipif(not SHARED.exists(), reason="the published measurements are not beside this checkout")
def test_published_imagenet_accuracies_are_learned() -> None:
    space = get_space("mbv3-w1.0")
    with open(SHARED / "imagenet_mbv3-w1.0_top1_r224.csv") as file:
        rows = list(csv.DictReader(file))
    archs = [from_ofa(space, {key: json.loads(row[key]) for key in ("ks", "e", "d", "r")}) for row in rows]
    percent = np.array([float(row["top1_percent"]) for row in rows])
    report = fit(Samples(space, space.genes(archs), percent), Settings(members=3, steps=800)).report
    assert report["rmse_points"] < 0.14
    assert report["kendall_tau"] > 0.93
