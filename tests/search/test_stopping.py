"""What ends a search, and what its answer says of it."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.archive import Archive
from ofa_deploy.search.limits import Limit, cost_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, load_result, write_results
from ofa_deploy.search.run import SAMPLE, explore, find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import EXHAUSTED, RULES, Stopping
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.space import SearchSpace
from tests.search.conftest import Rugged, everything, rugged

SMALL = {"seconds": 1e-3, "evaluations": 900, "patience": 1, "generations": 1}


class Watched(Rugged):
    """Notes how many networks it is evaluated for, batch by batch."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.batches: list[int] = []

    def score(self, genes: Genes) -> Floats:
        self.batches.append(len(genes))
        return rugged(genes)


def only(name: str) -> Stopping:
    """A rule that one small number ends."""
    return Stopping(**dict.fromkeys(RULES) | {name: SMALL[name]})  # type: ignore[arg-type]


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_ends_a_search_and_is_on_record(
    name: str, space: SearchSpace, tmp_path: Path, *, front: bool
) -> None:
    problem = Problem(space, [cost_limit(space, "macs", budget="50%")], Rugged(space))
    result = find_network(problem, stopping=only(name), front=front)
    assert result.stopped_by == name
    assert problem.excess(space.genes([result.arch]))[0] == 0
    assert len(result.history) >= 1
    assert f"{SMALL[name]:g}" in result.stopping.ending(name)
    write_results([result], tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == result
    after = result.stopping.repeatable(result.stopped_by, result.evaluations)
    assert after.seconds is None
    again = find_network(problem, stopping=after, front=front)
    assert (again.arch, again.evaluations, again.front) == (result.arch, result.evaluations, result.front)


@pytest.mark.parametrize("most", [1, 700, 2000, 5000])
@pytest.mark.parametrize("front", [False, True])
def test_evaluations_are_exceeded_by_less_than_a_batch(most: int, space: SearchSpace, *, front: bool) -> None:
    predictor = Watched(space)
    problem = Problem(space, [cost_limit(space, "macs", budget="60%")], predictor)
    exploration = explore(problem, stopping=Stopping(evaluations=most), front=front)
    assert exploration.stopped_by == "evaluations"
    first = predictor.batches[0]  # to which the best networks by a surrogate are added without asking
    assert first == SAMPLE
    assert most <= exploration.archive.size < max(most, first) + max(predictor.batches)
    again = explore(problem, stopping=Stopping(evaluations=most), front=front)
    assert (again.archive.genes == exploration.archive.genes).all()
    longer = explore(problem, stopping=Stopping(evaluations=most + 3000), front=front)
    assert (longer.archive.genes[: exploration.archive.size] == exploration.archive.genes).all()


def test_no_time_at_all_is_enough_for_a_network_within_the_limits(tiny: SearchSpace) -> None:
    """The rules of the whole search wait until there is one, here one of the few that a band has."""
    whole = everything(tiny)
    costs = np.sort(tiny.macs(whole))
    limit = Limit("macs", tiny.macs, float(costs[400]), float(costs[402]))
    assert (limit.excess(whole) == 0).sum() < 8
    settings = SearchSettings(population=8, restarts=0)
    for stopping in (Stopping(seconds=1e-9), Stopping(evaluations=1)):
        result = find_network(Problem(tiny, [limit], Rugged(tiny)), settings, stopping=stopping)
        assert limit.excess(tiny.genes([result.arch]))[0] == 0


def test_the_history_of_a_front_without_a_generation_is_its_hypervolume(space: SearchSpace) -> None:
    problem = Problem(space, [cost_limit(space, "macs", budget="50%")], Rugged(space))
    result = find_network(problem, stopping=Stopping(evaluations=1), front=True)
    assert result.hypervolume != result.score
    assert result.history == pytest.approx((result.hypervolume,), abs=1e-4)


@pytest.mark.parametrize("rule", [{"evaluations": 1}, {"seconds": 1e-9}])
def test_a_search_for_what_there_is_not_ends_without_a_rule_of_evolution(
    rule: dict[str, float], space: SearchSpace
) -> None:
    """Nothing costs a part of a multiply-accumulate, and nothing proves it."""
    limit = Limit("macs", space.macs, 3_000_000.4, 3_000_000.6)
    stopping = Stopping(generations=None, patience=None, **rule)  # type: ignore[arg-type]
    settings = SearchSettings(population=8, restarts=0, recombinations=0)
    with pytest.raises(InfeasibleError, match="was found within all limits"):
        find_network(Problem(space, [limit]), settings, stopping=stopping)


def test_a_space_that_is_evaluated_whole_ends_the_search(tiny: SearchSpace) -> None:
    problem = Problem(tiny, [cost_limit(tiny, "macs", budget="100%")], Rugged(tiny))
    result = find_network(problem, stopping=Stopping(None, None, seconds=600))
    assert result.stopped_by == EXHAUSTED
    assert result.stopping.ending(EXHAUSTED) == "ended as nothing near was new"
    assert result.stopping.repeatable(EXHAUSTED, result.evaluations).evaluations == result.evaluations


def test_a_clock_counts_generations_without_a_better_one(tiny: SearchSpace) -> None:
    archive = Archive(Problem(tiny))
    clock = Stopping(generations=6, patience=2).start(archive)
    ends = [clock.due_after(reached, fresh=True) for reached in (1.0, 2.0, 2.0, 3.0, 3.0)]
    assert (ends, clock.waited, clock.stopped_by) == ([False] * 5, 1, "")
    assert clock.due_after(3.0, fresh=True)
    assert clock.stopped_by == "patience"
    assert clock.seconds_left == math.inf
    waiting = Stopping(seconds=1e-9).start(archive)
    assert not waiting.due(), "nothing is within the limits yet"
    archive.add(everything(tiny)[:1])
    assert waiting.due()
    assert waiting.seconds_left < 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generations", 0),
        ("patience", -1),
        ("seconds", 0.0),
        ("seconds", math.nan),
        ("seconds", math.inf),
        ("evaluations", 0),
    ],
)
def test_rules_are_checked(name: str, value: float) -> None:
    with pytest.raises(OfaDeployError, match=f"--{name} must be (above 0|at least 1), not {value}"):
        Stopping(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", EXHAUSTED, *RULES])
def test_only_what_time_may_have_ended_is_repeated_with_as_many_evaluations(name: str) -> None:
    after = Stopping(seconds=5.0).repeatable(name, 700)
    assert after == Stopping(evaluations=700 if name in ("", EXHAUSTED, "seconds") else None)
    assert Stopping().repeatable(name, 700) == Stopping()


def test_something_must_end_a_search() -> None:
    with pytest.raises(OfaDeployError, match="nothing ends this search; set one of seconds, evaluations, patience"):
        Stopping(None, None)
    assert {field.name for field in dataclasses.fields(Stopping)} == set(RULES)


def test_results_from_before_there_was_such_a_rule(space: SearchSpace) -> None:
    result = find_network(Problem(space, [cost_limit(space, "macs", budget="50%")]), stopping=Stopping(7, patience=3))
    values = json.loads(json.dumps(result.to_json()))
    values["settings"] |= {"generations": 7, "patience": 3}
    del values["stopping"], values["stopped_by"]
    before = SearchResult.from_json(values)
    assert before == dataclasses.replace(result, stopped_by="")
    assert before.stopping.ending("") == ""
    with pytest.raises(ValueError, match="no rule"):
        SearchResult.from_json(values | {"stopped_by": "boredom"})
