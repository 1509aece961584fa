"""Exporting a subnetwork: recalibrated, checked against torch, with a card beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy import artifacts
from ofa_deploy.accuracy.measure import specialise
from ofa_deploy.arch import Arch
from ofa_deploy.data import Dataset, load
from ofa_deploy.errors import MeasureError, OfaDeployError
from ofa_deploy.export.card import make_card, write_card
from ofa_deploy.export.check import accuracy_drop, parity
from ofa_deploy.export.formats import FORMATS, Subject, chosen
from ofa_deploy.latency.device.conditions import conditions
from ofa_deploy.latency.whole import side_by_side
from ofa_deploy.search.result import load_result
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

Made = tuple[Path, bytes, artifacts.Json]
"""Where a file goes, its content and its card."""
MAX_DROP = 1.0
"""Points of top-1 that int8 may lose."""
ROUNDS, PAUSE = 5, 0.1
"""Of measuring latencies, see `latency.whole.side_by_side`."""


def export(
    net: Supernet, arch: Arch, data: Dataset, out: Path, weights: Mapping[str, Any], predicted: Mapping[str, Any] | None
) -> artifacts.Json:
    """Write the model of a subnetwork and its card.

    Args:
        net: the supernet.
        arch: which subnetwork.
        data: whose training images recalibrate the batch norms, and whose held-out images check the file.
        out: the file to write, in the format that its name ends in; the card is the `.json` and `.md` of the same stem.
        weights: where the supernet came from, for the card.
        predicted: figures of the search that chose it, for the card.

    Returns:
        the card.

    Raises:
        ArchError: `arch` is not of the space.
        MeasureError: the file does not compute what torch computes.
        ArtifactError: the name ends in no format, or it cannot be written.
    """
    files = chosen(None, out, net.space.name)
    (made,) = make(net, arch, data, files, weights, predicted, MAX_DROP)
    _write([made])
    return made[2]


def export_files(
    space: SearchSpace, arch: str | None, result: Path | None, data: str | None, weights: Path, out: Path | None,
    formats: str | None = None, max_drop: float = MAX_DROP,
) -> dict[Path, artifacts.Json]:  # fmt: skip
    """Export an architecture given as text, or as the file of a search result, from files, with measured latency.

    Args:
        space: of the supernet.
        arch: as text; or
        result: the file of a search result.
        data: the images, as `data.load` takes them.
        weights: file of the supernet.
        out: see `formats.chosen`.
        formats: likewise.
        max_drop: points of top-1 that int8 may lose.

    Returns:
        the card of each file. All are written, or none.

    Raises:
        OfaDeployError: not exactly one of `arch` and `result` is given, one of the inputs is unusable, or a file
            does not compute what it should.
    """
    if not max_drop >= 0:
        raise OfaDeployError(f"--max-drop is a number of points, 0 or more, not {max_drop}")
    wanted, predicted = _wanted(space, arch, result)
    files = chosen(formats, out, space.name)
    net, origin = checkpoint.load(weights, space), checkpoint.provenance(weights)
    made = make(net, wanted, load(data, space), files, origin, predicted, max_drop)
    return time_and_write(made, space, wanted)


def time_and_write(made: list[Made], space: SearchSpace, arch: Arch) -> dict[Path, artifacts.Json]:
    """Measure the latency of the files of one network, and write them with their cards, which are returned."""
    _time(made, space, arch)
    _write(made)
    return {path: card for path, _, card in made}


def _wanted(space: SearchSpace, text: str | None, result: Path | None) -> tuple[Arch, dict[str, Any] | None]:
    """The architecture, and what was predicted of it where it comes from a search."""
    if (text is None) == (result is None):
        raise OfaDeployError("export needs either --arch TEXT or --result FILE")
    if result is None:
        arch = Arch.parse(str(text))
        space.check(arch)
        return arch, None
    found = load_result(result)
    if found.space != space.name:
        raise OfaDeployError(f"{result} is of {found.space}, not of {space.name}; choose with --space")
    return found.arch, found.predicted()


def make(
    net: Supernet, arch: Arch, data: Dataset, files: Mapping[str, Path], weights: Mapping[str, Any],
    predicted: Mapping[str, Any] | None, max_drop: float,
) -> list[Made]:  # fmt: skip
    """The checked files of a subnetwork, not yet written."""
    net.space.check(arch)
    subject = Subject(specialise(net, arch, data), data)
    made = []
    for name, path in files.items():
        content = FORMATS[name].write(subject)
        checked = _checked(name, content, subject, max_drop)
        made.append((path, content, make_card(subject, name, path.name, content, checked, weights, predicted)))
    return made


def _checked(name: str, content: bytes, subject: Subject, max_drop: float) -> artifacts.Json:
    """What the checks of a file find.

    Raises:
        MeasureError: it computes something else, or int8 loses too much.
    """
    session = FORMATS[name].session(content)
    if FORMATS[name].precision == "fp32":
        return {"agreement_with_torch": parity(session, subject.net, subject.data)}
    drop = accuracy_drop(session, subject.net, subject.data)
    if drop["drop_points"] > max_drop:
        raise MeasureError(
            f"{name} loses {drop['drop_points']:.2f} points of top-1 on {drop['images']} held-out images, more than "
            f"{max_drop:g}, so nothing was written; --max-drop {np.ceil(drop['drop_points']):.0f} would take it"
        )
    return {"agreement_with_torch": parity(session, subject.net, subject.data, None), "accuracy": drop}


def _time(made: list[Made], space: SearchSpace, arch: Arch) -> None:
    """Measure the latency of those files that this machine has a runtime for, interleaved, into their cards."""
    image = np.random.default_rng(0).standard_normal((1, space.in_channels, arch.resolution, arch.resolution))
    sessions, cards = {}, {}
    for path, content, card in made:
        one = FORMATS[card["format"]]
        if one.device is not None:
            sessions[path.name] = one.start(content, 1), one.native(image.astype(np.float32))
            cards[path.name] = card
    for name, found in side_by_side(sessions, 1, ROUNDS, PAUSE).items():
        one = FORMATS[cards[name]["format"]]
        at = conditions(str(one.device), 1) | {"precision": one.precision}
        cards[name]["measured"] = {"latency": {**found, "conditions": at}}


def _write(made: list[Made]) -> None:
    for path, content, card in made:
        artifacts.write(path, content)
        write_card(path, card)
