"""Networks drawn block by block, and the list of all that a page can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ofa_deploy.report.markup import TIMES, Html, join, tag, text
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace

Figures = Sequence[tuple[str, str]]
"""What is said of a network: name and value of each figure."""


@dataclass
class Networks:
    """Every network that a chart of the page shows, for its script."""

    spaces: dict[str, SearchSpace] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, space: SearchSpace, arch: Arch, title: str, figures: Figures) -> int:
        """Add a network; its number is what a chart's point carries."""
        self.spaces[space.name] = space
        self.rows.append({"arch": str(arch), "space": space.name, "title": title, "figures": list(figures)})
        return len(self.rows) - 1

    def data(self) -> dict[str, Any]:
        """What the script needs, as JSON values."""
        shapes = {n: {"kernels": list(s.kernels), "expands": list(s.expands)} for n, s in self.spaces.items()}
        return {"networks": self.rows, "spaces": shapes}


def drawing(space: SearchSpace, arch: Arch) -> Html:
    """A network: a bar for each block, as high as it expands, coloured by its kernel; dashed where it is left out."""
    stages = [
        tag(
            "div",
            text("input"),
            tag("b", text(f"{arch.resolution}{TIMES}{arch.resolution}"), class_="size"),
            class_="input",
        )
    ]
    for number, (stage, blocks) in enumerate(zip(space.stages, arch.stages, strict=True), 1):
        slots = []
        for place in range(stage.depths[-1]):
            block = blocks[place] if place < len(blocks) else None
            if block is None:
                slots.append(tag("div", tag("i"), tag("span"), class_="slot"))
                continue
            kernel, expand = block
            bar = tag(
                "i",
                text(kernel),
                class_=f"k{space.kernels.index(kernel)}",
                style=f"--share:{expand / space.expands[-1]:.3f}",
            )
            slots.append(tag("div", bar, tag("span", text(f"{TIMES}{expand:g}")), class_="slot"))
        channels = f"{stage.width} ch" if isinstance(stage.width, int) and stage.width else ""
        caption = tag("div", text(f"stage {number}"), tag("small", text(channels)), class_="caption")
        stages.append(tag("div", tag("div", *slots, class_="slots"), caption, class_="stage"))
    widths = [tag("div", text(f"widths {', '.join(map(str, arch.widths))}"), class_="widths")] if arch.widths else []
    return tag("div", *stages, *widths, class_="net", data_space=space.name, role="img", aria_label=str(arch))


def key(space: SearchSpace) -> Html:
    """What colours and heights of `drawing` mean."""
    kernels = [
        tag("span", tag("i", class_=f"swatch k{i}"), text(f"{kernel}{TIMES}{kernel}"))
        for i, kernel in enumerate(space.kernels)
    ]
    expands = ", ".join(f"{expand:g}" for expand in space.expands)
    words = f"Height: expansion ({expands} times the channels). Dashed: a block that is left out. Colour: kernel"
    return tag("p", text(words), *kernels, class_="key")


def card(space: SearchSpace, arch: Arch, title: Html, figures: Figures, more: Sequence[Html] = ()) -> Html:
    """A network with its figures."""
    listed = join(tag("div", tag("dt", text(name)), tag("dd", text(value))) for name, value in figures)
    return tag(
        "article",
        tag("h3", title),
        tag("dl", listed, class_="figures"),
        drawing(space, arch),
        tag("code", text(arch)),
        *more,
        class_="card",
    )


def pinned() -> Html:
    """The place where the script shows a network that was clicked."""
    return tag(
        "article",
        tag("h3"),
        tag("dl", class_="figures"),
        tag("div", class_="net"),
        tag("code"),
        class_="card pinned",
        hidden=True,
        aria_live="polite",
    )
