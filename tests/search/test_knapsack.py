"""What dynamic programming finds, against every network of a small space."""

import numpy as np
import pytest

from ofa_deploy.search.knapsack import best_within
from ofa_deploy.search.limits import latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.surrogates import seeds, surrogate
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table
from tests.search.conftest import everything


def test_the_spaces_are_enumerated_whole(tiny: SearchSpace, wide: SearchSpace) -> None:
    assert len(np.unique(everything(tiny), axis=0)) == 2 * (4 + 16) * (4 + 16)
    assert len(np.unique(everything(wide), axis=0)) == 2 * 2 * 6 * 6 * 8


@pytest.mark.parametrize("dearest", [False, True])
def test_extremes_of_an_additive_cost(small: SearchSpace, *, dearest: bool) -> None:
    rng = np.random.default_rng(0)
    cost = small.cost({op: float(rng.uniform(-1, 5)) for op in small.all_ops()}.__getitem__)
    whole = cost(everything(small))
    genes, value = extreme(small, cost, dearest=dearest)
    assert value == pytest.approx(whole.max() if dearest else whole.min())
    assert cost(genes)[0] == pytest.approx(value)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_within_a_budget(small: SearchSpace, seed: int) -> None:
    """Costs and values are whole numbers, which steps of the budget hold exactly: so is the answer."""
    rng = np.random.default_rng(seed)
    ops = small.all_ops()
    cost = small.cost({op: float(rng.integers(0, 20)) for op in ops}.__getitem__)
    value = small.cost({op: float(rng.normal()) for op in ops}.__getitem__)
    whole = everything(small)
    costs, values = cost(whole), value(whole)
    for limit in np.quantile(costs, [0.02, 0.3, 0.9]).round().tolist():
        for resolution in range(len(small.resolutions)):
            possible = (costs <= limit) & (whole[:, 0] == resolution)
            bins = int(limit - cost.fixed[resolution])
            if bins <= 0:
                continue
            found = best_within(small, value, cost, [limit], bins)
            own = found[found[:, 0] == resolution]
            assert len(own) == possible.any()
            if len(own):
                assert cost(own)[0] <= limit
                best = values[possible].max()
                assert value(own)[0] == pytest.approx(best)


def test_rounding_costs_no_answer(small: SearchSpace) -> None:
    """In few steps what fits by rounded costs may be too dear: then a little less is tried."""
    rng = np.random.default_rng(0)
    whole = everything(small)
    for _ in range(10):
        worth, dear = ({op: rng.uniform(0.1, 1) for op in small.all_ops()} for _ in range(2))
        cost, value = small.cost(dear.__getitem__), small.cost(worth.__getitem__)
        limit = float(np.quantile(cost(whole), 0.5))
        found = best_within(small, value, cost, [limit], 25)
        assert set(found[:, 0]) == {0, 1}
        assert (cost(found) <= limit).all()


def test_operators_may_cost_less_than_nothing(small: SearchSpace) -> None:
    """As in a calibrated table; the answer is at least what is possible where they cost nothing."""
    rng = np.random.default_rng(0)
    ops = small.all_ops()
    costs_of_ops = {op: float(rng.integers(-5, 20)) for op in ops}
    cost, never_less = (small.cost(lambda op, least=least: max(least, costs_of_ops[op])) for least in (-np.inf, 0))
    value = small.cost({op: float(rng.normal()) for op in ops}.__getitem__)
    whole = everything(small)
    limit = float(np.quantile(cost(whole), 0.5).round())
    found = best_within(small, value, cost, [limit], 2000)
    assert set(found[:, 0]) == {0, 1}
    assert (cost(found) <= limit).all()
    for row, reached in zip(found, value(found), strict=True):
        possible = (never_less(whole) <= limit) & (whole[:, 0] == row[0])
        assert reached >= value(whole[possible]).max() - 1e-9


def test_a_surrogate_of_a_sum_is_that_sum(small: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    one_choice = {gene: rng.normal() for gene in range(20)}
    whole = everything(small)
    slots = len(small.slots)
    truth = np.array(
        [sum(one_choice[g] * (i + 1) for i, g in enumerate(row[1 : 1 + slots]) if g) for row in whole.tolist()]
    )
    made = surrogate(small, whole, truth, small.macs)(whole)
    assert np.std(made - truth) < 0.02 * np.std(truth)


def test_seeds_keep_the_limit_and_are_good(tiny: SearchSpace) -> None:
    table = made_up_table(tiny)
    whole = everything(tiny)
    limit = latency_limit(table, "40%", margin_percent=0)
    found = seeds(Problem(tiny, [limit]), whole)
    assert (table.latency_ms(found) <= limit.upper * (1 + 1e-9)).all()
    assert set(found[:, 0]) == {0, 1}
    best = tiny.macs(whole[table.latency_ms(whole) <= limit.upper]).max()
    assert tiny.macs(found).max() == pytest.approx(best, rel=0.02)
