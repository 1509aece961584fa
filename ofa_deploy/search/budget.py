"""Budgets as users type them: `30ms`, `25%`, `300M`, `10MB`, and ranges of them such as `200M..300M`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ofa_deploy.errors import OfaDeployError

Range = tuple[float, float]
"""From, to; minus and plus infinity where an end is open."""
FEWEST = 10_000
"""Fewer multiply-accumulates or parameters than these are a forgotten unit."""


@dataclass(frozen=True)
class Quantity:
    """What can be limited.

    Attributes:
        unit: of its cost.
        factors: of the units that users type, in lower case, to that unit; an empty one where a number alone will do.
        example: of what users type.
        largest: what the network of the highest cost is called.
    """

    unit: str
    factors: Mapping[str, float]
    example: str
    largest: str = "largest"


_COUNTS = {"": 1e-6, "k": 1e-3, "m": 1.0, "g": 1e3}
UNITS: Mapping[str, Quantity] = {
    "latency": Quantity("ms", {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}, "30ms, 0.03s or 25%", "slowest"),
    "macs": Quantity("M", _COUNTS, "300M"),
    "params": Quantity("M", _COUNTS, "5M"),
    "size": Quantity("MB", {"b": 1e-6, "kb": 1e-3, "mb": 1.0, "gb": 1e3}, "10MB"),
}
"""What can be limited, by name."""


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


def parse_range(name: str, text: str, least: float, most: float) -> Range:
    """The ends of `A..B`, `A..`, or `B`, each as `parse_amount` takes it; `B` alone is an upper end.

    Args:
        name: of the quantity, one of `UNITS`.
        text: what the user typed.
        least: cost of the cheapest network, in the unit of the quantity.
        most: cost of the dearest network, in the unit of the quantity.

    Raises:
        OfaDeployError: an end cannot be understood, or the first is above the second.
    """
    example = UNITS[name].example
    if not isinstance(text, str):
        raise OfaDeployError(f"a {name} limit is a text with its unit such as {example}, not {text!r}")
    low, _, high = text.rpartition("..")
    if not low.strip() and not high.strip():
        raise OfaDeployError(f"a limit needs at least one end, {text!r} has none; write {example}")
    lower = parse_amount(name, low, least, most) if low.strip() else -math.inf
    upper = parse_amount(name, high, least, most) if high.strip() else math.inf
    if lower > upper:
        raise OfaDeployError(f"the range {text!r} begins above its end")
    return lower, upper


def parse_amount(name: str, text: str, least: float, most: float) -> float:
    """One end of a range.

    Args:
        name: of the quantity, one of `UNITS`.
        text: a number with a unit, or a share in percent between the cheapest network (0 %) and the dearest (100 %).
        least: cost of the cheapest network, in the unit of the quantity.
        most: cost of the dearest network, in the unit of the quantity.

    Returns:
        in the unit of the quantity.

    Raises:
        OfaDeployError: there is no such unit, or the number is not positive.
    """
    quantity = UNITS[name]
    match = re.fullmatch(r"\s*([0-9]{0,20}\.?[0-9]{1,20})\s*([a-zµ%]{0,9})\s*", text.lower())
    if match is None:
        raise OfaDeployError(f"not a {name}: {text[:40]!r}; write for example {quantity.example}")
    number, unit = float(match[1]), match[2]
    if unit == "%":
        if number > 100:
            raise OfaDeployError(f"a share of {text} is beyond the {quantity.largest} network (100%)")
        return least + number / 100 * (most - least)
    if not unit and unit not in quantity.factors:
        hint = f"{match[1]}{quantity.unit}"
        raise OfaDeployError(f"a {name} needs a unit, {text!r} has none; write for example {hint}")
    if unit not in quantity.factors:
        raise OfaDeployError(f"unknown unit in {text!r}; use {', '.join(filter(None, quantity.factors))} or %")
    if number <= 0:
        raise OfaDeployError(f"a {name} budget must be positive, not {text!r}")
    if not unit and number < FEWEST:
        hint = f"did you mean {match[1]}M?" if number <= most else f"write for example {quantity.example}"
        raise OfaDeployError(f"{match[1]} {name} are next to none; {hint}")
    return number * quantity.factors[unit]
