"""The elements of a page, each from what was gathered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ofa_deploy.accuracy.intervals import NORMAL_90
from ofa_deploy.formatting import DASH, mapping, number
from ofa_deploy.report import networks as nets
from ofa_deploy.report.charts import COLOURS, Dot, Frame, Layer, front_chart
from ofa_deploy.report.markup import NOTHING, SPACE, Html, figure, join, tag, text
from ofa_deploy.report.material import Panel, Point, Series, first_limit
from ofa_deploy.report.networks import Figures, Networks
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import Candidate, LimitOutcome

WIDE, NARROW = (960, 500), (400, 380)
"""Pixels of the front chart on a screen and on a phone."""
COST_WORDS = {"latency": "latency", "macs": "multiply-accumulates", "params": "parameters", "size": "model size"}


def score_words(objective: str) -> tuple[str, str]:
    """What an objective's score is called, and its unit."""
    return ("predicted top-1", "%") if objective == "accuracy" else ("multiply-accumulates", "M")


def figures_of(panel: Panel, *, score: Any, cost: Any, macs: Any = None, params: Any = None) -> list[tuple[str, str]]:
    """What is said of one network, in the units of its panel."""
    name, unit = score_words(panel.objective)
    listed = [(name, figure(score, unit, places=2))]
    listed.append((f"predicted {COST_WORDS.get(panel.cost, panel.cost)}", figure(cost, panel.unit)))
    for what, value in (("MACs", number(macs)), ("parameters", number(params))):
        if value is not None:
            listed.append((what, figure(value / 1e6, "M", 3)))
    return listed


def result_figures(panel: Panel, result: SearchResult) -> list[tuple[str, str]]:
    """What is said of a chosen network: its costs, what they may be, and how sure the prediction is."""
    cost = first_limit(result).predicted
    listed = figures_of(panel, score=result.score, cost=cost, macs=result.macs, params=result.params)
    if half := interval(result):
        listed[0] = (listed[0][0], f"{result.score:.2f} ± {half:.2f} %")
    if result.limits:
        listed.insert(2, ("allowed", allowed(first_limit(result))))
    if (candidate := measured_of(result)) is not None:
        listed.insert(2, ("measured latency", figure(candidate.measured_ms, "ms")))
        if (top1 := number(candidate.measured_top1_percent)) is not None:
            listed.insert(1, ("measured top-1", figure(top1, "%", places=2)))
    for limit in result.limits[1:]:
        listed.append((f"{limit.name}, {limit.source}", figure(limit.predicted, limit.unit)))
    return listed


def candidates_of(result: SearchResult) -> Sequence[Candidate]:
    """The networks that were measured for a result; none where it went by predictions."""
    return result.verified.candidates if result.verified else ()


def measured_of(result: SearchResult) -> Candidate | None:
    """What was measured of the chosen network; None where nothing was."""
    return next((candidate for candidate in candidates_of(result) if candidate.arch == result.arch), None)


def kept(result: SearchResult) -> str:
    """Whether the chosen network was within the budget when it was measured; a dash where it was not measured."""
    return DASH if result.verified is None else "yes" if result.verified.within_budget else "NO"


def interval(result: SearchResult) -> float | None:
    """Half the length of the 90 % interval of a prediction, in points."""
    std = number(result.score_std)
    return None if std is None or result.objective != "accuracy" else NORMAL_90 * std


def allowed(limit: LimitOutcome) -> str:
    """What a limit allows, in words."""
    ends = (("≥", number(limit.lower)), ("≤", number(limit.upper)))
    words = [f"{sign}{SPACE}{figure(end, limit.unit)}" for sign, end in ends if end is not None]
    return ", ".join(words) or "any"


def swatch(colour: int) -> Html:
    """A series' colour beside its name."""
    return tag("i", class_=f"swatch s{colour % COLOURS}")


def table(head: Sequence[str], rows: Sequence[Sequence[Html]]) -> Html:
    """A table; the first column holds names, the others figures. On a phone each row becomes a list."""
    names = [cell.replace("-", "\u2011") for cell in head]  # unbroken
    heading = tag("tr", *(tag("th", text(name), scope="col") for name in names))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", c, data_of=n) for c, n in zip(row[1:], names[1:], strict=True)),
        )
        for row in rows
    ]
    return tag("div", tag("table", tag("thead", heading), tag("tbody", *body)), class_="scroll", tabindex=0)


def listing(pairs: Figures, class_: str = "figures") -> Html:
    """Names and values."""
    return tag("dl", *(tag("div", tag("dt", text(a)), tag("dd", text(b))) for a, b in pairs), class_=class_)


def summary(panel: Panel) -> Html:
    """The results of a panel at a glance."""
    best = {"accuracy": "most accurate", "macs": "largest"}.get(panel.objective, "best")
    where = f" on {panel.series[0].name}" if len(panel.series) == 1 and panel.cost == "latency" else ""
    single = len(panel.results) == 1
    words = f"The {best} network" if single else f"{len(panel.results)} networks, each the {best}"
    cost = COST_WORDS.get(panel.cost, panel.cost)
    limits = f"with {cost} {allowed(first_limit(panel.results[0][1]))}" if single else "within its limits"
    words += f" of {panel.space.name} that the search found {limits}{where}."
    foreign = any(mapping(r.inputs).get("table_of_this_machine") is False for _, r in panel.results)
    note = "The latency table is of another machine than the one that searched: latencies hold for that machine."
    lede = tag("p", text(words), *([tag("span", text(note), class_="warning")] if foreign else []), class_="lede")
    shown = listing(result_figures(panel, panel.results[0][1]), "tiles") if single else _rows(panel)
    return join([lede, shown])


def _rows(panel: Panel) -> Html:
    """A table with a row a result."""
    score, unit = score_words(panel.objective)
    several = len(panel.series) > 1
    measured = any(measured_of(result) is not None for _, result in panel.results)
    head = ["device"] * several + ["allowed", f"predicted {panel.cost}"] + ["measured latency", "kept"] * measured
    head += [f"{score}, {unit}"] + ["measured top-1, %"] * measured + ["MACs", "parameters"]
    rows = []
    for colour, result in panel.results:
        half, candidate = interval(result), measured_of(result)
        cells = [panel.series[colour].name] * several + [allowed(first_limit(result))]
        cells.append(figure(first_limit(result).predicted, panel.unit))
        cells += [figure(candidate and candidate.measured_ms, "ms"), kept(result)] * measured
        cells.append(figure(result.score, places=2) + (f" ± {half:.2f}" if half else ""))
        cells += [figure(candidate and candidate.measured_top1_percent, places=2)] * measured
        cells += [_millions(result.macs), _millions(result.params)]
        rows.append([join([swatch(colour), text(cells[0])]), *map(text, cells[1:])])
    return table(head, rows)


def _millions(value: Any) -> str:
    count = number(value)
    return DASH if count is None else figure(count / 1e6, "M", 3)


def front(panel: Panel, shown: Networks, *, name: str) -> Html:
    """Score against cost: random networks, fronts, and the answers of searches.

    Args:
        panel: the results.
        shown: gets the networks that are drawn.
        name: what the names of the charts begin with.
    """
    layers = [_layer(panel, series, i, shown) for i, series in enumerate(panel.series)]
    score, unit = score_words(panel.objective)
    labels = f"predicted {COST_WORDS.get(panel.cost, panel.cost)} ({panel.unit})", f"{score} ({unit})"
    charts = [
        tag("div", front_chart(layers, Frame(labels, size, f"{name}-{kind}"), unit=panel.unit), class_=kind)
        for kind, size in (("wide", WIDE), ("narrow", NARROW))
    ]
    caption = tag("figcaption", _explanation(panel, layers), _missing(panel, layers))
    return tag("figure", _legend(panel, layers), *charts, caption, nets.pinned(), class_="chart")


def _explanation(panel: Panel, layers: Sequence[Layer]) -> Html:
    """What a front chart shows, and how to look at its networks."""
    few = len(layers[0].cloud)
    words = [f"{few} random networks of the space lie behind"] * bool(few)
    corrected = any(r.verified and r.verified.table_correction_percent is not None for _, r in panel.results)
    words += ["their latencies are by the table as it was built, chosen ones by the corrected table"] * (
        corrected and bool(few)
    )
    words += ["bars are 90 % intervals of the prediction"] * any(d.span for layer in layers for d in layer.answers)
    words += ["rings are what was measured of the chosen networks"] * any(layer.measured for layer in layers)
    sentence = f"{'; '.join(words).capitalize()}{'. ' if words else ''}"
    hint = "Point at a network to see its figures, click to see its blocks; arrow keys work too."
    return tag("p", text(sentence + hint), class_="hint")


def _missing(panel: Panel, layers: Sequence[Layer]) -> Html:
    """Names the series without random networks, and says why there are none."""
    missing = [series.name for series, layer in zip(panel.series, layers, strict=True) if not layer.cloud]
    if not missing:
        return NOTHING
    words = f"The table or the predictor was not found, so no random networks: {'; '.join(missing)}."
    return tag("p", text(words), class_="note")


def _legend(panel: Panel, layers: Sequence[Layer]) -> Html:
    """Buttons that show and hide series and kinds of networks."""

    def button(what: str, *content: Html) -> Html:
        return tag("button", *content, type="button", data_toggles=what, aria_pressed="true")

    series = [button(f'[data-series="{i}"]', swatch(i), text(each.name)) for i, each in enumerate(panel.series)]
    kinds = [("chosen", "chosen"), ("limits", "limits")]
    kinds.insert(1, ("front", "front")) if any(layer.fronts for layer in layers) else None
    kinds.append(("random", "random networks")) if any(layer.cloud for layer in layers) else None
    marks = [button(f".{kind}", tag("i", class_=f"mark {kind}"), text(words)) for kind, words in kinds]
    return tag("div", tag("div", *series), tag("div", *marks), class_="legend")


def _layer(panel: Panel, series: Series, colour: int, shown: Networks) -> Layer:
    """The dots of a series, each of a network that the script knows."""
    where = f", {series.name}" * (len(panel.series) > 1)
    answers, measured = [], []
    for result in series.results:
        half = interval(result)
        if (cost := number(first_limit(result).predicted)) is None:
            continue
        network = shown.add(panel.space, result.arch, f"Chosen{where}", result_figures(panel, result))
        span = (result.score - half, result.score + half) if half else None
        answers.append(Dot(cost, result.score, network, span))
        if panel.cost == "latency" and panel.objective == "accuracy":
            measured += [(len(answers) - 1, dot) for dot in _ring(result, network)]
    budgets = [upper for r in series.results if (upper := number(first_limit(r).upper)) is not None]
    proofs = [r.certificate for r in series.results if r.certificate]
    bounds = [proof.bound_percent for proof in proofs if number(proof.bound_percent) is not None]
    cloud = _dots(panel, series.cloud, shown, title=f"Random network{where}")
    fronts = [_dots(panel, points, shown, title=f"On the front{where}") for points in series.fronts]
    return Layer(colour, cloud, fronts, answers, measured, budgets, bounds)


def _dots(panel: Panel, points: Sequence[Point], shown: Networks, *, title: str) -> list[Dot]:
    """A dot for each point, whose network gets the title."""
    genes = panel.space.genes([point.arch for point in points])
    costs = zip(panel.space.macs(genes), panel.space.params(genes), strict=True)
    dots = []
    for point, (macs, params) in zip(points, costs, strict=True):
        figures = figures_of(panel, score=point.score, cost=point.cost, macs=macs, params=params)
        dots.append(Dot(point.cost, point.score, shown.add(panel.space, point.arch, title, figures)))
    return dots


def _ring(result: SearchResult, network: int) -> list[Dot]:
    """The ring of a chosen network: its measured latency and top-1, or its prediction where that was not measured."""
    candidate = measured_of(result)
    if candidate is None or number(candidate.measured_ms) is None:
        return []
    top1 = number(candidate.measured_top1_percent)
    return [Dot(candidate.measured_ms, result.score if top1 is None else top1, network, hollow=True)]


def answers(panel: Panel) -> Html:
    """The networks that searches answered with, block by block."""
    cards = []
    for colour, result in panel.results:
        name = f"{figure(result.score, score_words(panel.objective)[1], places=2)}"
        cost = figure(first_limit(result).predicted, panel.unit)
        title = join([swatch(colour), text(f"{name} at {cost}, as predicted")])
        if len(panel.series) > 1:
            title = join([title, tag("span", text(panel.series[colour].name), class_="where")])
        cards.append(nets.card(panel.space, result.arch, title, [], _proof(result)))
    return join([nets.key(panel.space), *cards])


def _proof(result: SearchResult) -> list[Html]:
    """What a certificate says, if there is one."""
    proof = result.certificate
    if proof is None:
        return []
    words = (
        f"{'Proof' if proof.proven else 'Bound'}: no network within the limits is predicted above "
        f"{figure(proof.bound_percent, '%', places=3)}; the best known is at "
        f"{figure(proof.found_percent, '%', places=3)} ({figure(proof.seconds, 's', 2)} of computing). "
        "This is about predictor and table, not about true accuracy."
    )
    return [tag("p", text(words), class_="proof")]
