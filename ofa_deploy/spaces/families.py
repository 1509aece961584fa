"""The search spaces, as data."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.spaces.parts import Layer, Stage
from ofa_deploy.spaces.space import SearchSpace


def mobilenet_v3(
    name: str,
    resolutions: tuple[int, ...],
    in_channels: int,
    classes: int,
    *,
    stem: int,
    stages: tuple[Stage, ...],
    final: int,
    feature: int,
) -> SearchSpace:
    """MobileNetV3 as the official once-for-all networks have it."""
    head = (Layer("first_conv", "conv", stem, 3, 2, "hswish"), Layer("blocks.0", "mbconv", stem, 3, 1, "relu"))
    tail = (
        Layer("final_expand_layer", "conv", final, 1, 1, "hswish"),
        Layer("global_avg_pool", "pool"),
        Layer("feature_mix_layer", "linear", feature, act="hswish"),
    )
    return SearchSpace(name, resolutions, in_channels, classes, (*head, *stages, *tail))


def _official_mobilenet_v3(name: str, widths: tuple[int, ...], stem: int, final: int, feature: int) -> SearchSpace:
    shapes = ((2, "relu", False), (2, "relu", True), (2, "hswish", False), (1, "hswish", True), (2, "hswish", True))
    stages = tuple(Stage(w, stride, act, se) for w, (stride, act, se) in zip(widths, shapes, strict=True))
    return mobilenet_v3(
        name, tuple(range(128, 225, 4)), 3, 1000, stem=stem, stages=stages, final=final, feature=feature
    )


def _proxyless(name: str, stem: int, first: int, *, widths: tuple[int, ...], last: int, feature: int) -> SearchSpace:
    """ProxylessNAS: ReLU6, no squeeze-and-excitation, a last stage of one block."""
    stages = tuple(Stage(w, stride, "relu6") for w, stride in zip(widths, (2, 2, 2, 1, 2), strict=True))
    parts: tuple[Layer | Stage, ...] = (
        Layer("first_conv", "conv", stem, 3, 2, "relu6"),
        Layer("blocks.0", "mbconv", first, 3, 1, "relu6"),
        *stages,
        Stage(last, 1, "relu6", depths=(1,)),
        Layer("feature_mix_layer", "conv", feature, 1, 1, "relu6"),
        Layer("global_avg_pool", "pool"),
    )
    return SearchSpace(name, tuple(range(128, 225, 4)), 3, 1000, parts, bn_eps=1e-3)


def _resnet50d(name: str) -> SearchSpace:
    """ResNet50D: widths of 0.65, 0.8 and 1, a stem layer and one or two blocks a stage that can be left out."""
    widths = ((168, 208, 256), (336, 408, 512), (664, 816, 1024), (1328, 1640, 2048))
    stages = tuple(
        Stage(
            width,
            1 if i == 0 else 2,
            "relu",
            depths=(n, n + 1, n + 2),
            kind="bottleneck",
            kernels=(3,),
            expands=(0.2, 0.25, 0.35),
        )
        for i, (width, n) in enumerate(zip(widths, (2, 2, 4, 2), strict=True))
    )
    parts: tuple[Layer | Stage, ...] = (
        Layer("input_stem.0", "conv", (24, 32), 3, 2, "relu"),
        Stage(0, 1, "relu", depths=(0, 1), kind="conv", kernels=(3,), expands=(1,), names=("input_stem.1",)),
        Layer("input_stem.2", "conv", (40, 48, 64), 3, 1, "relu"),
        Layer("max_pooling", "maxpool", kernel=3, stride=2),
        *stages,
        Layer("global_avg_pool", "pool"),
    )
    return SearchSpace(name, tuple(range(128, 257, 16)), 3, 1000, parts, official_form="resnet50d")


SPACES: dict[str, SearchSpace] = {
    space.name: space
    for space in (
        _official_mobilenet_v3("mbv3-w1.0", (24, 40, 80, 112, 160), 16, 960, 1280),
        _official_mobilenet_v3("mbv3-w1.2", (32, 48, 96, 136, 192), 24, 1152, 1536),
        _proxyless("proxyless-w1.3", 40, 24, widths=(32, 56, 104, 128, 248), last=416, feature=1664),
        _resnet50d("resnet50d"),
        mobilenet_v3(
            "fmnist",
            (16, 20, 24, 28),
            1,
            10,
            stem=8,
            stages=(
                Stage(12, 1, "relu"),
                Stage(16, 2, "relu", se=True),
                Stage(24, 1, "hswish"),
                Stage(32, 2, "hswish", se=True),
                Stage(48, 1, "hswish", se=True),
            ),
            final=160,
            feature=192,
        ),
    )
}
"""Every space by name. `fmnist` is a small MobileNetV3 for 28x28 grey images; the others have the geometry, names and
shapes of the official once-for-all networks (Cai et al., arXiv 1908.09791)."""

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
