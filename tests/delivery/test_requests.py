"""Requests, and results as files."""

import dataclasses
import json
from pathlib import Path

import pytest

from ofa_deploy.delivery import requests, searches
from ofa_deploy.device.conditions import conditions
from ofa_deploy.errors import ArtifactError, InfeasibleError, OfaDeployError
from ofa_deploy.files import json_text
from ofa_deploy.search.limits import latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, dumps, load_result, load_results, write_results
from ofa_deploy.search.run import find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.families import SPACES
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import Run, made_up_table, refused
from tests.results import refined, verified

QUICK, SHORT = SearchSettings(population=8, restarts=1), Stopping(generations=3)


@pytest.fixture
def known(tiny: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> SearchSpace:
    """The tiny space, to be found by its name."""
    monkeypatch.setitem(SPACES, "tiny", tiny)
    return tiny


def found(space: SearchSpace, front: bool = False) -> SearchResult:
    return find_network(
        Problem(space, [latency_limit(made_up_table(space), "50%", margin_percent=None)]),
        QUICK,
        stopping=SHORT,
        front=front,
    )


@pytest.mark.parametrize("front", [False, True])
def test_a_result_is_read_as_it_was_written(known: SearchSpace, tmp_path: Path, front: bool) -> None:
    path = tmp_path / "r.json"
    result = found(known, front)
    write_results([result], path)
    assert load_result(path) == result
    assert load_results(path) == (result,)
    write_results([result, dataclasses.replace(result, score=1.0)], path)
    assert [one.score for one in load_results(path)] == [result.score, 1.0]
    with pytest.raises(ArtifactError, match="holds 2 results"):
        load_result(path)


def test_only_a_front_is_written_as_csv(known: SearchSpace, tmp_path: Path) -> None:
    write_results([found(known, True)], tmp_path / "f.csv")
    assert (tmp_path / "f.csv").read_text().startswith("arch,score,latency_ms")
    with pytest.raises(ArtifactError, match="--front"):
        write_results([found(known)], tmp_path / "g.csv")
    assert not (tmp_path / "g.csv").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kind": "song"}, "not a search result"),
        ({"schema": 9}, "newer release"),
        ({"schema": "x"}, "newer release"),
        ({"settings": {"x": 1}}, "damaged"),
        ({"settings": {"population": 1}}, "r.json is damaged"),
        ({"score": None}, "damaged"),
        ({"score": 10**400}, "damaged"),
        ({"limits": [{"name": "latency"}]}, "damaged"),
        ({"limits": None}, "damaged"),
        ({"front": [{"arch": "r8"}]}, "damaged"),
        ({"history": ["x"]}, "damaged"),
        ({"more": 1}, "damaged"),
        ({"arch": None}, "damaged"),
        ({"results": []}, "damaged"),
        ({"results": [1]}, "damaged"),
    ],
)
def test_damage_is_named(known: SearchSpace, tmp_path: Path, change: dict[str, object], word: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(json.loads(dumps([found(known)])) | change))
    with pytest.raises(ArtifactError, match=word):
        load_result(path)


@pytest.fixture
def tables(space: SearchSpace, tmp_path: Path) -> tuple[str, str]:
    """Two tables of `fmnist`, the second of a device that is twice as slow."""
    table = made_up_table(space)
    table.save(tmp_path / "a.csv", {})
    dataclasses.replace(table, scale=2.0).save(tmp_path / "b.csv", {})
    return str(tmp_path / "a.csv"), str(tmp_path / "b.csv")


def test_a_network_of_its_own_for_each(tables: tuple[str, str]) -> None:
    request = requests.Request("fmnist", ("0.4ms",), tables, objective="macs", settings=QUICK, stopping=SHORT)
    fast, slow = searches.search_each(request)
    assert fast.macs > slow.macs
    both = searches.search_files(request)
    assert both.arch == slow.arch, "what fits the slower device fits both"
    assert [limit.upper for limit in both.limits] == [0.4, 0.4]
    pairs = dataclasses.replace(request, latency=("0.4ms", "0.8ms")).each()
    assert [(p.latency, p.luts) for p in pairs] == [(("0.4ms",), tables[:1]), (("0.8ms",), tables[1:])]
    one_table = dataclasses.replace(request, latency=("0.4ms", "0.8ms"), luts=tables[:1])
    assert [p.latency for p in one_table.each()] == [("0.4ms",), ("0.8ms",)]
    with pytest.raises(OfaDeployError, match="2 latencies do not go with 1 table"):
        searches.search_files(one_table)
    with pytest.raises(OfaDeployError, match="3 latencies do not go with 2 tables"):
        dataclasses.replace(request, latency=("1ms", "2ms", "3ms")).each()


def test_a_request_is_repeated_from_its_result(tables: tuple[str, str], tmp_path: Path, space: SearchSpace) -> None:
    request = requests.Request("fmnist", ("0.4ms",), tables[:1], params="90%", settings=QUICK, stopping=SHORT)
    first = searches.search_files(request)
    path = tmp_path / "r.json"
    write_results([first], path)
    assert searches.again(path) == first
    table = made_up_table(space)
    dataclasses.replace(table, scale=1.01).save(Path(tables[0]), {})
    with pytest.raises(ArtifactError, match="changed since"):
        searches.again(path)
    about = json.loads(path.read_text())
    about["inputs"]["request"] = {"speed": 1}
    path.write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match="does not match its own checksum"):
        searches.again(path)
    path.write_text(json.dumps(json_text.sealed(about)))
    with pytest.raises(ArtifactError, match="does not say what was asked for"):
        searches.again(path)


def test_a_search_that_time_has_ended_is_repeated_for_as_many_evaluations(
    tables: tuple[str, str], tmp_path: Path
) -> None:
    for front in (False, True):
        request = requests.Request("fmnist", ("0.4ms",), tables[:1], front=front, stopping=Stopping(seconds=0.05))
        first = searches.search_files(request)
        assert first.stopped_by == "seconds"
        write_results([first], tmp_path / "r.json")
        then = searches.again(tmp_path / "r.json")
        assert then.stopping == Stopping(evaluations=first.evaluations)
        for attribute in ("arch", "score", "limits", "evaluations", "front", "inputs"):
            assert getattr(then, attribute) == getattr(first, attribute)
        write_results([then], tmp_path / "r.json")
        assert searches.again(tmp_path / "r.json") == then


def test_what_rests_on_measurements_is_not_repeated(tables: tuple[str, str], tmp_path: Path, ofa: Run) -> None:
    first = searches.search_files(requests.Request("fmnist", ("0.4ms",), tables[:1], settings=QUICK, stopping=SHORT))
    for measured in (
        dataclasses.replace(first, verified=verified(first)),
        dataclasses.replace(first, refined=refined(first)),
    ):
        write_results([measured], tmp_path / "r.json")
        refused(ofa("search", "--again", "r.json"), "rests on what was measured")
    refused(ofa("search", "--again", "r.json", "--seed", 1), "without --seed")


def test_a_table_of_this_machine_is_known_by_what_it_is_about(space: SearchSpace, tmp_path: Path) -> None:
    """Whatever the request says of device and threads, which is about tables that are looked for."""
    lut = str(tmp_path / "t.csv")
    for at, own in ((conditions("tflite", 2), True), (conditions("cpu", 1) | {"machine": {"cpu": "abacus"}}, False)):
        dataclasses.replace(made_up_table(space), conditions=at).save(lut, {})
        found = searches.search_files(requests.Request("fmnist", ("0.4ms",), (lut,), settings=QUICK, stopping=SHORT))
        assert found.inputs["table_of_this_machine"] is own


def test_a_table_of_few_resolutions_is_pointed_out(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made_up_table(space, (16, 28)).save(tmp_path / "lut" / "fmnist_cpu_mine.csv", {})
    searches.search_files(requests.Request("fmnist", ("0.4ms",), settings=QUICK, stopping=SHORT))
    assert "that table has 2 of the 4 resolutions of fmnist (16, 28); the search stays with those" in lines


def test_of_several_budgets_one_that_nothing_keeps_is_refused_first(
    tables: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "find_network", lambda *_, **__: pytest.fail("it searched for the first budget"))
    request = requests.Request("fmnist", ("0.4ms", "1us"), tables[:1], objective="macs", settings=QUICK, stopping=SHORT)
    with pytest.raises(InfeasibleError, match="the fastest"):
        searches.search_each(request)


def test_of_many_searches_later_ones_begin_with_what_earlier_ones_found(
    tables: tuple[str, str], tmp_path: Path, space: SearchSpace
) -> None:
    budgets = ("20%", "24%", "28%", "32%", "36%", "40%")
    request = requests.Request(
        "fmnist",
        budgets,
        (tables[0],),
        objective="macs",
        settings=SearchSettings(population=32),
        stopping=Stopping(generations=5),
    )
    many = searches.search_each(request)
    alone = [searches.search_files(one) for one in request.each()]
    assert many[0] == alone[0]
    for number, (result, other) in enumerate(zip(many, alone, strict=True)):
        assert result.score > 0.99 * other.score
        assert (result.evaluations < 0.6 * other.evaluations) == (number > 0)
    start = many[-1].inputs["request"]["start"]
    earlier = {str(result.arch) for result in many[:-1]}
    assert set(start) <= earlier
    assert 0 < len(start) <= 2 * searches.NEAREST
    write_results([many[-1]], tmp_path / "r.json")
    assert searches.again(tmp_path / "r.json").arch == many[-1].arch
    few = dataclasses.replace(request, latency=budgets[: searches.MANY - 1])
    assert [result.evaluations for result in searches.search_each(few)] == [
        result.evaluations for result in alone[: searches.MANY - 1]
    ]


def test_what_a_request_needs() -> None:
    with pytest.raises(OfaDeployError, match="needs a limit: --latency"):
        requests.Request("fmnist")
    with pytest.raises(OfaDeployError, match="accuracy, macs"):
        requests.Request("fmnist", ("1ms",), objective="speed")
    with pytest.raises(OfaDeployError, match="--lut needs a --latency"):
        searches.search_files(requests.Request("fmnist", luts=("x.csv",), macs="3M"))
