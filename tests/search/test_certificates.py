"""What is proved about an optimum is true of spaces that can be enumerated."""

import numpy as np
import pytest
import scipy.optimize

from ofa_deploy.accuracy.predictors.concave import with_linear_costs
from ofa_deploy.accuracy.predictors.model import scaling
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.certificates import TOLERANCE, Certificate, certify
from ofa_deploy.search.limits import Limit, excess, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.run import find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.costs import AdditiveCost, Genes
from ofa_deploy.spaces.encoding import features, layout_of
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table
from tests.search.conftest import everything


def concave(space: SearchSpace, seed: int = 0, members: int = 2, units: int = 5) -> Predictor:
    """A made-up predictor of some rugged concave function, in percent around 70."""
    rng = np.random.default_rng(seed)
    layout = layout_of(space)
    x = with_linear_costs(features(space, space.sample(rng, 500)), layout)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    arrays = {
        **scaling(x, layout),
        "slope": normal(members, x.shape[1], 1),
        "level": normal(members, 1, 1),
        "units": normal(members, x.shape[1], units),
        "offsets": normal(members, 1, units),
        "drop": normal(members, units, 1),
        "target": np.array([70.0, 2.0]),
        "noise": np.array([0.1]),
    }
    return Predictor(space, (("concave", arrays),))


def proof(
    predictor: Predictor, bounds: list[Limit], seconds: float = 60.0, incumbent: Genes | None = None
) -> Certificate:
    return certify(Problem(predictor.space, bounds, predictor), seconds, incumbent)


def within(bounds: list[Limit], genes: Genes) -> np.ndarray:
    return excess(bounds, genes) == 0


def limits(space: SearchSpace, case: str) -> list[Limit]:
    """Limits of a case, at quantiles of everything's costs."""
    whole, latency = everything(space), made_up_table(space).cost

    def at(cost: AdditiveCost, lower: float | None, upper: float | None) -> Limit:
        costs = cost(whole)
        return Limit(
            "macs",
            cost,
            -np.inf if lower is None else float(np.quantile(costs, lower)),
            np.inf if upper is None else float(np.quantile(costs, upper)),
        )

    return {
        "none": [],
        "tight": [at(latency, None, 0.05)],
        "loose": [at(latency, None, 0.6)],
        "at least": [at(latency, 0.7, None)],
        "band": [at(latency, 0.3, 0.35)],
        "two costs": [at(latency, 0.2, 0.5), at(space.params, None, 0.3)],
    }[case]


@pytest.mark.parametrize("case", ["none", "tight", "loose", "at least", "band", "two costs"])
@pytest.mark.parametrize("kind", ["tiny", "wide"])
def test_bound_is_the_best_of_everything(kind: str, case: str, request: pytest.FixtureRequest) -> None:
    space: SearchSpace = request.getfixturevalue(kind)
    whole, bounds = everything(space), limits(space, case)
    allowed = whole[within(bounds, whole)]
    for seed in range(3):
        predictor = concave(space, seed)
        best = predictor.predict(allowed).max()
        worst = allowed[[predictor.predict(allowed).argmin()]]
        for incumbent in (None, worst):
            certificate = proof(predictor, bounds, incumbent=incumbent)
            assert certificate.proven
            assert certificate.found_percent == pytest.approx(best, abs=TOLERANCE / 10)
            assert best <= certificate.bound_percent <= certificate.relaxation_percent
            assert certificate.gap_points == certificate.bound_percent - certificate.found_percent <= TOLERANCE
            genes = space.genes([certificate.arch])
            assert predictor.predict(genes)[0] == certificate.found_percent
            assert within(bounds, genes).all()


def test_time_that_runs_out_leaves_a_bound_and_a_gap(tiny: SearchSpace) -> None:
    predictor, bounds, whole = concave(tiny), limits(tiny, "loose"), everything(tiny)
    allowed = whole[within(bounds, whole)]
    known = allowed[:1]
    certificate = proof(predictor, bounds, 1e-9, known)
    assert certificate.bound_percent == certificate.relaxation_percent >= predictor.predict(allowed).max()
    assert not certificate.proven
    assert certificate.gap_points > TOLERANCE
    assert certificate.arch == tiny.archs(known)[0]
    assert certificate.found_percent == predictor.predict(known)[0]
    with pytest.raises(OfaDeployError, match="allow more time"):
        proof(predictor, bounds, 1e-9)


@pytest.mark.parametrize("dual", [None, float("nan"), -float("inf")])
def test_a_solver_that_gives_up_leaves_the_relaxation(
    tiny: SearchSpace, dual: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave_up = scipy.optimize.OptimizeResult(status=4, x=None, mip_dual_bound=dual, message="numerical trouble")
    monkeypatch.setattr(scipy.optimize, "milp", lambda *_, **__: gave_up)
    certificate = proof(concave(tiny), [], incumbent=everything(tiny)[:1])
    assert certificate.bound_percent == certificate.relaxation_percent
    assert not certificate.proven


def test_a_better_incumbent_is_kept(tiny: SearchSpace) -> None:
    predictor, bounds, whole = concave(tiny), limits(tiny, "loose"), everything(tiny)
    allowed = whole[within(bounds, whole)]
    best = allowed[[predictor.predict(allowed).argmax()]]
    certificate = proof(predictor, bounds, incumbent=best)
    assert certificate.proven
    assert certificate.arch == tiny.archs(best)[0]
    assert certificate.found_percent == predictor.predict(best)[0]


def test_a_limit_that_a_network_just_keeps_or_just_misses(tiny: SearchSpace) -> None:
    predictor, whole, cost = concave(tiny), everything(tiny), tiny.macs
    best = whole[[predictor.predict(whole).argmax()]]
    at = float(cost(best)[0])
    assert proof(predictor, [Limit("macs", cost, at, at)]).found_percent == predictor.predict(best)[0]
    missed = [Limit("macs", cost, upper=at * (1 - 1e-8)), Limit("macs", cost, lower=at * (1 + 1e-8))]
    for bound in missed:  # such a difference is below the solver's tolerance
        allowed = whole[bound.excess(whole) == 0]
        certificate = proof(predictor, [bound])
        assert certificate.found_percent == pytest.approx(predictor.predict(allowed).max(), abs=TOLERANCE / 10)
        assert bound.excess(tiny.genes([certificate.arch])) == 0


def test_only_resolutions_of_the_table_are_searched(tiny: SearchSpace) -> None:
    cost, whole = made_up_table(tiny, (8,)).cost, everything(tiny)
    predictor = concave(tiny)
    certificate = proof(predictor, [Limit("latency", cost)])
    assert certificate.arch.resolution == 8
    assert certificate.found_percent == pytest.approx(predictor.predict(whole[whole[:, 0] == 0]).max())


def test_evolution_never_beats_the_bound(space: SearchSpace, lines: list[str]) -> None:
    cost = made_up_table(space).cost
    (_, least), (_, most) = extreme(space, cost), extreme(space, cost, dearest=True)
    predictor, budget = concave(space, members=1, units=4), least + 0.3 * (most - least)
    problem = Problem(space, [Limit("latency", cost, upper=budget)], predictor)
    result = find_network(problem, SearchSettings(population=40), stopping=Stopping(generations=40), risk=0)
    genes = space.genes([result.arch])
    certificate = certify(problem, 60, genes)
    assert certificate.proven
    assert predictor.predict(genes)[0] <= certificate.found_percent <= certificate.bound_percent
    assert "linear relaxation" in lines[0]


def test_a_search_takes_what_its_proof_finds_and_keeps_the_proof(space: SearchSpace) -> None:
    predictor = concave(space, members=2, units=8)
    problem = Problem(space, [latency_limit(made_up_table(space), "30%", margin_percent=0)], predictor)
    hasty, once = SearchSettings(population=4, restarts=0, recombinations=0), Stopping(generations=1)
    without = find_network(problem, hasty, stopping=once, risk=0)
    found = find_network(problem, hasty, stopping=once, risk=0, prove_seconds=60.0)
    assert found.certificate is not None
    assert found.certificate.proven
    assert found.certificate.arch == found.arch
    assert without.score < found.score == pytest.approx(found.certificate.found_percent, abs=1e-4)
    assert without.certificate is None


def test_what_a_proof_adds_is_no_evaluation_of_the_search(space: SearchSpace) -> None:
    """Otherwise a search that time has ended would be repeated for one evaluation, which is a batch, more."""
    predictor = concave(space, members=2, units=8)
    problem = Problem(space, [latency_limit(made_up_table(space), "30%", margin_percent=0)], predictor)
    once = Stopping(seconds=1e-9)
    without = find_network(problem, stopping=once, risk=0)
    result = find_network(problem, stopping=once, risk=0, prove_seconds=60.0)
    assert without.score < result.score
    assert result.evaluations == without.evaluations
    repeatable = result.stopping.repeatable(result.stopped_by, result.evaluations)
    again = find_network(problem, stopping=repeatable, risk=0, prove_seconds=60.0)
    assert (again.evaluations, again.history, again.arch) == (result.evaluations, result.history, result.arch)


def test_what_is_refused(tiny: SearchSpace, wide: SearchSpace) -> None:
    predictor, cost = concave(tiny), tiny.macs
    other = Predictor(tiny, (*predictor.fits, ("ridge", {})))
    with pytest.raises(OfaDeployError, match=r"concave\+ridge; .*fit-predictor --space tiny --model concave"):
        proof(other, [])
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(OfaDeployError, match="must be positive"):
            proof(predictor, [], seconds)
    with pytest.raises(OfaDeployError, match="search is in wide, the predictor of tiny"):
        Problem(wide, [], predictor)
    largest = tiny.genes([tiny.extreme(largest=True)])
    with pytest.raises(OfaDeployError, match="not within the limits"):
        proof(predictor, [Limit("macs", cost, upper=1.0)], incumbent=largest)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_limits_that_no_network_keeps(tiny: SearchSpace, share: float) -> None:
    least, most = extreme(tiny, tiny.macs)[1], extreme(tiny, tiny.macs, dearest=True)[1]
    costs = np.unique(tiny.macs(everything(tiny)))
    middle = costs[:-1][np.diff(costs).argmax()]
    ends = (-np.inf, least - 1) if share == 0 else (middle + 0.1, middle + 0.2)
    assert most > middle
    with pytest.raises(InfeasibleError, match="no network of tiny is within the limits"):
        proof(concave(tiny), [Limit("macs", tiny.macs, *ends)])
