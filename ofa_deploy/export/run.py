"""Exporting a subnetwork: recalibrated, checked against torch, with a card beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import Device
from ofa_deploy.errors import MeasureError, OfaDeployError
from ofa_deploy.export.card import make_card, write_card
from ofa_deploy.export.checks import accuracy_drop, parity
from ofa_deploy.export.formats import FORMATS, output_files
from ofa_deploy.export.memory import measure_memory
from ofa_deploy.export.subject import FEWEST, Subject
from ofa_deploy.files import atomic
from ofa_deploy.files.json_text import Json
from ofa_deploy.latency.comparison import side_by_side
from ofa_deploy.search.result import load_result
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.arch_lists import read_one
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.evaluation import specialise
from ofa_deploy.supernet.finetuning import RECIPE, SUFFIX, finetune
from ofa_deploy.supernet.network import Subnet, Supernet

Made = tuple[Path, bytes, Json]
"""Where a file goes, its content and its card."""
MAX_DROP = 1.0
"""Points of top-1 that int8 may lose."""
ROUNDS, PAUSE = 5, 0.1
"""Of measuring latencies, see `latency.whole.side_by_side`."""


def export_model(
    net: Supernet,
    arch: Arch,
    data: Dataset,
    out: Path | str,
    weights: Mapping[str, Any] | None = None,
    predicted: Mapping[str, Any] | None = None,
    format_: str | None = None,
    device: Device | None = None,
) -> Json:
    """Write the model of a subnetwork and its card.

    Args:
        net: the supernet.
        arch: which subnetwork.
        data: whose training images recalibrate the batch norms, and whose held-out images check the file.
        out: the file to write; the card is the `.json` and `.md` of the same stem.
        weights: where the supernet came from, for the card, see `supernet.checkpoint.provenance`.
        predicted: figures of the search that chose it, for the card.
        format_: one of `formats.FORMATS`; None takes what the name of the file ends in.
        device: that the file is for, which checks it; None takes the format's own.

    Returns:
        the card.

    Raises:
        ArchError: `arch` is not of the space.
        MeasureError: the file does not compute what torch computes.
        ArtifactError: the name ends in no format, or it cannot be written.
    """
    files = output_files(format_, Path(out), space=net.space.name)
    (made,) = make(net, arch, data, files, weights or {}, predicted, MAX_DROP, device=device)
    _write([made])
    return made[2]


def export_files(
    space: SearchSpace,
    arch: str | None,
    result: Path | None,
    data: str | None,
    weights: Path,
    out: Path | None,
    formats: str | None = None,
    max_drop: float = MAX_DROP,
    config: Path | None = None,
    resolution: int | None = None,
    finetune_epochs: int = 0,
    seed: int = 0,
    recalibration: int = RECALIBRATION,
) -> dict[Path, Json]:
    """Export an architecture from files, with measured latency.

    Args:
        space: of the supernet.
        arch: as text; or
        result: the file of a search result; or
        config: a JSON file of the official code, see `arch_lists.read_one`.
        data: the images, as `data.load` takes them.
        weights: file of the supernet.
        out: see `formats.output_files`.
        formats: likewise.
        max_drop: points of top-1 that int8 may lose.
        resolution: in pixels, for a `config` that does not say it.
        finetune_epochs: passes over the training images, see `finetune.finetune`; 0 leaves the supernet's weights.
        seed: of fine-tuning.
        recalibration: training images that batch norms are recalibrated on.

    Returns:
        the card of each file. Each file is written whole or not at all, and none before all are made.

    Raises:
        OfaDeployError: not exactly one of `arch`, `result` and `config` is given, one of the inputs is unusable, or a
            file does not compute what it should.
    """
    check_figures(max_drop, recalibration)
    wanted, predicted = _wanted(space, arch, result, config, resolution)
    files = output_files(formats, out, space=space.name)
    net, origin = checkpoint.load_supernet(weights, space), checkpoint.provenance(weights)
    images, tuned = load_data(data, space, training=finetune_epochs > 0), None
    saved = next(iter(files.values())).with_suffix(SUFFIX)
    if finetune_epochs:
        recipe = replace(RECIPE.scaled(finetune_epochs), seed=seed)
        tuned = finetune(
            net,
            wanted,
            data=images,
            recipe=recipe,
            saved=saved,
            weights_sha256=origin["sha256"],
            recalibration=recalibration,
        )
    made = make(net, wanted, images, files, origin, predicted, max_drop, tuned, recalibration)
    cards = time_and_write(made, space, wanted)
    if tuned is not None:
        saved.unlink(missing_ok=True)
    return cards


def check_figures(max_drop: float, recalibration: int) -> None:
    """Refuse figures that mean nothing; see `export_files`."""
    if not max_drop >= 0:
        raise OfaDeployError(f"--max-drop is a number of points, 0 or more, not {max_drop}")
    if recalibration < FEWEST:
        raise OfaDeployError(f"batch norms are recalibrated on at least {FEWEST} images, not {recalibration}")


def time_and_write(made: list[Made], space: SearchSpace, arch: Arch) -> dict[Path, Json]:
    """Measure the latency of the files of one network, and write them with their cards, which are returned."""
    _time(made, space, arch)
    _write(made)
    return {path: card for path, _, card in made}


def _wanted(
    space: SearchSpace, text: str | None, result: Path | None, config: Path | None, resolution: int | None
) -> tuple[Arch, dict[str, Any] | None]:
    """The architecture, and what was predicted of it where it comes from a search."""
    if [text, result, config].count(None) != 2:
        raise OfaDeployError("an export needs just one of an architecture, a result and a configuration")
    if config is not None:
        return read_one(config, space, resolution), None
    if resolution is not None:
        raise OfaDeployError("--resolution goes with --config; the other two have their own")
    if result is None:
        return space.check(Arch.parse(str(text))), None
    found = load_result(result)
    if found.space != space.name:
        raise OfaDeployError(f"{result} is of {found.space}, not of {space.name}; choose with --space")
    return found.arch, found.predicted()


def make(
    net: Supernet,
    arch: Arch,
    data: Dataset,
    files: Mapping[str, Path],
    weights: Mapping[str, Any],
    predicted: Mapping[str, Any] | None,
    max_drop: float,
    tuned: tuple[Subnet, Json] | None = None,
    recalibration: int = RECALIBRATION,
    device: Device | None = None,
) -> list[Made]:
    """The checked files of a subnetwork, or of what fine-tuning has made of it, not yet written."""
    net.space.check(arch)
    subnet, tuning = tuned or (specialise(net, arch, data=data, images=recalibration), None)
    subject = Subject(subnet, data, recalibration)
    made, extra = [], {"finetuned": tuning} if tuning else {}
    for name, path in files.items():
        content = FORMATS[name].write(subject)
        checked = check_content(name, content, subject, max_drop, device)
        card = make_card(subject, name, path.name, content, checked, weights, predicted, device)
        made.append((path, content, card | extra))
    return made


def check_content(name: str, content: bytes, subject: Subject, max_drop: float, device: Device | None = None) -> Json:
    """What the checks of a file of a format find, see `check`; int8 may lose `max_drop` points.

    Raises:
        MeasureError: it computes something else, or int8 loses too much.
    """
    session = FORMATS[name].session(content, device)
    if FORMATS[name].precision == "fp32":
        return {"agreement_with_torch": parity(session, subject)}
    drop = accuracy_drop(session, subject)
    if drop["drop_points"] > max_drop:
        raise MeasureError(
            f"{name} loses {drop['drop_points']:.2f} points of top-1 on {drop['images']} held-out images, more than "
            f"{max_drop:g}, so nothing was written; --max-drop {np.ceil(drop['drop_points']):.0f} would take it"
        )
    return {"agreement_with_torch": parity(session, subject, None), "accuracy": drop}


def _time(made: list[Made], space: SearchSpace, arch: Arch) -> None:
    """Measure latency, interleaved, and memory of those files that this machine has a runtime for, into their cards."""
    image = np.random.default_rng(0).standard_normal((1, space.in_channels, arch.resolution, arch.resolution))
    measured = {path.name: (content, card) for path, content, card in made if FORMATS[card["format"]].device}
    sessions = {}
    for name, (content, card) in measured.items():
        form = FORMATS[card["format"]]
        assert form.device is not None
        sessions[name] = form.device.session(content, 1), form.native(image.astype(np.float32))
    for name, latency in side_by_side(sessions, 1, ROUNDS, PAUSE).items():
        content, card = measured[name]
        device = FORMATS[card["format"]].device
        assert device is not None
        card["measured"] = {
            "latency": {**latency, "conditions": conditions(device.name, 1)},
            "memory": measure_memory(content, device.name, card["input"]["shape"]),
        }


def _write(made: list[Made]) -> None:
    for path, content, card in made:
        atomic.write(path, content)
        write_card(path, card)
