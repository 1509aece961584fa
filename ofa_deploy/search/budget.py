"""Budgets as users type them: `30ms`, `25%`, `300M`, `10MB`, and ranges of them such as `200M..300M`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ofa_deploy.errors import OfaDeployError

Range = tuple[float, float]
"""From, to; minus and plus infinity where an end is open."""

FEWEST = 10_000
"""Fewer multiply-accumulates or parameters than these are a forgotten unit."""
_SECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_COUNTS = {"": 1e-6, "k": 1e-3, "m": 1.0, "g": 1e3}
_BYTES = {"b": 1e-6, "kb": 1e-3, "mb": 1.0, "gb": 1e3}
UNITS: Mapping[str, tuple[str, Mapping[str, float], str]] = {
    "latency": ("ms", _SECONDS, "30ms, 0.03s or 25%"),
    "macs": ("M", _COUNTS, "300M"),
    "params": ("M", _COUNTS, "5M"),
    "size": ("MB", _BYTES, "10MB"),
}
"""What can be limited: the unit of its cost, the factors of what users type to that unit, and an example."""


def parse_latency(text: str, fastest_ms: float, slowest_ms: float) -> float:
    """A budget in ms from `30ms`, `0.03s`, `500us`, or a share such as `25%`.

    A share lies between the fastest network of the table (0 %) and the slowest (100 %), so that it makes sense on
    any device.

    Args:
        text: what the user typed.
        fastest_ms: latency of the fastest network.
        slowest_ms: latency of the slowest network.

    Raises:
        OfaDeployError: there is no unit, or the number is not positive.
    """
    return parse_amount("latency", text, fastest_ms, slowest_ms)


def parse_range(what: str, text: str, least: float, most: float) -> Range:
    """The ends of `A..B`, `A..`, or `B`, each as `parse_amount` takes it; `B` alone is an upper end.

    Args:
        what: one of `UNITS`.
        text: what the user typed.
        least: that any network costs, in the unit of `UNITS`.
        most: likewise.

    Raises:
        OfaDeployError: an end cannot be understood, or the first is above the second.
    """
    if not isinstance(text, str):
        raise OfaDeployError(f"a {what} limit is a text with its unit such as {UNITS[what][2]}, not {text!r}")
    low, _, high = text.rpartition("..")
    if not low.strip() and not high.strip():
        raise OfaDeployError(f"a limit needs at least one end, {text!r} has none; write {UNITS[what][2]}")
    lower = parse_amount(what, low, least, most) if low.strip() else -math.inf
    upper = parse_amount(what, high, least, most) if high.strip() else math.inf
    if lower > upper:
        raise OfaDeployError(f"the range {text!r} begins above its end")
    return lower, upper


def parse_amount(what: str, text: str, least: float, most: float) -> float:
    """One end of a range, in the unit of `UNITS`; a share lies between `least` (0 %) and `most` (100 %).

    Raises:
        OfaDeployError: there is no such unit, or the number is not positive.
    """
    _, units, example = UNITS[what]
    match = re.fullmatch(r"\s*([0-9]{0,20}\.?[0-9]{1,20})\s*([a-zµ%]{0,9})\s*", text.lower())
    if match is None:
        raise OfaDeployError(f"not a {what}: {text[:40]!r}; write for example {example}")
    number, unit = float(match[1]), match[2]
    if unit == "%":
        if number > 100:
            raise OfaDeployError(
                f"a share of {text} is beyond the {'slowest' if what == 'latency' else 'largest'} network (100%)"
            )
        return least + number / 100 * (most - least)
    if not unit and unit not in units:
        raise OfaDeployError(f"a {what} needs a unit, {text!r} has none; write for example {match[1]}{UNITS[what][0]}")
    if unit not in units:
        raise OfaDeployError(f"unknown unit in {text!r}; use {', '.join(u for u in units if u)} or %")
    if number <= 0:
        raise OfaDeployError(f"a {what} budget must be positive, not {text!r}")
    if not unit and number < FEWEST:
        hint = f"did you mean {match[1]}M?" if number <= most else f"write for example {example}"
        raise OfaDeployError(f"{match[1]} {what} are next to none; {hint}")
    return number * units[unit]
