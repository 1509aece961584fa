"""The parts of a page that say how far its figures can be trusted: what was measured, and on what."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArchError
from ofa_deploy.formatting import DASH, mapping, number
from ofa_deploy.report import networks as nets
from ofa_deploy.report.charts import Dot, agreement_chart, deviation_chart
from ofa_deploy.report.markup import Html, figure, tag, text
from ofa_deploy.report.material import Material, Panel, PredictorFile, TableFile, first_limit, request_of
from ofa_deploy.report.networks import Networks
from ofa_deploy.report.sections import allowed, candidates_of, kept, listing, swatch, table
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_parts import Candidate, Verified
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace

SIZE = (440, 340)
"""Pixels of the charts that stand side by side."""
WITHIN = "within the budget, as measured"


def verified(panel: Panel, shown: Networks, name: str) -> list[Html]:
    """Predicted and measured figures of the candidates of all results that have them, a device's together."""
    parts = []
    for colour, series in enumerate(panel.series):
        if found := [result for result in series.results if candidates_of(result)]:
            parts += _verified(panel, colour, found, shown, f"{name}-{colour}")
    return parts


def _verified(panel: Panel, colour: int, found: Sequence[SearchResult], shown: Networks, name: str) -> list[Html]:
    several = len(found) > 1
    cells: list[list[Html]] = []
    latency: list[Dot] = []
    accuracy: list[Dot] = []
    for result in found:
        budget, rows = allowed(first_limit(result)), candidates_of(result)
        for place, candidate in enumerate(rows, 1):
            chosen, title = candidate.arch == result.arch, f"Candidate {place}" + f", {budget}" * several
            said, dots = _candidate(panel, candidate, title, shown)
            words = f"{budget}, {place}" if several and len(rows) > 1 else budget if several else str(place)
            words += " chosen" * (chosen and len(rows) > 1)
            network = tag("code", text(candidate.arch))
            within = [text(kept(result) if chosen else "")] * several
            cells.append([tag("b", text(words)) if chosen else text(words), *map(text, said), *within, network])
            for found_dots, dot in zip((latency, accuracy), dots, strict=True):
                found_dots += [dot] if dot else []
    charts = [
        agreement_chart(dots, (f"predicted {what}", f"measured {what}"), SIZE, f"{name}-{kind}", colour)
        for dots, what, kind in ((latency, "latency (ms)", "ms"), (accuracy, "top-1 (%)", "top1"))
        if dots
    ]
    head = ["allowed" if several else "", "predicted", "measured", "predicted top-1", "measured top-1"]
    head += ["kept"] * several + ["network"]
    words = (
        "Dashed: agreement. Bars: how far repeated measurements of a latency reach up; 95 % interval of an accuracy."
    )
    return [
        tag("h3", swatch(colour), text(panel.series[colour].name)),
        listing(_loops([result.verified for result in found if result.verified]), "tiles small"),
        _pair(charts),
        tag("p", text(words), class_="hint"),
        table(head, cells),
    ]


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


def tables(panel: Panel, shown: Networks, name: str) -> list[Html]:
    """How wrong each latency table is about the whole networks that were measured with it."""
    parts = []
    for colour, series in enumerate(panel.series):
        if series.table:
            parts += _table(panel.space, series.table, colour, shown, f"{name}-{colour}")
    return parts


def _table(space: SearchSpace, found: TableFile, colour: int, shown: Networks, name: str) -> list[Html]:
    error, dots, errors = found.table.error, [], []
    for row in found.table.networks:
        said, ms = number(row.get("predicted_ms")), number(row.get("measured_ms"))
        if said is None or ms is None or ms <= 0:
            continue
        off = 100 * (said / ms - 1)
        figures = [("predicted", figure(said, "ms")), ("measured", figure(ms, "ms")), ("off by", f"{off:+.2f} %")]
        which = _known(space, row.get("arch"), "A network of the calibration", figures, shown)
        dots.append(Dot(said, ms, which))
        errors.append(Dot(ms, off, which))
    p95 = number(error.get("p95_percent")) if error.get("networks") else None
    figures = [
        ("off on average", figure(error.get("mape_percent"), "%", 2)),
        ("95 % are within", figure(p95, "%", 2)),
        ("at worst", figure(error.get("worst_percent"), "%", 2)),
        ("bias", figure(error.get("bias_percent"), "%", 2)),
        ("Spearman", figure(error.get("spearman"), places=3)),
        ("networks", figure(error.get("networks"))),
    ]
    if not error.get("networks"):
        figures = [("error", "not known")]
    heading = tag("h3", swatch(colour), text(found.table.label))
    if not dots:
        return [heading, listing(figures, "tiles small")]
    charts = [
        agreement_chart(dots, ("predicted (ms)", "measured (ms)"), SIZE, f"{name}-agree", colour),
        deviation_chart(errors, ("measured (ms)", "predicted is off by (%)"), p95, SIZE, f"{name}-off", colour),
    ]
    words = "Whole networks, each predicted by a calibration that had not seen it."
    words += " Shaded: the error that 95 % of them stay under." if p95 is not None else ""
    return [heading, listing(figures, "tiles small"), _pair(charts), tag("p", text(words), class_="hint")]


def predictor(found: PredictorFile) -> list[Html]:
    """How wrong a predictor is about networks that it was not fitted on."""
    about, error = found.about, mapping(found.about.get("error"))
    named = [
        ("RMSE", figure(error.get("rmse_points"), "points", 3)),
        ("Kendall's tau", figure(error.get("kendall_tau"), places=3)),
        ("tau in one resolution", figure(error.get("kendall_tau_within_resolution"), places=3)),
        ("in its 90 % interval", figure(error.get("coverage90_percent"), "%", 3)),
        ("fitted on", figure(error.get("fitted"), "networks")),
    ]
    noise = mapping(about.get("label_noise"))
    if (held := number(noise.get("heldout_points"))) is not None:
        named.append(("noise of the labels", f"{held:.2f} points"))
    rows = []
    for name, values in mapping(about.get("models")).items():
        one, own = mapping(values), name == about.get("model")
        cells = [figure(one.get(key), places=3) for key in ("rmse_points", "kendall_tau", "spearman_rho")]
        rows.append([tag("b", text(name)) if own else text(name), *map(text, cells)])
    parts = [
        tag("h3", text(f"{found.predictor.space.name}: {about.get('model', DASH)}")),
        listing(named, "tiles small"),
    ]
    pieces = []
    if found.plot:
        source = f"data:image/png;base64,{base64.b64encode(found.plot).decode()}"
        pieces.append(tag("img", src=source, alt="measured against predicted accuracy of each sample"))
    if rows:
        pieces.append(table(["model", "RMSE, points", "Kendall's tau", "Spearman's rho"], rows))
    return [*parts, tag("div", *pieces, class_="pair")]


def provenance(material: Material) -> list[Html]:
    """What was run on what."""
    parts = []
    for path, sha256, made in material.files:
        listed = [("result", str(path)), ("SHA-256", sha256), *_made(made)]
        parts.append(listing(listed, "long"))
    for panel in material.panels:
        for colour, series in enumerate(panel.series):
            parts.append(tag("h3", swatch(colour), text(f"{panel.space.name}, {series.name}")))
            parts += [listing(_search(result), "long") for result in series.results]
            if series.table:
                about = series.table.about
                parts.append(listing(_file("latency table", series.table.path, about), "long"))
    for found in material.predictors.values():
        parts.append(listing(_file("predictor", found.path, found.about), "long"))
    return parts


def _file(what: str, path: Path, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where an artifact lies and how it came to be."""
    known = [(key, str(about[key])) for key in ("created", "source") if about.get(key)]
    return [(what, str(path)), ("SHA-256", str(about.get("sha256"))), *known, *_made(mapping(about.get("made_with")))]


def _search(result: SearchResult) -> list[tuple[str, str]]:
    asked = [
        key if value is True else f"{key} {_flat(value)}"
        for key, value in request_of(result).items()
        if value not in (None, False, [], "")
    ]
    own = mapping(result.inputs).get("table_of_this_machine")
    listed = [("asked for", "; ".join(asked))] * bool(asked)
    listed += [
        (
            "limits",
            "; ".join(
                f"{limit.name} {allowed(limit)}, margin {figure(limit.margin_percent, '%', 3)}"
                for limit in result.limits
            )
            or DASH,
        ),
        (
            "searched",
            f"{figure(result.evaluations, 'networks', 9)}, seed {result.settings.seed}, risk "
            f"{figure(result.risk)} standard deviations",
        ),
    ]
    if result.front:
        listed.append(("front", f"{len(result.front)} networks, hypervolume {figure(result.hypervolume)}"))
    if own is not None:
        listed.append(("table", "of the machine that searched" if own else "not of the machine that searched"))
    return listed


def _made(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, packages = mapping(made.get("machine")), mapping(made.get("packages"))
    listed = []
    if machine:
        words = [
            str(machine.get("cpu", DASH)),
            f"{_flat(machine.get('cores', DASH))} cores",
            str(machine.get("system", "")),
        ]
        listed.append(("made on", ", ".join(filter(None, words))))
    if packages or made.get("python"):
        versions = [f"Python {_flat(made.get('python', DASH))}", *(f"{k} {_flat(v)}" for k, v in packages.items())]
        listed.append(("made with", ", ".join(versions)))
    return listed


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _known(space: SearchSpace, arch: Any, title: str, figures: nets.Figures, shown: Networks) -> int | None:
    """The number of a network for the script; None where its text is none of the space."""
    try:
        return shown.add(space, space.check(Arch.parse(arch)), title, figures)
    except (ArchError, TypeError, AttributeError):
        return None


def _pair(charts: Sequence[Html]) -> Html:
    return tag("figure", *(tag("div", chart) for chart in charts), nets.pinned(), class_="chart pair")
