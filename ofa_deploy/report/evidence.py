"""The elements of a page that say how far its figures can be trusted: what was measured, and on what."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa_deploy.errors import ArchError
from ofa_deploy.formatting import DASH, mapping, number
from ofa_deploy.report import networks as nets
from ofa_deploy.report.charts import Dot, Frame, agreement_chart, deviation_chart
from ofa_deploy.report.markup import Html, figure, tag, text
from ofa_deploy.report.material import Material, Panel, PredictorFile, TableFile, first_limit, request_of
from ofa_deploy.report.networks import Networks
from ofa_deploy.report.sections import allowed, candidates_of, kept, listing, swatch, table
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import Candidate, Verified
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace

SIZE = (440, 340)
"""Pixels of the charts that stand side by side."""
WITHIN = "within the budget, as measured"


@dataclass(frozen=True)
class Style:
    """How the charts of one series look.

    Attributes:
        colour: number of the series' colour, from 0.
        name: what the names of its charts begin with.
    """

    colour: int
    name: str

    def frame(self, across: str, up: str, kind: str) -> Frame:
        """A chart of the series, with the labels of its axes."""
        return Frame((across, up), SIZE, f"{self.name}-{kind}")


def verified(panel: Panel, shown: Networks, *, name: str) -> list[Html]:
    """Predicted and measured figures of the candidates of all results that have them, a device's together.

    Args:
        panel: the results.
        shown: gets the networks that are drawn.
        name: what the names of the charts begin with.
    """
    elements = []
    for colour, series in enumerate(panel.series):
        if results := [result for result in series.results if candidates_of(result)]:
            heading = tag("h3", swatch(colour), text(series.name))
            elements += [heading, *_verified(panel, results, shown, Style(colour, f"{name}-{colour}"))]
    return elements


def _verified(panel: Panel, results: Sequence[SearchResult], shown: Networks, style: Style) -> list[Html]:
    """What was measured of the candidates of one device."""
    several = len(results) > 1
    cells: list[list[Html]] = []
    latency: list[Dot] = []
    accuracy: list[Dot] = []
    for result in results:
        budget, rows = allowed(first_limit(result)), candidates_of(result)
        for place, candidate in enumerate(rows, 1):
            title = f"Candidate {place}" + f", {budget}" * several
            figures, dots = _candidate(panel, candidate, title, shown)
            words = f"{budget}, {place}" if several and len(rows) > 1 else budget if several else str(place)
            cells.append(_row(result, candidate, words, figures, several=several))
            latency += filter(None, dots[:1])
            accuracy += filter(None, dots[1:])
    charts = [
        agreement_chart(dots, style.frame(f"predicted {what}", f"measured {what}", kind), colour=style.colour)
        for dots, what, kind in ((latency, "latency (ms)", "ms"), (accuracy, "top-1 (%)", "top1"))
        if dots
    ]
    head = ["allowed" if several else "", "predicted", "measured", "predicted top-1", "measured top-1"]
    head += ["kept"] * several + ["network"]
    words = (
        "Dashed: agreement. Bars: how far repeated measurements of a latency reach up; 95 % interval of an accuracy."
    )
    loops = listing(_loops([result.verified for result in results if result.verified]), "tiles small")
    return [loops, _pair(charts), tag("p", text(words), class_="hint"), table(head, cells)]


def _row(
    result: SearchResult, candidate: Candidate, words: str, figures: Sequence[str], *, several: bool
) -> list[Html]:
    """The cells of a candidate, marked where it is the answer; with several results, whether that kept its budget."""
    answer = candidate.arch == result.arch
    words += " chosen" * (answer and len(candidates_of(result)) > 1)
    first = tag("b", text(words)) if answer else text(words)
    within = [text(kept(result) if answer else "")] * several
    return [first, *map(text, figures), *within, tag("code", text(candidate.arch))]


def _candidate(
    panel: Panel, candidate: Candidate, title: str, shown: Networks
) -> tuple[list[str], tuple[Dot | None, Dot | None]]:
    """Figures of a measured network, and its dots: of latency and of accuracy."""
    ms, top1 = number(candidate.measured_ms), number(candidate.measured_top1_percent)
    spread, interval = number(candidate.spread_percent), number(candidate.interval95_points)
    figures = [
        ("predicted", figure(candidate.predicted_ms, "ms")),
        ("measured", figure(ms, "ms") + (f" (spread {spread:.2g} %)" if spread else "")),
        ("predicted top-1", figure(candidate.predicted_top1_percent, "%", places=2)),
        ("measured top-1", figure(top1, "%", places=2) + (f" ± {interval:.2f}" if interval else "")),
    ]
    network = shown.add(panel.space, candidate.arch, title, figures)
    predicted_ms, predicted_top1 = number(candidate.predicted_ms), number(candidate.predicted_top1_percent)
    latency = accuracy = None
    if predicted_ms is not None and ms is not None:
        latency = Dot(predicted_ms, ms, network, (ms, ms * (1 + spread / 100)) if spread else None)
    if predicted_top1 is not None and top1 is not None:
        accuracy = Dot(predicted_top1, top1, network, (top1 - interval, top1 + interval) if interval else None)
    return [value for _, value in figures], (latency, accuracy)


def _loops(loops: Sequence[Verified]) -> list[tuple[str, str]]:
    """How measuring went for each result, in one list; where results differ, all their values."""
    values: dict[str, list[str]] = {}
    for name, value in (pair for verified in loops for pair in _loop(verified)):
        values.setdefault(name, []).append(value)
    listed = {name: ", ".join(dict.fromkeys(each)) for name, each in values.items()}
    if len(loops) > 1:
        listed[WITHIN] = f"{values[WITHIN].count('yes')} of {len(values[WITHIN])}"
    return list(listed.items())


def _loop(verified: Verified) -> list[tuple[str, str]]:
    """How measuring went for one result."""
    listed = [(WITHIN, "yes" if verified.within_budget else "NO"), ("rounds of measuring", figure(verified.rounds))]
    if (corrected := number(verified.table_correction_percent)) is not None:
        listed.append(("the table was corrected by", f"{corrected:+.2g} %"))
    if (slower := number(verified.machine_slower_percent)) is not None:
        listed.append((f"the machine ran {'slower' if slower >= 0 else 'faster'} by", f"{abs(slower):.2g} %"))
    return listed


def tables(panel: Panel, shown: Networks, *, name: str) -> list[Html]:
    """How wrong each latency table is about the whole networks that were measured with it.

    Args:
        panel: the results.
        shown: gets the networks that are drawn.
        name: what the names of the charts begin with.
    """
    elements = []
    for colour, series in enumerate(panel.series):
        if series.table:
            heading = tag("h3", swatch(colour), text(series.table.table.label))
            elements += [heading, *_table(panel.space, series.table, shown, Style(colour, f"{name}-{colour}"))]
    return elements


def _table(space: SearchSpace, file: TableFile, shown: Networks, style: Style) -> list[Html]:
    """How wrong one latency table is."""
    agreements, errors = _table_dots(space, file, shown)
    error = file.table.error
    p95 = number(error.get("p95_percent")) if error.get("networks") else None
    figures = [
        ("off on average", figure(error.get("mape_percent"), "%", 2)),
        ("95 % are within", figure(p95, "%", 2)),
        ("at worst", figure(error.get("worst_percent"), "%", 2)),
        ("bias", figure(error.get("bias_percent"), "%", 2)),
        ("Spearman", figure(error.get("spearman"), places=3)),
        ("networks", figure(error.get("networks"))),
    ]
    tiles = listing(figures if error.get("networks") else [("error", "not known")], "tiles small")
    if not agreements:
        return [tiles]
    off = style.frame("measured (ms)", "predicted is off by (%)", "off")
    charts = [
        agreement_chart(agreements, style.frame("predicted (ms)", "measured (ms)", "agree"), colour=style.colour),
        deviation_chart(errors, off, band=p95, colour=style.colour),
    ]
    words = "Whole networks, each predicted by a calibration that had not seen it."
    words += " Shaded: the error that 95 % of them stay under." if p95 is not None else ""
    return [tiles, _pair(charts), tag("p", text(words), class_="hint")]


def _table_dots(space: SearchSpace, file: TableFile, shown: Networks) -> tuple[list[Dot], list[Dot]]:
    """The networks that were measured with a table: measured against predicted latency, and the error in percent."""
    agreements, errors = [], []
    for row in file.table.networks:
        predicted_ms, ms = number(row.get("predicted_ms")), number(row.get("measured_ms"))
        if predicted_ms is None or ms is None or ms <= 0:
            continue
        off = 100 * (predicted_ms / ms - 1)
        figures = [
            ("predicted", figure(predicted_ms, "ms")),
            ("measured", figure(ms, "ms")),
            ("off by", f"{off:+.2f} %"),
        ]
        network = _number_of(space, row.get("arch"), figures, shown)
        agreements.append(Dot(predicted_ms, ms, network))
        errors.append(Dot(ms, off, network))
    return agreements, errors


def predictor(file: PredictorFile) -> list[Html]:
    """How wrong a predictor is about networks that it was not fitted on."""
    description, error = file.description, mapping(file.description.get("error"))
    figures = [
        ("RMSE", figure(error.get("rmse_points"), "points", 3)),
        ("Kendall's tau", figure(error.get("kendall_tau"), places=3)),
        ("tau in one resolution", figure(error.get("kendall_tau_within_resolution"), places=3)),
        ("in its 90 % interval", figure(error.get("coverage90_percent"), "%", 3)),
        ("fitted on", figure(error.get("fitted"), "networks")),
    ]
    noise = mapping(description.get("label_noise"))
    if (points := number(noise.get("heldout_points"))) is not None:
        figures.append(("noise of the labels", f"{points:.2f} points"))
    pieces = []
    if file.plot:
        source = f"data:image/png;base64,{base64.b64encode(file.plot).decode()}"
        pieces.append(tag("img", src=source, alt="measured against predicted accuracy of each sample"))
    if rows := _models(description):
        pieces.append(table(["model", "RMSE, points", "Kendall's tau", "Spearman's rho"], rows))
    heading = tag("h3", text(f"{file.predictor.space.name}: {description.get('model', DASH)}"))
    return [heading, listing(figures, "tiles small"), tag("div", *pieces, class_="pair")]


def _models(description: Mapping[str, Any]) -> list[list[Html]]:
    """A row for each model that was compared; the name of the predictor's is bold."""
    rows = []
    for name, values in mapping(description.get("models")).items():
        errors = mapping(values)
        cells = [figure(errors.get(key), places=3) for key in ("rmse_points", "kendall_tau", "spearman_rho")]
        label = tag("b", text(name)) if name == description.get("model") else text(name)
        rows.append([label, *map(text, cells)])
    return rows


def provenance(material: Material) -> list[Html]:
    """What was run on what."""
    elements = []
    for file in material.files:
        listed = [("result", str(file.path)), ("SHA-256", file.sha256), *_made_with(file.made_with)]
        elements.append(listing(listed, "long"))
    for panel in material.panels:
        for colour, series in enumerate(panel.series):
            elements.append(tag("h3", swatch(colour), text(f"{panel.space.name}, {series.name}")))
            elements += [listing(_search(result), "long") for result in series.results]
            if series.table:
                elements.append(listing(_artifact("latency table", series.table), "long"))
    elements += [listing(_artifact("predictor", file), "long") for file in material.predictors.values()]
    return elements


def _artifact(what: str, file: TableFile | PredictorFile) -> list[tuple[str, str]]:
    """Where an artifact lies and how it came to be."""
    description = file.description
    origin = [(key, str(description[key])) for key in ("created", "source") if description.get(key)]
    made_with = _made_with(mapping(description.get("made_with")))
    return [(what, str(file.path)), ("SHA-256", str(description.get("sha256"))), *origin, *made_with]


def _search(result: SearchResult) -> list[tuple[str, str]]:
    """What was asked of a search, and how it went."""
    options = [
        key if value is True else f"{key} {_flat(value)}"
        for key, value in request_of(result).items()
        if value not in (None, False, [], "")
    ]
    limits = [
        f"{limit.name} {allowed(limit)}, margin {figure(limit.margin_percent, '%', 3)}" for limit in result.limits
    ]
    evaluations, risk = figure(result.evaluations, "networks", 9), f"{figure(result.risk)} standard deviations"
    listed = [("asked for", "; ".join(options))] * bool(options)
    listed.append(("limits", "; ".join(limits) or DASH))
    listed.append(("searched", f"{evaluations}, seed {result.settings.seed}, risk {risk}"))
    if result.front:
        listed.append(("front", f"{len(result.front)} networks, hypervolume {figure(result.hypervolume)}"))
    here = mapping(result.inputs).get("table_of_this_machine")
    if here is not None:
        listed.append(("table", "of the machine that searched" if here else "not of the machine that searched"))
    return listed


def _made_with(made_with: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Machine and versions, as far as a file tells them."""
    machine, packages = mapping(made_with.get("machine")), mapping(made_with.get("packages"))
    listed = []
    if machine:
        words = [
            str(machine.get("cpu", DASH)),
            f"{_flat(machine.get('cores', DASH))} cores",
            str(machine.get("system", "")),
        ]
        listed.append(("made on", ", ".join(filter(None, words))))
    if packages or made_with.get("python"):
        python = f"Python {_flat(made_with.get('python', DASH))}"
        listed.append(("made with", ", ".join([python, *(f"{k} {_flat(v)}" for k, v in packages.items())])))
    return listed


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _number_of(space: SearchSpace, arch: Any, figures: nets.Figures, shown: Networks) -> int | None:
    """The number of a calibration network for the script; None where its text is no network of the space."""
    try:
        return shown.add(space, space.check(Arch.parse(arch)), "A network of the calibration", figures)
    except (ArchError, TypeError, AttributeError):
        return None


def _pair(charts: Sequence[Html]) -> Html:
    return tag("figure", *(tag("div", chart) for chart in charts), nets.pinned(), class_="chart pair")
