"""The search: right, seeded, bounded, and honest about what cannot be met."""

import dataclasses
import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.arch import Arch
from ofa_deploy.costs import Floats, Genes
from ofa_deploy.errors import ArtifactError, InfeasibleError, OfaDeployError
from ofa_deploy.families import SPACES, get_space
from ofa_deploy.parts import Layer, Stage
from ofa_deploy.search.budget import parse_latency
from ofa_deploy.search.evolve import Settings, evolve
from ofa_deploy.search.knapsack import extreme
from ofa_deploy.search.run import load_result, search
from ofa_deploy.space import SearchSpace
from tests.conftest import made_up_table


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


@pytest.fixture(scope="module")
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


def test_elastic_widths_are_searched(wide: SearchSpace) -> None:
    whole = everything(wide)
    assert len(np.unique(whole, axis=0)) == 2 * 2 * 6 * 6 * 8
    table = made_up_table(wide)
    latency = table.latency_ms(whole)
    archs = wide.archs(whole)
    assert latency == pytest.approx([sum(table.rows[op].latency_ms for op in wide.ops(a)) for a in archs])
    rng = np.random.default_rng(0)
    cost = wide.cost({op: float(rng.uniform(-1, 5)) for op in wide.all_ops()}.__getitem__)
    for dearest, expected in ((False, cost(whole).min()), (True, cost(whole).max())):
        genes, value = extreme(wide, cost, dearest)
        assert value == pytest.approx(expected)
        assert cost(genes)[0] == pytest.approx(expected)
    budget = float(np.quantile(latency, 0.4))
    best, _, _ = evolve(wide, rugged, table.cost, budget, Settings(population=60, patience=60))
    assert rugged(best)[0] == pytest.approx(rugged(whole[latency <= budget]).max())


def rugged(genes: Genes) -> Floats:
    """A score with interactions that no sum over blocks explains."""
    weights = np.random.default_rng(5).standard_normal((genes.shape[1], 40))
    return np.asarray(np.sin(genes @ weights).sum(axis=1) + 0.5 * (genes > 0).sum(axis=1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_finds_the_optimum_of_a_space_that_can_be_enumerated(tiny: SearchSpace, share: float, seed: int) -> None:
    table = made_up_table(tiny)
    whole = everything(tiny)
    latency = table.latency_ms(whole)
    budget = float(np.quantile(latency, share))
    best, _, evaluations = evolve(tiny, rugged, table.cost, budget, Settings(population=60, seed=seed))
    assert table.latency_ms(best)[0] <= budget
    assert rugged(best)[0] == pytest.approx(rugged(whole[latency <= budget]).max())
    assert evaluations <= 800


def test_extremes_of_an_additive_cost(tiny: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    rows = {op: float(rng.uniform(-1, 5)) for op in tiny.all_ops()}
    cost = tiny.cost(rows.__getitem__)
    whole = cost(everything(tiny))
    for dearest, expected in ((False, whole.min()), (True, whole.max())):
        genes, value = extreme(tiny, cost, dearest)
        assert value == pytest.approx(expected)
        assert cost(genes)[0] == pytest.approx(expected)


def test_same_seed_same_answer_and_the_caller_s_random_is_untouched(space: SearchSpace) -> None:
    table = made_up_table(space)
    random.seed(1)
    before = random.getstate()
    settings = Settings(population=20, generations=10)
    first, again = (search(table, None, "30%", settings) for _ in range(2))
    assert first == again
    assert random.getstate() == before
    assert search(table, None, "30%", dataclasses.replace(settings, seed=1)).history != first.history


def test_result_keeps_its_promise(space: SearchSpace) -> None:
    table = made_up_table(space)
    result = search(table, None, "30%", Settings(population=40, generations=30))
    genes = space.genes([result.arch])
    assert result.latency_ms == pytest.approx(table.latency_ms(genes)[0], abs=1e-5)
    assert result.latency_ms * 1.02 <= result.budget_ms
    assert result.margin_percent == 2.0
    assert (result.macs, result.params) == (space.macs(genes)[0], space.params(genes)[0])
    assert [score for score, _ in result.history] == sorted(score for score, _ in result.history)
    assert result.evaluations <= 40 * 31
    without = search(table, None, f"{result.budget_ms}ms", Settings(population=40, generations=30), margin_percent=0)
    assert without.score >= result.score


def test_more_budget_is_never_worse(space: SearchSpace) -> None:
    scores = [search(made_up_table(space), None, share, Settings()).score for share in ("5%", "40%", "100%")]
    assert scores == sorted(scores)
    largest = space.genes([space.extreme(True)])
    assert scores[-1] > 0.9 * space.macs(largest)[0] / 1e6


def test_infeasible_budget_names_the_fastest_network(space: SearchSpace) -> None:
    table = made_up_table(space)
    fastest, fastest_ms = extreme(space, table.cost)
    with pytest.raises(InfeasibleError) as caught:
        search(table, None, "1us", Settings())
    assert str(space.archs(fastest)[0]) in str(caught.value)
    advised = re.search(r"needs ([0-9.]+ ms)", str(caught.value))
    assert advised is not None
    assert search(table, None, advised[1], Settings(population=8, generations=2)).arch == space.archs(fastest)[0]
    assert search(table, None, "0%", Settings(population=8, generations=2)).arch == space.archs(fastest)[0]
    exact = search(table, None, f"{fastest_ms * 1.02 + 1e-9}ms", Settings(population=8, generations=2))
    assert exact.arch == space.archs(fastest)[0]


def test_only_resolutions_of_the_table_are_searched(space: SearchSpace) -> None:
    table = made_up_table(space, (20,))
    assert search(table, None, "50%", Settings(population=20, generations=5)).arch.resolution == 20


def test_table_and_predictor_of_different_spaces(space: SearchSpace) -> None:
    class Other:
        space = get_space("mbv3-w1.0")

        def predict(self, genes: Genes) -> tuple[Floats, Floats]:
            raise AssertionError

    with pytest.raises(OfaDeployError, match=r"table is of fmnist, the predictor of mbv3-w1\.0"):
        search(made_up_table(space), Other(), "30ms", Settings())


@pytest.mark.parametrize("wrong", [{"population": 2}, {"generations": 0}, {"mutate": 0.0}, {"mutate": 2.0}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(OfaDeployError, match=r"at least 4|\(0, 1\]"):
        Settings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30ms", 30),
        ("0.03s", 30),
        ("500us", 0.5),
        ("500 µs", 0.5),
        (" 1.5 MS", 1.5),
        ("0%", 2),
        ("25%", 4),
        (".5s", 500),
    ],
)
def test_budgets(text: str, expected: float) -> None:
    assert parse_latency(text, 2.0, 10.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "word"),
    [("30", "30ms"), ("-5ms", "not a latency"), ("0ms", "positive"), ("30m", "unit"), ("", "not a latency"),
     ("nanms", "not a latency"), ("120%", "slowest"), ("1e3ms", "not a latency"), ("30 minutes", "unit")],
)  # fmt: skip
def test_what_is_no_budget(text: str, word: str) -> None:
    with pytest.raises(OfaDeployError, match=word):
        parse_latency(text, 2.0, 10.0)


def test_result_file(tiny: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES, "tiny", tiny)
    result = search(made_up_table(tiny), None, "50%", Settings(population=8, generations=3))
    path = tmp_path / "r.json"
    path.write_text(result.to_json())
    assert load_result(path) == result
    about = json.loads(result.to_json())
    for change, word in (
        ({"kind": "song"}, "not a search result"),
        ({"schema": 9}, "newer release"),
        ({"settings": {"x": 1}}, "damaged"),
        ({"latency_ms": None}, "damaged"),
        ({"more": 1}, "damaged"),
        ({"arch": None}, "damaged"),
        ({"inputs": {}}, "damaged"),
        ({"schema": "x"}, "newer release"),
    ):
        path.write_text(json.dumps(about | change))
        with pytest.raises(ArtifactError, match=word):
            load_result(path)
