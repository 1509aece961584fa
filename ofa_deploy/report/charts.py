"""Charts of networks, as SVG: fronts, and how well predictions agree with measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofa_deploy.report.axes import Axis, axis, clip, drawn
from ofa_deploy.report.markup import NOTHING, Html, join, tag, text

COLOURS = 6
"""Of series, after which they begin anew."""
CUT = 4
"""Times the range of the points, beyond which intervals do not stretch an axis."""
MARGIN, AGREEMENT_MARGIN = 0.04, 0.1
"""Room around the values of a chart, and of an agreement chart, as a share of their range."""
NEAR = 1.15
"""A budget beyond the dearest network is shown up to this multiple of its cost."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 46
"""Room around a chart's area, in pixels."""
LETTER, LINE = 7.4, 15
"""Width of a letter and height of a line of small text, in pixels, about."""


@dataclass(frozen=True)
class Frame:
    """What a chart is drawn into.

    Attributes:
        labels: of the horizontal and the vertical axis, with units.
        size: width and height in pixels.
        name: of the chart, unique on the page.
    """

    labels: tuple[str, str]
    size: tuple[int, int]
    name: str


@dataclass(frozen=True)
class Dot:
    """A point of a chart.

    Attributes:
        x: its value on the horizontal axis.
        y: its value on the vertical axis.
        network: number of the network that it stands for, as the page's script counts them; None without one.
        span: the interval of `y`, from its lower to its upper end; None without one.
        hollow: drawn as a ring.
    """

    x: float
    y: float
    network: int | None = None
    span: tuple[float, float] | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Layer:
    """What a front chart shows of one series.

    Attributes:
        colour: number of its colour, from 0.
        cloud: random networks.
        fronts: each a sequence from cheap to dear.
        answers: the networks that searches answered with, as predicted.
        measured: numbers of answers that were measured, and their dots as measured.
        budgets: largest costs that were allowed.
        bounds: proved upper bounds of the score.
    """

    colour: int
    cloud: Sequence[Dot]
    fronts: Sequence[Sequence[Dot]]
    answers: Sequence[Dot]
    measured: Sequence[tuple[int, Dot]]
    budgets: Sequence[float]
    bounds: Sequence[float]

    @property
    def dots(self) -> list[Dot]:
        """All of them."""
        measured = (dot for _, dot in self.measured)
        return [*self.cloud, *(dot for front in self.fronts for dot in front), *self.answers, *measured]


def front_chart(layers: Sequence[Layer], frame: Frame, *, unit: str) -> Html:
    """Score against cost.

    Args:
        layers: one a series.
        frame: what the chart is drawn into.
        unit: of the cost.
    """
    dots = [dot for layer in layers for dot in layer.dots]
    xs = [d.x for d in dots]
    near = max(xs, default=0) * NEAR
    xs += [budget for layer in layers for budget in layer.budgets if budget < near]
    x, y = _area(xs, [v for d in dots for v in _ends(d)], frame)
    rows: list[float] = []
    inside = [
        tag("g", *(_series(layer, _points(layer.cloud, x, y, 2.2)) for layer in layers), class_="random"),
        tag("g", *(_series(layer, _budgets(layer, x, y, unit, rows)) for layer in layers), class_="limits"),
        tag("g", *(_series(layer, *(_front(f, x, y) for f in layer.fronts)) for layer in layers), class_="front"),
        tag("g", *(_series(layer, _answers(layer, x, y)) for layer in layers), class_="chosen"),
    ]
    return _svg(x, y, frame, *inside)


def agreement_chart(dots: Sequence[Dot], frame: Frame, *, colour: int) -> Html:
    """Measured against predicted values on two equal axes, so that they agree on the diagonal.

    Intervals much longer than the errors are cut off.

    Args:
        dots: one a network; none gives no chart that could be drawn.
        frame: what the chart is drawn into.
        colour: number of the series' colour, from 0.
    """
    values, ends = [v for d in dots for v in (d.x, d.y)], [end for d in dots for end in _ends(d)]
    longest = CUT * (max(values) - min(values))
    values = values if max(ends) - min(ends) > longest else [*values, *ends]
    x, y = _area(values, values, frame, margin=AGREEMENT_MARGIN)
    line = tag("line", x1=x.start, y1=y.start, x2=x.end, y2=y.end, class_="diagonal")
    body = tag("g", _intervals(dots, x, y), _points(dots, x, y, 3.6), class_=f"s{colour % COLOURS} solid")
    return _svg(x, y, frame, line, body)


def deviation_chart(dots: Sequence[Dot], frame: Frame, *, band: float | None, colour: int) -> Html:
    """Relative errors around zero.

    Args:
        dots: one a network.
        frame: what the chart is drawn into.
        band: that most errors stay within on either side of zero; None shows none.
        colour: number of the series' colour, from 0.
    """
    shown = [band, -band] if band is not None else []
    x, y = _area([d.x for d in dots], [0, *(d.y for d in dots), *shown], frame)
    elements = []
    if band is not None:
        area = {"x": x.start, "y": y(band), "width": x.end - x.start, "height": y(-band) - y(band)}
        elements.append(tag("rect", **area, class_=f"band s{colour % COLOURS}"))
    elements.append(tag("line", x1=x.start, x2=x.end, y1=y(0), y2=y(0), class_="diagonal"))
    body = tag("g", _points(dots, x, y, 3.6), class_=f"s{colour % COLOURS} solid")
    return _svg(x, y, frame, *elements, body)


def _area(xs: Sequence[float], ys: Sequence[float], frame: Frame, *, margin: float = MARGIN) -> tuple[Axis, Axis]:
    """Axes on which all values lie."""
    (width, height), (across, up) = frame.size, frame.labels
    return (
        axis(xs, start=LEFT, end=width - RIGHT, label=across, ticks=max(3, width // 95), margin=margin),
        axis(ys, start=height - BOTTOM, end=TOP, label=up, ticks=max(3, height // 70), margin=margin),
    )


def _svg(x: Axis, y: Axis, frame: Frame, *inside: Html) -> Html:
    """A chart, with what is inside of its area."""
    ring = tag("circle", r=0, class_="ring")
    return tag(
        "svg",
        clip(x, y, name=frame.name),
        drawn(x, y),
        tag("g", *inside, clip_path=f"url(#{frame.name})"),
        ring,
        tag("circle", r=0, class_="ring pin"),
        viewBox=f"0 0 {frame.size[0]} {frame.size[1]}",
        role="img",
        aria_label=f"{frame.labels[1]} against {frame.labels[0]}",
        tabindex=0,
    )


def _series(layer: Layer, *content: Html) -> Html:
    return tag("g", *content, class_=f"series s{layer.colour % COLOURS}", data_series=layer.colour)


def _points(dots: Sequence[Dot], x: Axis, y: Axis, radius: float) -> Html:
    return join(
        tag("circle", cx=x(d.x), cy=y(d.y), r=radius, data_n=d.network, class_="hollow" if d.hollow else None)
        for d in dots
    )


def _front(dots: Sequence[Dot], x: Axis, y: Axis) -> Html:
    """Steps: what is reached at a cost stays within reach above it."""
    steps = []
    for i, dot in enumerate(dots):
        steps += [f"H{x(dot.x):.1f}V{y(dot.y):.1f}"] if i else [f"M{x(dot.x):.1f} {y(dot.y):.1f}"]
    return join([tag("path", d="".join(steps), class_="steps"), _points(dots, x, y, 2.8)])


def _answers(layer: Layer, x: Axis, y: Axis) -> Html:
    """Chosen networks with their predicted scores, and lines to rings where they were measured."""
    labels: list[Html] = []
    places: list[tuple[float, float]] = []
    for dot in sorted(layer.answers, key=lambda d: d.x):
        left, above = x(dot.x) - 9, y(dot.y) - 9
        if beside := left - x.start >= 60:
            side = {"x": left, "y": above, "class_": "value end"}
        else:  # no room on the left: above the interval
            side = {"x": max(x(dot.x), x.start + 22), "y": y(max(_ends(dot))) - 8, "class_": "value mid"}
        if beside and any(abs(left - a) < 64 and abs(above - b) < 16 for a, b in places):
            continue
        places.append((left, above))
        labels.append(tag("text", text(f"{dot.y:.2f}"), **side))
    rings = [dot for _, dot in layer.measured]
    ways = [
        tag("line", x1=x(layer.answers[i].x), y1=y(layer.answers[i].y), x2=x(dot.x), y2=y(dot.y), class_="way")
        for i, dot in layer.measured
    ]
    dots = [_points(layer.answers, x, y, 6.0), _points(rings, x, y, 4.5)]
    return join([_intervals(layer.answers, x, y), *ways, *dots, *labels])


def _intervals(dots: Sequence[Dot], x: Axis, y: Axis) -> Html:
    return join(
        tag("line", x1=x(d.x), x2=x(d.x), y1=y(d.span[0]), y2=y(d.span[1]), class_="interval") for d in dots if d.span
    )


def _budgets(layer: Layer, x: Axis, y: Axis, unit: str, rows: list[float]) -> Html:
    """Lines at the largest costs that were allowed, each with its value, and at proved bounds.

    Args:
        layer: with the budgets and the bounds.
        x: the axis of costs.
        y: the axis of scores.
        unit: of the cost.
        rows: where each line of text ends, the lowest first; a value goes into the first in which there is room.
    """
    elements = []
    for value in sorted(set(filter(x.shows, layer.budgets))):
        pixel, words = x(value), f"≤ {value:.4g} {unit}"
        elements.append(tag("line", x1=pixel, x2=pixel, y1=y.start, y2=y.end, class_="budget"))
        length = LETTER * len(words) + 10
        left = pixel if pixel + length < x.end else pixel - length
        row = next((i for i, end in enumerate(rows) if left > end), len(rows))
        rows[row : row + 1] = [left + length]
        side = {"x": pixel + 5, "class_": "note"} if left == pixel else {"x": pixel - 5, "class_": "note end"}
        elements.append(tag("text", text(words), y=y.start - 8 - LINE * row, **side))
    for value in sorted(set(filter(y.shows, layer.bounds))):
        elements.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="bound"))
        elements.append(tag("text", text("bound"), x=x.end, y=y(value) - 5, class_="note end"))
    return join(elements) if elements else NOTHING


def _ends(dot: Dot) -> tuple[float, ...]:
    return dot.span or (dot.y,)
