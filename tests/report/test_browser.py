"""The page in a browser: nothing is asked of a network, networks are shown under the mouse and drawn when clicked."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_deploy.files import json_text
from ofa_deploy.report.page import write_report
from ofa_deploy.search.result import write_results
from tests.report.browser import CHROMIUM, Page, browser
from tests.report.test_report import CANDIDATES, HOSTILE, VERIFIED, found, tables
from tests.results import certificate

__all__ = ["tables"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (apt-get install chromium)")
VISIBLE = "[...document.querySelectorAll('%s circle')].filter(e => e.getClientRects().length)"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile") as opened:
        yield opened


def point(page: Page, kind: str, number: int) -> tuple[float, float]:
    """Where a network of a kind is in the window."""
    found = f"{VISIBLE % kind}.at({number})"
    page.value(f"{found}.scrollIntoView({{block: 'center'}})")
    x, y = page.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found}.getBoundingClientRect())")
    return x, y


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 800), (320, 600)])
def test_hover_click_and_legend(tables: tuple[str, str], page: Page, width: int, height: int) -> None:
    results = found(*tables, front=True)
    results[0] = dataclasses.replace(results[0], verified=VERIFIED, certificate=certificate(CANDIDATES[0].arch))
    write_results(results, Path("r.json"))
    write_report([Path("r.json")], Path("page.html"))
    page.open(Path("page.html"), width, height)
    assert page.value("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
    if width < 500:
        fits = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth <= e.clientWidth)"
        assert all(page.value(fits)), "no table needs scrolling on a phone"
    page.mouse(*point(page, ".chosen", 0))
    assert page.value("document.querySelector('.tip').hidden") is False
    assert page.value("document.querySelector('.tip b').textContent").startswith("Chosen, cpu of")
    box = page.value("(r => [r.left, r.right])(document.querySelector('.tip').getBoundingClientRect())")
    assert 0 <= box[0] < box[1] <= width, "the note is on the screen"
    for number in (0, -1):
        page.mouse(*point(page, ".front", number), click=True)
        arch = page.value("document.querySelector('.pinned code').textContent")
        assert arch in {str(point.arch) for result in results for point in result.front}
        assert page.value("document.querySelector('.pinned').hidden") is False
        kernels = [block[1] for stage in arch.split("_")[1:] for block in stage.split("-")]
        bars = "[...document.querySelectorAll('.pinned .slot i')].map(e => e.textContent).filter(Boolean)"
        assert page.value(bars) == kernels
    before = page.value(f"{VISIBLE % '.random'}.length")
    assert before == 600
    page.value("document.querySelector('button[data-toggles*=series]').click()")
    assert page.value(f"{VISIBLE % '.random'}.length") == 300
    page.value("document.querySelector('button[data-toggles=\".random\"]').click()")
    assert page.value(f"{VISIBLE % '.random'}.length") == 0
    page.value("document.querySelector('button[data-toggles*=series]').click()")
    assert page.value(f"{VISIBLE % '.random'}.length") == 0
    assert page.complaints == []


def test_keys(tables: tuple[str, str], page: Page) -> None:
    write_results(found(tables[0], front=True), Path("r.json"))
    write_report([Path("r.json")], Path("page.html"))
    page.open(Path("page.html"), 1200, 900)
    press = "document.querySelector('svg').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    page.value(press % "ArrowRight")
    first = page.value("document.querySelector('.tip').textContent")
    page.value(press % "ArrowRight")
    assert page.value("document.querySelector('.tip').textContent") != first
    page.value(press % "Enter")
    assert page.value("document.querySelector('.pinned').hidden") is False


def test_a_hostile_result_runs_nothing(tables: tuple[str, str], page: Page) -> None:
    (result,) = found(tables[0], front=True)
    write_results([dataclasses.replace(result, verified=VERIFIED)], Path("r.json"))
    document = json.loads(Path("r.json").read_text())
    document["limits"][0] |= {"of": HOSTILE, "unit": HOSTILE}
    document |= {"objective": HOSTILE, "message": HOSTILE}
    document["verified"] |= {"conditions": {HOSTILE: HOSTILE, "device": HOSTILE, "runtime": HOSTILE}, HOSTILE: HOSTILE}
    document["inputs"]["request"][HOSTILE] = HOSTILE
    document["made_with"] = {"python": HOSTILE, "packages": {HOSTILE: HOSTILE}, "machine": {"cpu": HOSTILE}}
    Path("r.json").write_text(json.dumps(json_text.sealed(document)))
    write_report([Path("r.json")], Path("page.html"))
    page.open(Path("page.html"), 1200, 900)
    page.mouse(*point(page, ".chosen", 0), click=True)
    assert "window.hacked=1" in page.value("document.querySelector('.tip').textContent"), "shown as text"
    assert page.value("typeof window.hacked") == "undefined"
    assert page.value("document.querySelectorAll('script').length") == 2
    assert page.complaints == []
