"""Axes of a chart: from values to pixels, round ticks, grid lines."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ofa_deploy.report.markup import Html, join, tag, text


@dataclass(frozen=True)
class Axis:
    """A linear scale.

    Attributes:
        low: the smallest value that is shown.
        high: the largest.
        start: where `low` lies, in pixels.
        end: where `high` lies.
        label: what the values are, with their unit.
        ticks: about how many ticks there is room for.
    """

    low: float
    high: float
    start: float
    end: float
    label: str
    ticks: int

    def __call__(self, value: float) -> float:
        """Where a value lies, in pixels."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def shows(self, value: float | None) -> bool:
        """Whether a value is within the axis."""
        return value is not None and self.low <= value <= self.high

    @property
    def step(self) -> float:
        """Distance of ticks: 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / self.ticks
        power = 10.0 ** math.floor(math.log10(rough))
        return power * next(m for m in (1, 2, 5, 10) if m * power >= 0.7 * rough)

    def marks(self) -> list[tuple[float, str]]:
        """Value and text of each tick."""
        step = self.step
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(i * step, f"{i * step:.{places}f}") for i in range(first, min(last, first + 50) + 1)]


def axis(values: Iterable[float], *, start: float, end: float, label: str, ticks: int, margin: float = 0.04) -> Axis:
    """An axis on which all values lie.

    Args:
        values: that are to be shown; none shows 0 to 1.
        start: where the smallest lies, in pixels.
        end: where the largest lies, in pixels.
        label: what the values are, with their unit.
        ticks: about how many ticks there is room for.
        margin: on either side, as a share of the range.
    """
    shown = list(values) or [0.0, 1.0]
    low, high = min(shown), max(shown)
    if high - low <= 1e-9 * max(abs(high), 1e-9):
        low, high = low - max(abs(low) * 0.05, 1e-6), high + max(abs(high) * 0.05, 1e-6)
    room = margin * (high - low)
    return Axis(low - room, high + room, start, end, label, ticks)


def drawn(x: Axis, y: Axis) -> Html:
    """Grid lines, ticks and labels of both axes."""
    elements = []
    for value, words in x.marks():
        pixel = x(value)
        elements += [
            tag("line", x1=pixel, x2=pixel, y1=y.start, y2=y.end, class_="grid"),
            tag("text", text(words), x=pixel, y=y.start + 18, class_="tick mid"),
        ]
    for value, words in y.marks():
        pixel = y(value)
        elements += [
            tag("line", x1=x.start, x2=x.end, y1=pixel, y2=pixel, class_="grid"),
            tag("text", text(words), x=x.start - 8, y=pixel + 4, class_="tick end"),
        ]
    elements += [
        tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"),
        tag("text", text(x.label), x=x.end, y=y.start + 38, class_="label end"),
        tag("text", text(y.label), x=x.start, y=y.end - 12, class_="label"),
    ]
    return join(elements)


def clip(x: Axis, y: Axis, *, name: str) -> Html:
    """A clipping path of the chart's area, of that name."""
    area = tag("rect", x=x.start, y=y.end, width=x.end - x.start, height=y.start - y.end)
    return tag("clipPath", area, id=name)
