"""Results as values, as JSON and as CSV."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from ofa_deploy.errors import ArtifactError
from ofa_deploy.search.limits import cost_limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult, dumps, load_result, write_results
from ofa_deploy.search.run import find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.space import SearchSpace
from tests import results
from tests.conftest import made_up_table

QUICK, SHORT = SearchSettings(population=20, restarts=1), Stopping(generations=10)


@pytest.fixture
def front(space: SearchSpace) -> SearchResult:
    """A front within three limits, two of them latencies."""
    table = made_up_table(space)
    limits = [
        latency_limit(table, "60%", margin_percent=0),
        cost_limit(space, "params", budget="90%"),
        latency_limit(table, "50%", margin_percent=0),
    ]
    return find_network(Problem(space, limits), QUICK, stopping=SHORT, front=True)


def measured(front: SearchResult) -> SearchResult:
    """The result with every part that one can have."""
    return dataclasses.replace(
        front,
        verified=results.verified(front),
        refined=results.refined(front),
        certificate=results.certificate(front.arch),
    )


def test_a_result_with_all_its_parts_is_read_as_it_was_written(front: SearchResult, tmp_path: Path) -> None:
    whole = measured(front)
    write_results([whole], tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == whole
    values = json.loads(dumps([whole]))
    columns = "arch score latency_ms params_millions latency_ms_2 macs params"
    assert list(values["front"][0]) == columns.split()
    keys = "lower margin_percent name of predicted sha256 unit upper"
    assert sorted(values["limits"][0]) == keys.split()
    assert next(iter(values["refined"]["rounds"][0])) == "round"
    assert "round" not in values["refined"]["chosen"]
    assert "times_measured" not in values["verified"]["candidates"][0]
    assert values["certificate"]["arch"] == str(front.arch)


def test_a_front_as_a_frame_and_as_csv(front: SearchResult, tmp_path: Path) -> None:
    """The file is what the standard library makes of the same rows."""
    rows = [point.to_json() for point in front.front]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_results([front], tmp_path / "front.csv")
    assert (tmp_path / "front.csv").read_text() == text.getvalue()
    assert front.front_frame().to_dict("records") == rows
    assert [point.cost for point in front.front] == sorted(front.front_frame()["latency_ms"])


@pytest.mark.parametrize("part", ["verified", "refined", "certificate", "limits", "front"])
def test_a_part_that_is_incomplete_or_of_another_space_is_one_line(
    front: SearchResult, part: str, tmp_path: Path
) -> None:
    whole = measured(front)
    values = json.loads(dumps([whole]))
    del values["seal"]
    inside = values[part][0] if isinstance(values[part], list) else values[part]
    for key in list(inside):
        value = inside.pop(key)
        (tmp_path / "r.json").write_text(json.dumps(values))
        if key in ("latency_ms", "params_millions", "latency_ms_2", "table_correction_percent"):
            load_result(tmp_path / "r.json")
        else:
            with pytest.raises(ArtifactError, match=r"^.*r\.json is damaged: .*; search again$"):
                load_result(tmp_path / "r.json")
        inside[key] = value
    if part != "limits":  # which name no architecture
        other = json.loads(json.dumps(values[part]).replace("_k", "_k3e3_k", 1))
        (tmp_path / "r.json").write_text(json.dumps({**values, part: other}))
        with pytest.raises(ArtifactError, match="stages, the architecture has"):
            load_result(tmp_path / "r.json")
