"""The page about a search: what is on it, and that nothing in a file can inject markup."""

import copy
import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.delivery import requests, searches
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import artifacts
from ofa_deploy.report import material
from ofa_deploy.report.axes import axis
from ofa_deploy.report.charts import Dot, Frame, Layer, agreement_chart, front_chart
from ofa_deploy.report.markup import script_data, tag, text
from ofa_deploy.report.page import write_report
from ofa_deploy.search.result import SearchResult, write_results
from ofa_deploy.search.result_records import Candidate, Verified
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table
from tests.results import candidate, certificate

QUICK, SHORT = SearchSettings(population=8, restarts=1), Stopping(generations=3)
ANYTHING = pytest.mark.parametrize("hostile", ["markup", "null", "list", "object", "nan", "huge", "large", "true"])
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>'\"&\ud800"
VALUES = {
    "markup": HOSTILE,
    "null": None,
    "list": [HOSTILE],
    "object": {HOSTILE: HOSTILE},
    "nan": float("nan"),
    "huge": 10**400,
    "large": -1e308,
    "true": True,
}
FIXED = "_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3"
CANDIDATES = (
    candidate(Arch.parse(f"r28_k3e3-k3e3{FIXED}"), 0.2, 0.21, 90.5),
    candidate(Arch.parse(f"r28_k5e3-k3e3{FIXED}"), 0.25, 0.25),
)
VERIFIED = Verified(
    budget_ms=0.3,
    within_budget=True,
    measured_ms=0.21,
    rounds=2,
    machine_slower_percent=0.0,
    conditions={"device": "cpu"},
    candidates=CANDIDATES,
)


class Elements(HTMLParser):
    """The elements of a page, with a check that all are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))
        if name not in ("meta", "img"):
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name


def check(page: str) -> None:
    """The page is whole, needs nothing else, and has no scripts but its own."""
    found = Elements(page).found
    assert [about.get("id") for name, about in found if name == "script"] == ["data", None]
    known = (
        "html head meta title style body main header section article figure figcaption h1 h2 h3 p div span b "
        "i small code dl dt dd table thead tbody tr th td button img script svg g path circle line rect text "
        "clippath "
    )
    assert {name for name, _ in found} <= set(known.split())
    for name, about in found:
        assert not any(key.startswith("on") or key == "href" for key in about), name
        assert (about.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    for svg in re.findall(r"<svg.*?</svg>", page):
        ElementTree.fromstring(re.sub(r" (hidden|disabled)(?=[ >])", "", svg))
    json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert "NaN" not in page.split('id="data">')[0]
    assert "infinity" not in page.lower()


@pytest.fixture
def tables(space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two tables of `fmnist` in the working folder, the second of a device that is twice as slow."""
    monkeypatch.chdir(tmp_path)
    table = made_up_table(space)
    networks = ({"arch": str(space.extreme(largest=True)), "measured_ms": 2.0, "predicted_ms": 2.1},)
    dataclasses.replace(table, networks=networks).save(Path("lut/a.csv"), {})
    slow = {**table.conditions, "device": "pi"}
    dataclasses.replace(table, scale=2.0, conditions=slow).save(Path("lut/b.csv"), {})
    return "lut/a.csv", "lut/b.csv"


def found(*luts: str, **asked: Any) -> list[SearchResult]:
    request = requests.Request("fmnist", ("50%",), luts, settings=QUICK, stopping=SHORT, **asked)
    return searches.search_each(request)


def page_of(results: list[SearchResult]) -> str:
    write_results(results, Path("r.json"))
    write_report([Path("r.json")], Path("page.html"))
    page = Path("page.html").read_text()
    check(page)
    return page


def test_a_front_of_two_devices(tables: tuple[str, str]) -> None:
    results = found(*tables, front=True)
    results[0] = dataclasses.replace(results[0], verified=VERIFIED, certificate=certificate(CANDIDATES[0].arch))
    page = page_of(results)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    titles = [row["title"].split(",")[0] for row in data["networks"]]
    assert titles.count("On the front") == sum(len(result.front) for result in results)
    assert titles.count("Chosen") == 2
    assert titles.count("Random network") == 600
    assert titles.count("Candidate 1") == 1
    assert page.count('class="steps"') == 4, "two fronts, each for a screen and for a phone"
    assert page.count('data-toggles="') == 6
    assert all(str(result.arch) in page for result in results)
    for words in (
        "Predicted and measured",
        "within the budget, as measured",
        "Bound: no network within the limits",
        "How exact is the latency table?",
        "How exact is the accuracy predictor?",
        "What was run on what",
        "prefers-color-scheme:dark",
        "width=device-width",
        "default-src &#x27;none&#x27;",
    ):
        assert words in page, words
    assert str(results[0].inputs["predictor_sha256"]) in page
    before = Path("page.html").read_bytes()
    write_report([Path("r.json")], Path("page.html"))
    assert Path("page.html").read_bytes() == before, "the same inputs give the same bytes"


def delivered(result: SearchResult, slower: float) -> SearchResult:
    """The result as if its network had been measured, at so many times its budget."""
    limit = result.limits[0]
    assert limit.upper is not None
    row = Candidate(
        arch=result.arch,
        predicted_ms=limit.predicted,
        measured_ms=slower * limit.upper,
        spread_percent=3.0,
        predicted_top1_percent=result.score,
        measured_top1_percent=result.score - 0.5,
        interval95_points=0.5,
    )
    verified = Verified(
        budget_ms=limit.upper,
        within_budget=slower <= 1,
        measured_ms=slower * limit.upper,
        rounds=1,
        machine_slower_percent=2.0,
        conditions={},
        candidates=(row,),
    )
    return dataclasses.replace(result, verified=verified)


def test_delivered_networks_of_a_device_are_drawn_together(tables: tuple[str, str]) -> None:
    request = requests.Request("fmnist", ("30%", "60%"), (tables[0],), settings=QUICK, stopping=SHORT)
    kept, slow = (delivered(r, s) for r, s in zip(searches.search_each(request), (0.9, 1.1), strict=True))
    page = page_of([kept, slow])
    for what in ("latency (ms)", "top-1 (%)"):
        assert page.count(f'aria-label="measured {what} against predicted {what}"') == 1
    assert "<dt>within the budget, as measured</dt><dd>1 of 2</dd>" in page
    summary, measured = (part.split("</table>")[0] for part in page.split("<table>")[1:3])
    for table in (summary, measured):
        rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")[2:]]
        assert [[cell for cell in row if cell in ("yes", "NO")] for row in rows] == [["yes"], ["NO"]]
    chart = page.split('class="chosen">')[1].split("</svg>")[0]
    rings = [float(cx) for cx in re.findall(r'<circle cx="([0-9.]+)"[^>]*class="hollow"', chart)]
    filled = [float(cx) for cx in re.findall(r'<circle cx="([0-9.]+)"[^>]*data-n="\d+">', chart)]
    assert len(rings) == len(filled) == 2
    assert "way" in chart
    lines = [float(x) for x in re.findall(r'<line x1="([0-9.]+)"[^>]*class="budget"', page.split("</svg>")[0])]
    assert rings[0] < lines[0] < rings[1]
    assert lines[1] < rings[1], "measured beyond its budget"
    assert page.count("<h3><i") - page.count('<article class="card"><h3><i') == 3, "measured, table, provenance"


def test_the_axes_of_an_agreement_are_the_same(tables: tuple[str, str]) -> None:
    dots = [Dot(0.2, 0.21), Dot(0.4, 0.6, span=(0.6, 9.0))]
    chart = agreement_chart(dots, Frame(("a", "b"), (440, 340), "n"), colour=0)
    ticks = re.findall(r'class="tick (mid|end)">([0-9.]+)<', chart)
    across, up = ([float(v) for kind, v in ticks if kind == k] for k in ("mid", "end"))
    assert min(across) == min(up) == 0.2
    assert max(across) == max(up) == 0.6, "the long interval is cut off"


def test_labels_of_budgets_do_not_overlap() -> None:
    budgets = [0.1, 0.101, 0.102, 0.2, 0.21]
    layers = [Layer(i, [Dot(0.05, 90), Dot(0.2, 92)], [], [Dot(0.1, 91)], [], budgets, []) for i in range(2)]
    chart = front_chart(layers, Frame(("x", "y"), (400, 380), "n"), unit="ms")
    labels = re.findall(r'<text y="([0-9.]+)" x="([0-9.]+)" class="(note|note end)">([^<]+)<', chart)
    assert [words for *_, words in labels] == [f"≤ {b:g} ms" for b in budgets] * 2
    rows: dict[str, list[tuple[float, float]]] = {}
    for y, x, side, words in labels:
        long = 6.5 * len(words)
        rows.setdefault(y, []).append((float(x) - long * (side == "note end"), float(x) + long * (side == "note")))
    for placed in map(sorted, rows.values()):
        assert all(a[1] <= b[0] for a, b in pairwise(placed))


def test_what_is_not_found_is_said(tables: tuple[str, str]) -> None:
    results = found(tables[0])
    Path("lut/a.csv").unlink()
    page = page_of(results)
    assert "was not found, so no random networks" in page
    assert "How exact is the latency table?" not in page


@pytest.mark.parametrize("asked", [{"macs": "50%"}, {"params": "50%"}, {"size": "50%", "front": True}])
def test_other_costs_and_objectives(tables: tuple[str, str], asked: dict[str, Any]) -> None:
    request = requests.Request("resnet50d", (), objective="macs", settings=QUICK, stopping=SHORT, **asked)
    page = page_of(searches.search_each(request))
    assert "widths" in page
    assert "multiply-accumulates (M)" in page


def test_several_files_and_spaces(tables: tuple[str, str]) -> None:
    write_results(found(tables[0]), Path("a.json"))
    write_results(
        searches.search_each(
            requests.Request("resnet50d", macs="50%", objective="macs", settings=QUICK, stopping=SHORT)
        ),
        Path("b.json"),
    )
    write_report([Path("a.json"), Path("b.json")], Path("page.html"))
    page = Path("page.html").read_text()
    check(page)
    assert "Search in fmnist, resnet50d" in page


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON document are."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in pairs:
        yield from leaves(inside, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return document


@ANYTHING
def test_no_value_of_a_result_harms(
    tables: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    """Each value of a result in turn is replaced: it is refused by name, or the page is whole."""
    (result,) = found(tables[0], front=True, objective="macs")
    verified = dataclasses.replace(VERIFIED, candidates=CANDIDATES[:1])
    result = dataclasses.replace(
        result, front=result.front[:2], verified=verified, certificate=certificate(CANDIDATES[0].arch), history=()
    )
    monkeypatch.setattr(artifacts, "shipped", lambda folder: tmp_path / "none")
    Path("lut/a.csv").unlink()
    Path("lut/b.json").unlink()
    write_results([result], Path("r.json"))
    document = json.loads(Path("r.json").read_text())
    del document["seal"]  # it would refuse every change
    for path in filter(None, leaves(document)):
        Path("r.json").write_text(json.dumps(changed(document, path, VALUES[hostile])))
        Path("page.html").unlink(missing_ok=True)
        try:
            write_report([Path("r.json")], Path("page.html"))
        except OfaDeployError:
            assert not Path("page.html").exists()
        else:
            check(Path("page.html").read_text())


@pytest.mark.parametrize("hostile", ["markup", "null", "object", "huge", "large"])
def test_no_value_of_a_table_or_predictor_harms(
    tables: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    """Each entry of their JSON in turn, then everything below them at once."""
    (result,) = found(tables[0])
    write_results([result], Path("r.json"))
    for name in ("fmnist.safetensors", "fmnist.json"):
        Path("predictors").mkdir(exist_ok=True)
        Path("predictors", name).write_bytes((artifacts.shipped("predictors") / name).read_bytes())
    Path("predictors/fmnist.png").write_bytes(b"<svg onload=window.hacked=1>")
    monkeypatch.setattr(artifacts, "shipped", lambda folder: tmp_path / "none")
    monkeypatch.setattr(material, "CLOUD", 3)
    for file in (Path("lut/a.json"), Path("predictors/fmnist.json")):
        document = everything = json.loads(file.read_text())
        below = [path for path in leaves(document) if len(path) > 1]
        for path in reversed(below):
            everything = changed(everything, path, VALUES[hostile])
        singles = [changed(document, (key,), VALUES[hostile]) for key in document]
        for one in [*singles, everything]:
            file.write_text(json.dumps(one))
            write_report([Path("r.json")], Path("page.html"))
            check(Path("page.html").read_text())
        file.write_text(json.dumps(document))


def test_markup_is_escaped() -> None:
    assert text("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert tag("p", text("<"), class_='"><script>', hidden=True, id=None) == (
        '<p class="&quot;&gt;&lt;script&gt;" hidden>&lt;</p>'
    )
    assert "</script>" not in script_data({"a": "</script><!--"})
    assert "<!--" not in script_data({"a": "</script><!--"})


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.1, 0.55], ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        ([88.7, 92.6], ["89", "90", "91", "92"]),
        ([1000, 1000], ["960", "980", "1000", "1020", "1040"]),
        ([], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0, 1e14], None),
        ([0, 1e-300], None),
        ([5e-324, 1e-323], None),
    ],
)
def test_ticks_are_round(values: list[float], shown: list[str] | None) -> None:
    made = axis(values, start=0, end=100, label="x", ticks=5)
    marks = made.marks()
    assert 2 <= len(marks) <= 12
    assert shown is None or [label for _, label in marks] == shown
    assert all(-1e-6 <= made(value) <= 100 + 1e-6 for value, _ in marks)


def test_networks_are_drawn_as_they_are(tables: tuple[str, str]) -> None:
    (result,) = found(tables[0])
    page = page_of([result])
    card = page.split('<article class="card">')[1].split("</article>")[0]
    bars = re.findall(r'<i class="k(\d)" style="--share:([0-9.]+)">(\d)</i>', card)
    space = get_space("fmnist")
    blocks = [block for stage in result.arch.stages for block in stage]
    assert [(space.kernels[int(k)], int(shown)) for k, _, shown in bars] == [(k, k) for k, _ in blocks]
    assert [float(share) for _, share, _ in bars] == pytest.approx([e / 6 for _, e in blocks], abs=1e-3)
    assert card.count("<i></i>") == 20 - len(blocks), "the blocks that are left out"
