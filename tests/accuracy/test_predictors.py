"""Accuracy predictors: every model learns, is seeded, says how sure it is; files are checked; sources are merged."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.base import clone
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import cross_val_score, train_test_split
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors.concave import Concave
from ofa_deploy.accuracy.predictors.estimator import Estimator, make_estimator
from ofa_deploy.accuracy.predictors.evaluate import choose, errors, folds, widening
from ofa_deploy.accuracy.predictors.fit import Fitted, fit_predictor, held_out
from ofa_deploy.accuracy.predictors.gp import GP, kernel
from ofa_deploy.accuracy.predictors.kinds import MODELS, RECIPES
from ofa_deploy.accuracy.predictors.mlp import MLP
from ofa_deploy.accuracy.predictors.model import scaling
from ofa_deploy.accuracy.predictors.predictor import KIND, Predictor
from ofa_deploy.accuracy.predictors.ridge import with_products
from ofa_deploy.accuracy.predictors.sources import merge
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.samples import file_name as samples_file
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import artifacts
from ofa_deploy.spaces.encoding import features, layout_of, one_hot
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import SHARED, Run

QUICK = {"steps": 300, "members": 2, "weight_decay": 1.0}


def made_up(space: SearchSpace, n: int, seed: int = 0, noise: float = 0.0) -> Samples:
    rng = np.random.default_rng(seed)
    genes = space.sample(rng, n)
    kernels = one_hot(space, genes)[:, layout_of(space).kernels].reshape(n, 20, 3) @ np.array([0, 0.05, 0.1])
    percent = 70 + 6 * np.log10(space.macs(genes) / 1e6) + kernels.sum(axis=1)
    return Samples(space, genes, percent + noise * rng.standard_normal(n))


def quick(name: str, space: SearchSpace) -> Estimator:
    estimator = make_estimator(name, space)
    return estimator.set_params(recipe=replace(estimator.recipe, **QUICK)) if name in ("concave", "mlp") else estimator


@pytest.fixture(scope="module")
def fitted(space: SearchSpace) -> Fitted:
    return fit_predictor([made_up(space, 400, noise=0.1)], "gp", jobs=1)


@pytest.mark.parametrize("name", RECIPES)
def test_every_model_is_a_scikit_learn_regressor_that_learns(name: str, space: SearchSpace) -> None:
    some, fresh = made_up(space, 200), made_up(space, 100, seed=9)
    x, unseen = features(space, some.genes), features(space, fresh.genes)
    estimator = quick(name, space)
    assert clone(estimator).get_params() == estimator.get_params()
    assert cross_val_score(estimator, x, some.top1_percent, cv=2).min() > 0.8
    mean, std = estimator.fit(x, some.top1_percent).predict(unseen, return_std=True)
    assert estimator.predict(unseen) == pytest.approx(mean, abs=1e-4), "the same without the deviation"
    assert np.sqrt(np.mean((mean - fresh.top1_percent) ** 2)) < 0.25 * fresh.top1_percent.std()
    assert (std > 0).all()
    assert std.shape == mean.shape == (100,)
    again, _ = clone(estimator).fit(x, some.top1_percent).predict(unseen, return_std=True)
    assert (again == mean).all(), "same seed, same result"


@pytest.mark.parametrize("name", RECIPES)
def test_samples_of_little_weight_hardly_count(name: str, space: SearchSpace) -> None:
    some, fresh = made_up(space, 300), made_up(space, 100, seed=9)
    x = features(space, some.genes)
    wrong = np.arange(300) % 2 == 0
    y = some.top1_percent + np.where(wrong, 5 * np.random.default_rng(1).standard_normal(300), 0)
    estimator, unseen = quick(name, space), features(space, fresh.genes)

    def error(weight: np.ndarray | None) -> float:
        return float(np.std(estimator.fit(x, y, sample_weight=weight).predict(unseen) - fresh.top1_percent))

    assert error(np.where(wrong, 1e-4, 1.0)) < 0.5 * error(None)


def test_settings_left_open_are_chosen(space: SearchSpace) -> None:
    some = made_up(space, 60)
    x = features(space, some.genes)
    mlp, concave, gp = (
        Estimator(recipe, layout_of(space)).tuned(x, some.top1_percent).recipe
        for recipe in (MLP(steps=30), Concave(steps=30, weight_decay=0.5), GP())
    )
    assert mlp.weight_decay in (0.3, 1.0, 3.0)
    assert concave.weight_decay == 0.5
    assert gp.log_settings is not None


def test_gaussian_process_is_that_of_the_textbook(space: SearchSpace) -> None:
    some = made_up(space, 80, noise=0.1)
    x, y = features(space, some.genes), some.top1_percent
    fitted = make_estimator("gp", space).tuned(x, y).fit(x[:60], y[:60])
    a = fitted.model_.arrays
    z = fitted.model_.scaled(x).astype(np.float32).astype(float)
    covariance = kernel(a, z[:60], z[:60]) + a["noise"][0] ** 2 * np.eye(60)
    to = kernel(a, z[60:], z[:60])
    shift, scale = a["target"]
    mean, std = fitted.predict(x[60:], return_std=True)
    assert mean == pytest.approx(shift + to @ np.linalg.solve(covariance, y[:60] - shift), abs=2e-3)
    variance = np.diag(kernel(a, z[60:], z[60:]) - to @ np.linalg.solve(covariance, to.T)) + a["noise"][0] ** 2
    assert std == pytest.approx(scale * np.sqrt(variance), rel=1e-3)


def test_gaussian_process_of_many_samples_keeps_some_and_hears_all(space: SearchSpace) -> None:
    some, fresh = made_up(space, 600, noise=0.1), made_up(space, 200, seed=9)
    x, unseen = features(space, some.genes), features(space, fresh.genes)
    settled = Estimator(GP(tune=400), layout_of(space)).tuned(x, some.top1_percent)

    def error(estimator: Estimator, n: int) -> float:
        fitted = estimator.fit(x[:n], some.top1_percent[:n])
        return float(np.std(fitted.predict(unseen) - fresh.top1_percent))

    few = clone(settled).set_params(recipe=replace(settled.recipe, most=150))
    assert len(few.fit(x, some.top1_percent).model_.arrays["inputs"]) == 150
    assert error(few, 600) < 0.8 * error(settled, 150)
    assert error(few, 600) < 1.5 * error(settled, 600)


def test_concave_model_is_concave_in_choices_and_costs(space: SearchSpace) -> None:
    some = made_up(space, 200)
    x = features(space, some.genes)
    fitted = Estimator(Concave(**QUICK), layout_of(space)).fit(x, some.top1_percent)
    a, b = x[:100].astype(float), x[100:].astype(float)
    middle = (a + b) / 2
    middle[:, -2:] = np.log10((10 ** a[:, -2:] + 10 ** b[:, -2:]) / 2)
    assert (fitted.predict(middle) >= (fitted.predict(a) + fitted.predict(b)) / 2 - 1e-6).all()


def test_features_say_what_the_network_is(space: SearchSpace) -> None:
    genes = space.genes([space.extreme(largest=True), space.extreme(largest=False)])
    x = features(space, genes)
    assert layout_of(space).columns == x.shape[1]
    assert x[:, :120].sum(axis=1).tolist() == [40, 20]  # 20 or 10 blocks, a kernel and an expansion each
    assert x[:, -4].tolist() == pytest.approx([0, np.log2(16 / 28)])
    assert 10 ** x[:, -2] == pytest.approx(space.macs(genes), rel=1e-5)
    assert 10 ** x[:, -1] == pytest.approx(space.params(genes), rel=1e-5)


def test_fit_compares_calibrates_and_reports(space: SearchSpace, fitted: Fitted) -> None:
    assert set(fitted.models) == {"gp", "line on log MACs", "published recipe"}
    assert fitted.models["gp"]["rmse_points"] < fitted.models["line on log MACs"]["rmse_points"]
    assert fitted.predictor.error["rmse_points"] == fitted.models["gp"]["rmse_points"]
    fresh = made_up(space, 1000, seed=5, noise=0.1)
    found = held_out(fitted.predictor, fresh)
    assert found["rmse_points"] == pytest.approx(fitted.predictor.error["rmse_points"], rel=0.3)
    assert 85 < found["coverage90_percent"] < 95
    mean, std = fitted.predictor.predict(fresh.genes, return_std=True)
    inside = np.mean(abs(mean - fresh.top1_percent) <= 1.645 * std)
    assert found["coverage90_percent"] == pytest.approx(100 * inside)


def test_auto_takes_the_best_or_its_mean_with_another() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(500)
    parts = folds(np.arange(500)[:, None], 0)
    std = np.ones(500)
    good, also, bad = ((y + s * rng.standard_normal(500), std) for s in (0.2, 0.2, 2.0))
    every = np.ones(500, bool)
    assert choose(y, {"bad": bad, "good": good}, parts, every) == ("good",)
    assert set(choose(y, {"bad": bad, "good": good, "also": also}, parts, every)) == {"good", "also"}
    twin = good[0] + 0.01 * rng.standard_normal(500), std
    other = y + 0.23 * rng.standard_normal(500), std
    assert "other" in choose(y, {"good": good, "twin": twin, "other": other}, parts, every), "its errors are its own"
    first = np.arange(500) < 100
    there = np.where(first, y, bad[0]), std
    assert choose(y, {"good": good, "there": there}, parts, first) == ("there",), "the first source counts"


def test_widening_makes_the_interval_hold_nine_of_ten() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(5000)
    predicted = 1e-6 * y[::-1], np.full(5000, 0.2)
    factor = widening(y, predicted)
    assert factor == pytest.approx(5, rel=0.05)
    assert errors(y, (predicted[0], factor * predicted[1]))["coverage90_percent"] == pytest.approx(90, abs=0.1)


def test_ridge_is_bayesian_ridge_regression_along_other_axes(space: SearchSpace) -> None:
    some, fresh = made_up(space, 400, noise=0.1), made_up(space, 50, seed=9)
    x, unseen = features(space, some.genes), features(space, fresh.genes)
    estimator = make_estimator("ridge", space).fit(x, some.top1_percent)
    layout, scales = layout_of(space), scaling(x, layout_of(space))
    z, unseen_z = (with_products((rows - scales["shift"]) / scales["scale"], layout) for rows in (x, unseen))
    plain = BayesianRidge().fit(z, some.top1_percent)
    centred, unseen_centred = z - z.mean(axis=0), unseen_z - z.mean(axis=0)
    precision = plain.lambda_ * np.eye(z.shape[1]) + plain.alpha_ * centred.T @ centred
    variance = 1 / plain.alpha_ + (unseen_centred * np.linalg.solve(precision, unseen_centred.T).T).sum(axis=1)
    mean, std = estimator.predict(unseen, return_std=True)
    assert mean == pytest.approx(plain.predict(unseen_z), abs=0.02)
    assert std == pytest.approx(np.sqrt(variance), rel=0.05)


def test_ridge_is_fitted_where_the_svd_of_dependent_columns_does_not_converge(space: SearchSpace) -> None:
    """LAPACK, on one thread, gives up on one of these folds of the shipped samples."""
    samples = Samples.load(artifacts.shipped("predictors") / samples_file(space), space)
    x, y = features(space, samples.genes), samples.top1_percent
    with threadpool_limits(1):
        for part, _ in folds(x, 0):
            assert make_estimator("ridge", space).fit(x[part], y[part]).score(x[part], y[part]) > 0.8


def test_the_mean_of_two_models_is_one_predictor(space: SearchSpace, fitted: Fitted, tmp_path: Path) -> None:
    some = made_up(space, 100)
    ridge = make_estimator("ridge", space).fit(features(space, some.genes), some.top1_percent).model_.arrays
    gp = fitted.predictor.fits[0][1]
    both = Predictor(space, (("gp", gp), ("ridge", ridge)), widen=2.0)
    both.save(tmp_path / "p.safetensors", {})
    again = Predictor.load(tmp_path / "p.safetensors", space)
    assert again.model == "gp+ridge"
    x = features(space, some.genes)
    one, two = (MODELS[name].model(arrays, layout_of(space)).predict(x) for name, arrays in both.fits)
    mean, std = again.predict(some.genes, return_std=True)
    assert mean == pytest.approx((one[0] + two[0]) / 2)
    assert std == pytest.approx(2 * np.sqrt((one[1] ** 2 + two[1] ** 2) / 2))
    assert again.predict(some.genes) == pytest.approx(mean)


def test_round_trip(space: SearchSpace, fitted: Fitted, tmp_path: Path) -> None:
    fitted.predictor.save(tmp_path / "p.safetensors", {})
    again = Predictor.load(tmp_path / "p.safetensors", space)
    assert Predictor.load(tmp_path / "p.safetensors").space == space, "which its JSON names"
    genes = space.sample(np.random.default_rng(0), 50)
    assert (again.predict(genes, return_std=True)[0] == fitted.predictor.predict(genes, return_std=True)[0]).all()
    assert (again.predict(genes, return_std=True)[1] == fitted.predictor.predict(genes, return_std=True)[1]).all()
    with pytest.raises(ArtifactError, match="of the space fmnist"):
        Predictor.load(tmp_path / "p.safetensors", get_space("mbv3-w1.0"))


def test_predicting_needs_neither_torch_nor_scikit_learn(space: SearchSpace, fitted: Fitted, tmp_path: Path) -> None:
    fitted.predictor.save(tmp_path / "p.safetensors", {})
    code = (
        "import sys; from pathlib import Path; from ofa_deploy.spaces.families import get_space;"
        "from ofa_deploy.accuracy.predictors.predictor import Predictor; s = get_space('fmnist');"
        f"Predictor.load(Path({str(tmp_path / 'p.safetensors')!r}), s).predict(s.genes([s.extreme(largest=True)]));"
        "print(sorted({'torch', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_what_is_no_predictor_is_refused(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    some = made_up(space, 60)
    recipe = MLP(members=2, hidden=8, steps=30, weight_decay=1.0)
    mlp = Estimator(recipe, layout_of(space)).fit(features(space, some.genes), some.top1_percent)
    whole = {f"mlp.{key}": value for key, value in mlp.model_.arrays.items()} | {"widen": np.ones(1)}
    artifacts.save(path, save(whole), kind=KIND, space="fmnist", details={})
    assert Predictor.load(path, space).model == "mlp"
    lacking = {key: value for key, value in whole.items() if key != "mlp.bias3"}
    broken = whole | {"mlp.bias3": np.full_like(whole["mlp.bias3"], np.nan)}
    for content in (save(lacking), save(broken), save({"widen": np.ones(1)})):
        artifacts.save(path, content, kind=KIND, space="fmnist", details={})
        with pytest.raises(ArtifactError, match="fit it anew"):
            Predictor.load(path, space)
    artifacts.save(path, b"no tensors", kind=KIND, space="fmnist", details={})
    with pytest.raises(ArtifactError, match="damaged"):
        Predictor.load(path, space)


def test_samples_that_nothing_can_be_fitted_on(space: SearchSpace) -> None:
    some = made_up(space, 30)
    with pytest.raises(OfaDeployError, match="at least 20"):
        fit_predictor([Samples(space, some.genes[:19], some.top1_percent[:19])])
    with pytest.raises(OfaDeployError, match="look like fractions"):
        fit_predictor([Samples(space, some.genes, some.top1_percent / 100)])
    with pytest.raises(OfaDeployError, match="nothing to fit"):
        fit_predictor([Samples(space, some.genes, np.full(30, 90.0))])
    with pytest.raises(OfaDeployError, match="or nearly all"):
        fit_predictor([Samples(space, some.genes, np.where(np.arange(30) < 29, 90.0, 91.0))])
    with pytest.raises(OfaDeployError, match="unknown model 'forest'; choose one of auto"):
        fit_predictor([some], "forest")
    twice = Samples(space, some.genes[[*range(30), 3]], some.top1_percent[[*range(30), 4]])
    with pytest.raises(OfaDeployError, match=r"a.csv: r\d+_.* has two accuracies"):
        fit_predictor([twice], names=["a.csv"])


def test_the_same_measurement_twice_counts_once(space: SearchSpace) -> None:
    some = made_up(space, 40)
    rows = [*range(40), 3, 4]
    found = fit_predictor([Samples(space, some.genes[rows], some.top1_percent[rows])], "ridge", jobs=1)
    assert found.predictor.error["fitted"] == 40


def test_sources_differ_by_an_offset_and_in_noise(space: SearchSpace) -> None:
    clean, noisy = made_up(space, 300, seed=1, noise=0.05), made_up(space, 300, seed=2, noise=0.5)
    shifted = Samples(space, noisy.genes, noisy.top1_percent - 1.5)
    merged = merge([clean, shifted])
    assert merged.offsets == pytest.approx((0, -1.5), abs=0.12)
    assert merged.noises[1] == pytest.approx(0.5, rel=0.2)
    assert (merged.weight[:300] == 1).all()
    assert merged.weight[300] == pytest.approx((merged.noises[0] / merged.noises[1]) ** 2)
    assert merged.y[300:] == pytest.approx(noisy.top1_percent, abs=0.12)


def test_offset_of_a_source_that_shares_no_resolution(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)

    def measured(resolutions: list[int], noise: float) -> Samples:
        genes = space.sample(rng, 400, resolutions)
        size = features(space, genes)[:, -4].astype(float)
        costs = features(space, genes)[:, -2].astype(float)
        truth = 80 + 5 * size - 3 * size**2 + 4 * costs  # a parabola in the logarithm of the resolution
        return Samples(space, genes, truth + noise * rng.standard_normal(400))

    first, second = measured([28], 0.05), measured([16, 20, 24], 0.3)
    assert merge([first, second]).offsets[1] == pytest.approx(0, abs=0.2)


def test_intervals_of_merged_samples_are_those_of_the_first_source(space: SearchSpace) -> None:
    clean, noisy = made_up(space, 300, seed=1, noise=0.1), made_up(space, 300, seed=2, noise=0.6)
    found = fit_predictor([clean, noisy], "ridge", jobs=1).predictor
    fresh = made_up(space, 1000, seed=3, noise=0.1)
    assert 84 < held_out(found, fresh)["coverage90_percent"] < 95
    assert found.error["coverage90_percent"] == pytest.approx(90, abs=0.5)


def test_samples_of_two_supernets_are_not_merged(space: SearchSpace) -> None:
    one, two, unknown = (made_up(space, 30, seed=s) for s in range(3))
    one, two = replace(one, weights_sha256="a"), replace(two, weights_sha256="b")
    with pytest.raises(OfaDeployError, match="different supernets"):
        fit_predictor([one, two], "ridge")
    assert fit_predictor([unknown, one], "ridge", jobs=1).predictor.weights_sha256 == "a"


def test_a_network_of_two_sources_is_in_one_fold(space: SearchSpace) -> None:
    x = features(space, made_up(space, 40).genes)
    for fitted, held in folds(np.concatenate([x, x]), 0):
        assert not {i % 40 for i in fitted} & {i % 40 for i in held}
        assert len(fitted) + len(held) == 80


def test_errors_that_are_not_defined_are_left_out() -> None:
    y, std = np.array([1.0, 2.0, 3.0]), np.ones(3)
    found = errors(y, (y, std), np.array([1, 2, 3]))
    assert "kendall_tau_within_resolution" not in found
    assert found["kendall_tau"] == 1
    assert errors(y, (y, std), np.array([1, 1, 3]))["kendall_tau_within_resolution"] == 1


def test_a_predictor_does_not_take_the_json_of_its_samples(space: SearchSpace, tmp_path: Path, ofa: Run) -> None:
    made_up(space, 30).save(tmp_path / "s.csv", {})
    before = (tmp_path / "s.json").read_bytes()
    done = ofa("fit-predictor", "--samples", "s.csv", "--model", "ridge", "--out", "s.safetensors")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "s.json does not belong to s.safetensors" in done.stderr
    assert (tmp_path / "s.json").read_bytes() == before
    (tmp_path / "s.json").unlink()
    done = ofa("fit-predictor", "--samples", "s.csv", "--model", "ridge", "--out", "s.safetensors")
    assert "choose another --out" in done.stderr
    done = ofa("fit-predictor", "--samples", ".")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.skipif(not SHARED.exists(), reason="the published measurements are not beside this checkout")
def test_published_imagenet_accuracies_are_learned() -> None:
    space = get_space("mbv3-w1.0")
    samples = Samples.load(SHARED / "imagenet_mbv3-w1.0_top1_r224.csv", space)
    x, y = features(space, samples.genes), samples.top1_percent
    first, last = train_test_split(np.arange(len(y)), train_size=500, random_state=0)
    found = make_estimator("gp", space).fit(x[first], y[first])
    report = errors(y[last], found.predict(x[last], return_std=True))
    assert report["rmse_points"] < 0.08
    assert report["kendall_tau"] > 0.955
