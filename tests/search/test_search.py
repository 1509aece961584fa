"""The search: right, seeded, bounded, and honest about what cannot be met."""

import dataclasses
import random
import re

import numpy as np
import pytest

from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.feasibility import check_feasible
from ofa_deploy.search.front import front_of
from ofa_deploy.search.limits import Limit, cost_limit, excess, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.run import explore, find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.costs import AdditiveCost, Floats, Genes
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table
from tests.search.conftest import Rugged, everything, rugged

QUICK, SHORT = SearchSettings(population=20, restarts=1), Stopping(generations=10)


def quick(problem: Problem, settings: SearchSettings = QUICK, *, front: bool = False) -> SearchResult:
    """A short search."""
    return find_network(problem, settings, stopping=SHORT, front=front)


def largest(
    table: LatencyTable, budget: str, settings: SearchSettings = QUICK, margin: float | None = None
) -> SearchResult:
    """The network of most MACs within a latency."""
    return quick(Problem(table.space, [latency_limit(table, budget, margin_percent=margin)]), settings)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("name", ["tiny", "wide"])
def test_finds_the_optimum_of_a_space_that_can_be_enumerated(
    name: str, restarts: int, share: float, seed: int, request: pytest.FixtureRequest
) -> None:
    space: SearchSpace = request.getfixturevalue(name)
    table, whole = made_up_table(space), everything(space)
    latency = table.latency_ms(whole)
    budget = float(np.quantile(latency, share))
    settings, stopping = SearchSettings(population=60, restarts=restarts, seed=seed), Stopping(patience=60)
    problem = Problem(space, [Limit("latency", table.cost, upper=budget)], Rugged(space))
    found = find_network(problem, settings, stopping=stopping, risk=0)
    assert table.latency_ms(space.genes([found.arch]))[0] <= budget * (1 + 1e-9)
    assert found.score == pytest.approx(rugged(whole[latency <= budget]).max(), abs=1e-3)
    assert found.evaluations <= len(whole)


def test_several_limits_and_lower_ends(tiny: SearchSpace) -> None:
    whole = everything(tiny)
    costs = {name: cost_limit(tiny, name, budget="100%").cost(whole) for name in ("macs", "params")}
    limits = [cost_limit(tiny, "macs", budget="30%..60%"), cost_limit(tiny, "params", budget="50%")]
    within = np.ones(len(whole), bool)
    for limit in limits:
        within &= (costs[limit.name] >= limit.lower) & (costs[limit.name] <= limit.upper)
    assert 0 < within.sum() < 400
    settings, stopping = SearchSettings(population=60), Stopping(patience=60)
    found = find_network(Problem(tiny, limits, Rugged(tiny)), settings, stopping=stopping, risk=0)
    assert found.score == pytest.approx(rugged(whole[within]).max(), abs=1e-3)
    assert [limit.name for limit in found.limits] == ["macs", "params"]
    for outcome, limit in zip(found.limits, limits, strict=True):
        assert outcome.predicted == pytest.approx(limit.cost(tiny.genes([found.arch]))[0], abs=1e-5)
        assert outcome.upper == pytest.approx(limit.upper, abs=1e-5)


def test_limits_that_exclude_each_other_are_refused_before_the_search(tiny: SearchSpace) -> None:
    """Never where a network is within them all; where none is, mostly: the space is small and full of gaps."""
    whole, rng = everything(tiny), np.random.default_rng(0)
    slow = made_up_table(tiny)
    proved = impossible = 0
    for _ in range(60):
        low, high, third = rng.uniform(5, 95, 3)
        limits = [
            cost_limit(tiny, "macs", budget=f"{low:.1f}%"),
            cost_limit(tiny, "params", budget=f"{high:.1f}%.."),
            latency_limit(slow, f"{third:.1f}%", margin_percent=1.0),
        ]
        none = excess(limits, whole).min() > 0
        impossible += none
        try:
            check_feasible(tiny, limits)
        except InfeasibleError as error:
            assert none, limits
            assert re.search(r"no network of tiny is within all limits at once; the closest, r\d", str(error))
            proved += 1
    assert 10 < impossible < 50
    assert proved > 0.7 * impossible


def test_limits_that_exclude_each_other(tiny: SearchSpace) -> None:
    with pytest.raises(InfeasibleError, match=r"within all limits at once; the closest, r.* has .*macs .* M; relax"):
        quick(
            Problem(
                tiny,
                [latency_limit(made_up_table(tiny), "1%", margin_percent=0), cost_limit(tiny, "macs", budget="99%..")],
            )
        )


def test_one_network_for_two_devices(space: SearchSpace) -> None:
    one, other = made_up_table(space), made_up_table(space)
    slow_kernels = {op: dataclasses.replace(row, latency_ms=row.latency_ms * op.kernel) for op, row in one.rows.items()}
    other = dataclasses.replace(one, rows=slow_kernels)
    limits = [latency_limit(one, "30%", margin_percent=None), latency_limit(other, "20%", margin_percent=None)]
    both = quick(Problem(space, limits))
    genes = space.genes([both.arch])
    for limit, outcome in zip(limits, both.limits, strict=True):
        assert limit.cost(genes)[0] * 1.02 <= limit.upper
        assert outcome.predicted == pytest.approx(limit.cost(genes)[0], abs=1e-5)
    assert both.score <= min(quick(Problem(space, [limit])).score for limit in limits)


def test_a_front_is_the_front(tiny: SearchSpace) -> None:
    table, whole = made_up_table(tiny), everything(tiny)
    latency, scores = table.latency_ms(whole), rugged(whole)
    limit = latency_limit(table, "70%", margin_percent=0)
    settings, stopping = SearchSettings(population=60), Stopping(60, patience=60)
    found = find_network(Problem(tiny, [limit], Rugged(tiny)), settings, stopping=stopping, risk=0, front=True)
    within = latency <= limit.upper * (1 + 1e-9)
    expected = front_of(scores[within], latency[within])
    assert [point.score for point in found.front] == pytest.approx(scores[within][expected], abs=1e-3)
    assert [point.costs["latency_ms"] for point in found.front] == pytest.approx(latency[within][expected], abs=1e-5)
    assert found.arch == found.front[-1].arch
    frame = found.front_frame()
    assert list(frame.columns) == ["arch", "score", "latency_ms", "macs", "params"]
    assert frame["score"].tolist() == [point.score for point in found.front]


def test_risk_prefers_what_is_surer(tiny: SearchSpace) -> None:
    limit = [cost_limit(tiny, "macs", budget="100%")]
    problem = Problem(tiny, limit, Rugged(tiny))
    bold, careful = (find_network(problem, SearchSettings(population=60), risk=risk) for risk in (0.0, 10.0))
    whole = everything(tiny)
    mean, std = Rugged(tiny).predict(whole, return_std=True)
    assert bold.score == pytest.approx(mean.max(), abs=1e-3)
    assert careful.score == pytest.approx(mean[np.argmax(mean - 10 * std)], abs=1e-3)
    assert careful.score < bold.score
    assert careful.score_std == pytest.approx(std[np.argmax(mean - 10 * std)], abs=1e-3)
    for wrong in (-1.0, 11.0, float("nan")):
        with pytest.raises(OfaDeployError, match="--risk"):
            find_network(problem, QUICK, stopping=SHORT, risk=wrong)


def test_same_seed_same_answer_and_the_caller_s_random_is_untouched(space: SearchSpace) -> None:
    table = made_up_table(space)
    random.seed(1)
    before = random.getstate()
    for front in (False, True):
        problem = Problem(space, [latency_limit(table, "30%", margin_percent=None)], Rugged(space))
        settings = dataclasses.replace(QUICK, restarts=0)
        first, again = (quick(problem, settings, front=front) for _ in range(2))
        assert first == again
        assert random.getstate() == before
        other = quick(problem, dataclasses.replace(settings, seed=1), front=front)
        assert other.history != first.history


def test_result_keeps_its_promise(space: SearchSpace) -> None:
    table = made_up_table(space)
    result = largest(table, "30%")
    genes = space.genes([result.arch])
    limit = result.limits[0]
    assert limit.predicted == pytest.approx(table.latency_ms(genes)[0], abs=1e-5)
    assert limit.predicted * 1.02 <= limit.upper + 1e-5  # both are rounded
    assert limit.margin_percent == 2.0
    assert (result.macs, result.params) == (space.macs(genes)[0], space.params(genes)[0])
    assert list(result.history) == sorted(result.history)
    without = largest(table, f"{limit.upper}ms", margin=0)
    assert without.score >= result.score


def test_more_budget_is_never_worse(space: SearchSpace) -> None:
    scores = [largest(made_up_table(space), share).score for share in ("5%", "40%", "100%")]
    assert scores == sorted(scores)
    most = space.genes([space.extreme(largest=True)])
    assert scores[-1] > 0.9 * space.macs(most)[0] / 1e6


def test_infeasible_budget_names_the_fastest_network(space: SearchSpace) -> None:
    table = made_up_table(space)
    fastest, fastest_ms = extreme(space, table.cost)
    with pytest.raises(InfeasibleError) as caught:
        largest(table, "1us")
    assert str(space.archs(fastest)[0]) in str(caught.value)
    advised = re.search(r"needs ([0-9.]+ ms)", str(caught.value))
    assert advised is not None
    for budget in (advised[1], "0%", f"{fastest_ms * 1.02 + 1e-9}ms"):
        assert largest(table, budget).arch == space.archs(fastest)[0]


def test_tables_without_a_common_resolution_are_refused(space: SearchSpace) -> None:
    limits = [latency_limit(made_up_table(space, sizes), "50%") for sizes in ((16, 20), (24,))]
    with pytest.raises(InfeasibleError, match=r"no resolution in common \(16, 20; 24 pixels\)"):
        quick(Problem(space, limits))


def test_a_range_is_about_latencies_with_the_margin(space: SearchSpace) -> None:
    """Else a range that is narrower than the margin has no network, and its share has none at the upper end."""
    table = made_up_table(space)  # a margin of 2 %
    found = quick(Problem(space, [latency_limit(table, "0.4ms..0.404ms")]))
    assert 0.4 <= 1.02 * table.latency_ms(space.genes([found.arch]))[0] <= 0.404
    whole = quick(Problem(space, [latency_limit(table, "99%..100%")]))
    assert whole.macs > 0.9 * space.macs(space.genes([space.extreme(largest=True)]))[0]


def test_a_lower_end_that_nothing_reaches_names_the_largest_network(space: SearchSpace) -> None:
    most, macs = extreme(space, space.macs, dearest=True)
    with pytest.raises(InfeasibleError, match=f"the largest, {space.archs(most)[0]}, has") as caught:
        quick(Problem(space, [cost_limit(space, "macs", budget="1G..")]))
    advised = re.search(r"has ([0-9.]+) M", str(caught.value))
    assert advised is not None
    found = quick(Problem(space, [cost_limit(space, "macs", budget=f"{advised[1]}M..")]))
    assert found.macs == macs


def test_only_resolutions_of_the_table_are_searched(space: SearchSpace) -> None:
    table = made_up_table(space, (20,))
    assert largest(table, "50%").arch.resolution == 20
    assert largest(table, "50%", dataclasses.replace(QUICK, restarts=0)).arch.resolution == 20


def test_everything_that_is_evaluated_is_a_network(space: SearchSpace) -> None:
    """No stage has a block after one that is not active."""
    limit = latency_limit(made_up_table(space), "50%", margin_percent=None)
    settings = dataclasses.replace(QUICK, restarts=4, recombinations=20)
    seen = explore(Problem(space, [limit]), settings, SHORT).archive.genes
    assert len(seen) > 5000
    assert (space.genes(space.archs(seen)) == seen).all()


def test_a_search_ends_soon_and_says_what_it_does(space: SearchSpace) -> None:
    problem = Problem(space, [cost_limit(space, "macs", budget="50%")])
    settings = SearchSettings(population=40, restarts=0, recombinations=0)
    found = find_network(problem, settings, stopping=Stopping(1000, patience=5))
    assert found.stopped_by == "patience"
    assert found.history[-6:] == (found.history[-1],) * 6
    assert len(found.history) < 200


def test_search_and_predictor_of_different_spaces(space: SearchSpace) -> None:
    other = Rugged(get_space("mbv3-w1.0"))
    with pytest.raises(OfaDeployError, match=r"search is in fmnist, the predictor of mbv3-w1\.0"):
        Problem(space, [cost_limit(space, "macs", budget="50%")], other)


@pytest.mark.parametrize(
    "wrong", [{"population": 2}, {"tournament": 0}, {"mutate": 0.0}, {"mutate": 2.0}, {"restarts": -1}]
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(OfaDeployError, match=r"(population|tournament|restarts) of at least|\(0, 1\]"):
        SearchSettings(**wrong)  # type: ignore[arg-type]


def test_limits_of_a_cost_with_gaps(space: SearchSpace) -> None:
    """A network of a resolution that the table lacks is outside of the limit, however large that is."""
    cost: AdditiveCost = made_up_table(space, (20,)).cost
    genes: Genes = space.sample(np.random.default_rng(0), 50)
    excess_shares: Floats = Limit("latency", cost, upper=1e9).excess(genes)
    assert (np.isinf(excess_shares) == (genes[:, 0] != space.resolutions.index(20))).all()
