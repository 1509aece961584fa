"""Values that files hold, which may be anything, as numbers and text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "\N{EN DASH}"
_LARGEST = 1e15


def number(value: Any) -> float | None:
    """A finite number of a size that can be shown; None for anything else that a file may hold in its place."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST:
        return None
    return float(value)


def figure(value: Any, unit: str = "", digits: int = 4, places: int | None = None) -> str:
    """A number with its unit as text: four significant digits, or so many decimal places; a dash where it is none."""
    found = number(value)
    if found is None:
        return DASH
    shown = f"{found:.{places}f}" if places is not None else f"{found:.{digits}g}"
    return f"{shown} {unit}" if unit else shown


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}
