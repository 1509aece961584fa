"""The page: its frame, and what is on it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.report import evidence, sections
from ofa_deploy.report.markup import Html, join, script_data, tag, text
from ofa_deploy.report.material import Material, Panel, gather
from ofa_deploy.report.networks import Networks

HERE = Path(__file__).parent


def write_report(results: Sequence[Path], out: Path, seed: int = 0) -> None:
    """Write one HTML file that needs nothing else about the results of searches.

    The same inputs give the same bytes.

    Args:
        results: files that `search --out` wrote.
        out: file to write, `.html`.
        seed: of the random networks behind a front.

    Raises:
        ArtifactError: a file is no result, or `out` cannot be written.
    """
    check_page(out)
    written = page(gather(results, seed)).encode(errors="replace")
    atomic.write(out, written)


def check_page(out: Path) -> None:
    """Refuse a page that cannot be written before the work for it begins.

    Raises:
        ArtifactError: its name does not end in `.html`, or its folder cannot be made or written.
    """
    if out.suffix not in (".html", ".htm"):
        raise ArtifactError(f"the output {out} must end in .html")
    outputs.check_folder(out)


def page(material: Material) -> Html:
    """The whole page as HTML."""
    shown = Networks()
    body = [element for i, panel in enumerate(material.panels) for element in _panel(panel, shown, f"p{i}")]
    if material.predictors:
        elements = [element for file in material.predictors.values() for element in evidence.predictor(file)]
        body.append(_section("How exact is the accuracy predictor?", elements))
    body.append(_section("What was run on what", evidence.provenance(material)))
    spaces = ", ".join(dict.fromkeys(panel.space.name for panel in material.panels))
    title = f"Search in {spaces}"
    script = (HERE / "page.js").read_text()
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{checksum}'"
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", text(title)),
        tag("style", Html((HERE / "page.css").read_text())),
    ]
    files = ", ".join(file.path.name for file in material.files)
    header = tag("header", tag("h1", text(title)), tag("p", text(files), class_="hint"))
    data = tag("script", script_data(shown.data()), type="application/json", id="data")
    inside = [header, *body, tag("div", class_="tip", hidden=True), data, tag("script", Html(script))]
    return Html(
        "<!doctype html>\n" + tag("html", tag("head", *head), tag("body", tag("main", *inside)), lang="en") + "\n"
    )


def _panel(panel: Panel, shown: Networks, name: str) -> list[Html]:
    words = sections.score_words(panel.objective)[0].removeprefix("predicted ")
    cost = sections.COST_WORDS.get(panel.cost, panel.cost)
    many = len(panel.results) > 1
    elements = [
        sections.summary(panel),
        _section(f"{words.capitalize()} against {cost}", [sections.front(panel, shown, name=name)]),
        _section(f"The chosen network{'s' * many}, block by block", [sections.answers(panel)]),
    ]
    if measured := evidence.verified(panel, shown, name=f"{name}-v"):
        elements.append(_section("Predicted and measured", measured))
    if tables := evidence.tables(panel, shown, name=f"{name}-t"):
        elements.append(_section("How exact is the latency table?", tables))
    return elements


def _section(title: str, content: Sequence[Html]) -> Html:
    return tag("section", tag("h2", text(title)), join(content))
