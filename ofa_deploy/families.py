"""The search spaces, as data."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import SearchSpace, Stage


def _mobilenet_v3(name: str, widths: tuple[int, ...], stem: int, final: int, feature: int) -> SearchSpace:
    """The official once-for-all MobileNetV3 (Cai et al., arXiv 1908.09791) of one width."""
    shapes = ((2, "relu", False), (2, "relu", True), (2, "hswish", False), (1, "hswish", True), (2, "hswish", True))
    stages = tuple(Stage(w, stride, act, se) for w, (stride, act, se) in zip(widths, shapes, strict=True))
    resolutions = tuple(range(128, 225, 4))
    return SearchSpace(name, resolutions, 3, 1000, stem, stem, stages, final, feature)


SPACES: dict[str, SearchSpace] = {
    space.name: space
    for space in (
        _mobilenet_v3("mbv3-w1.0", (24, 40, 80, 112, 160), 16, 960, 1280),
        _mobilenet_v3("mbv3-w1.2", (32, 48, 96, 136, 192), 24, 1152, 1536),
        SearchSpace(
            "fmnist", resolutions=(16, 20, 24, 28), in_channels=1, classes=10, stem=8, first=8,
            stages=(
                Stage(12, 1, "relu", False), Stage(16, 2, "relu", True), Stage(24, 1, "hswish", False),
                Stage(32, 2, "hswish", True), Stage(48, 1, "hswish", True),
            ),
            final=160, feature=192,
        ),
    )
}  # fmt: skip
"""Every space by name. `fmnist` is a small MobileNetV3 for 28x28 grey images."""

DEFAULT_SPACE = "fmnist"


def get_space(name: str | None = None) -> SearchSpace:
    """A space by name; without one, the environment variable OFA_DEPLOY_SPACE, else `fmnist`.

    `NAME-7classes` is the space NAME with a classifier of seven classes.

    Raises:
        OfaDeployError: no space has that name.
    """
    name = name or os.environ.get("OFA_DEPLOY_SPACE") or DEFAULT_SPACE
    match = re.fullmatch(r"(.+)-([1-9][0-9]{0,5})classes", name)
    family = match[1] if match else name
    if family not in SPACES:
        raise OfaDeployError(
            f"unknown space {name!r}; choose one of {', '.join(SPACES)}, or NAME-7classes for 7 classes"
        )
    return replace(SPACES[family], name=name, classes=int(match[2])) if match else SPACES[family]
