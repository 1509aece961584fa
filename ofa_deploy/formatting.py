"""Values of files, which may hold anything, as numbers and text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "\N{EN DASH}"
"""What is shown in place of a number that is not there."""
_LARGEST = 1e15
"""Numbers of at least this size are not shown."""


def number(value: Any) -> float | None:
    """A finite number of a size that can be shown; None for anything else that a file may hold in its place."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST:
        return None
    return float(value)


def figure(value: Any, unit: str = "", digits: int = 4, places: int | None = None) -> str:
    """A number with its unit as text; a dash for anything else.

    Args:
        value: what a file holds.
        unit: written behind the number.
        digits: how many significant ones are shown, where `places` does not say otherwise.
        places: decimal places that are shown.
    """
    finite = number(value)
    if finite is None:
        return DASH
    shown = f"{finite:.{places}f}" if places is not None else f"{finite:.{digits}g}"
    return f"{shown} {unit}" if unit else shown


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}
