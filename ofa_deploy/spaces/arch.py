"""One network as a value, and the text form in which files and commands hold it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ofa_deploy.errors import ArchError

Block = tuple[int, float]
"""(kernel size, expansion ratio) of one active block."""


@dataclass(frozen=True, slots=True)
class Arch:
    """One network: its resolution and, for each stage, its active blocks. Equal networks are equal values.

    Attributes:
        resolution: height and width of the input image in pixels.
        stages: for each stage, the (kernel, expansion) of each active block; a stage may be empty where its space
            allows that.
        widths: output channels of each part of the network whose width is elastic, in order; none in most spaces.
    """

    resolution: int
    stages: tuple[tuple[Block, ...], ...]
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.resolution < 1 or not any(self.stages) or min(self.widths, default=1) < 1:
            raise ArchError(f"an architecture needs a resolution, blocks, and positive widths, not {self!r}")

    def __str__(self) -> str:
        """The text form, e.g. `r28_k3e6-k5e4_k7e3-k3e3`: stages joined by `_`, blocks by `-`, no block as `0`.

        Elastic widths follow the resolution: `r224_w32-64-256-512-1024-2048_k3e1_k3e0.35-...`.
        """
        widths = ["w" + "-".join(map(str, self.widths))] if self.widths else []
        stages = ["-".join(f"k{k}e{e:g}" for k, e in stage) or "0" for stage in self.stages]
        return "_".join([f"r{self.resolution}", *widths, *stages])

    @classmethod
    def parse(cls, text: str) -> Arch:
        """Read the text form that `str` writes.

        Raises:
            ArchError: the text is not of that form.
        """
        match = re.fullmatch(
            r"r([0-9]{1,4})(?:_w([0-9]{1,5}(?:-[0-9]{1,5})*))?((?:_(?:0|k[0-9]{1,2}e[0-9.]{1,4}(?:-k[0-9]{1,2}e[0-9.]{1,4})*))+)",
            text.strip(),
        )
        try:
            if match is None:
                raise ValueError
            stages = tuple(
                tuple(_block(part) for part in stage.split("-") if part != "0") for stage in match[3][1:].split("_")
            )
            return cls(int(match[1]), stages, tuple(map(int, match[2].split("-"))) if match[2] else ())
        except ValueError as error:
            raise ArchError(
                f"not an architecture: {text[:80]!r}; the form is r28_k3e6-k5e4_k7e3-k3e3_... (stage by stage)"
            ) from error


def _block(text: str) -> Block:
    kernel, expand = text[1:].split("e")
    return int(kernel), float(expand) if "." in expand else int(expand)
