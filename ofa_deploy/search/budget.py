"""Latency budgets as users type them."""

from __future__ import annotations

import re

from ofa_deploy.errors import OfaDeployError

_UNITS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


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
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)(\s*)([a-zµ%]*)\s*", text.lower())
    if match is None:
        raise OfaDeployError(f"not a latency: {text!r}; write for example 30ms, 0.03s or 25%")
    number, unit = float(match[1]), match[3]
    if not unit:
        raise OfaDeployError(f"a latency needs a unit, {text!r} has none: milliseconds or seconds? write {match[1]}ms")
    if unit == "%":
        if number > 100:
            raise OfaDeployError(f"a share of {text} is beyond the slowest network (100%)")
        return fastest_ms + number / 100 * (slowest_ms - fastest_ms)
    if unit not in _UNITS:
        raise OfaDeployError(f"unknown unit in {text!r}; use us, ms, s or %")
    if number <= 0:
        raise OfaDeployError(f"a latency budget must be positive, not {text!r}")
    return number * _UNITS[unit]
