"""HTML and SVG as a type of its own, so that a type check finds text that was not escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any, NewType

from ofa_deploy import formatting

Html = NewType("Html", str)
"""Markup. Whatever comes from a file becomes this by `text`, `tag` or `script_data`, and in no other way."""
NOTHING = Html("")
TIMES, SPACE = "\N{MULTIPLICATION SIGN}", "\N{NO-BREAK SPACE}"
_VOID = ("meta", "img", "br")


def text(value: object) -> Html:
    """A value as text, escaped."""
    return Html(html.escape(str(value)))


def tag(name: str, /, *content: Html, **attributes: object) -> Html:
    """An element.

    Args:
        name: of the element, written by us.
        content: what is inside.
        attributes: underscores become hyphens, one at the end is dropped (`class_`); values are escaped, floats
            rounded to five digits; None and False leave the attribute out, True leaves out its value.
    """
    elements = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        named = key.rstrip("_").replace("_", "-")
        shown = f"{value:.5g}" if isinstance(value, float) else value
        elements.append(named if value is True else f'{named}="{html.escape(str(shown))}"')
    end = "" if name in _VOID else f"</{name}>"
    return Html(f"<{' '.join(elements)}>{''.join(content)}{end}")


def join(elements: Iterable[Html]) -> Html:
    """Several pieces of markup as one."""
    return Html("".join(elements))


def script_data(value: object) -> Html:
    """JSON for a script element: nothing in it can end the element or begin a comment."""
    return Html(json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e"))


def figure(value: Any, unit: str = "", digits: int = 4, places: int | None = None) -> str:
    """A number as `formatting.figure` writes it, that no line break tears from its unit."""
    return formatting.figure(value, unit, digits, places).replace(" ", SPACE)
