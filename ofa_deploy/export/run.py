"""Exporting a subnetwork: recalibrated, checked against torch, with a card beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import Device, get_device
from ofa_deploy.errors import MeasureError, OfaDeployError
from ofa_deploy.export.card import make_card, write_card
from ofa_deploy.export.checks import accuracy_drop, parity
from ofa_deploy.export.formats import FORMATS, output_files
from ofa_deploy.export.memory import measure_memory
from ofa_deploy.export.subject import FEWEST, Subject
from ofa_deploy.files import atomic
from ofa_deploy.files.json_text import Json
from ofa_deploy.latency.comparison import ComparisonPlan, side_by_side
from ofa_deploy.search.result import load_result
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.arch_lists import read_one
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.evaluation import specialise
from ofa_deploy.supernet.finetuning import RECIPE, SUFFIX, finetune
from ofa_deploy.supernet.network import Supernet

LATENCY_PLAN = ComparisonPlan(rounds=5, pause_seconds=0.1)
"""How the latencies of the files are measured."""


@dataclass(frozen=True)
class ModelFile:
    """A checked model that is not written yet.

    Attributes:
        path: where it goes.
        content: of the file.
        card: what goes beside it.
    """

    path: Path
    content: bytes
    card: Json

    @property
    def device(self) -> Device | None:
        """What its latency is measured on; None where it is not measured."""
        return FORMATS[self.card["format"]].device

    def write(self) -> None:
        """Write the file and its card."""
        atomic.write(self.path, self.content)
        write_card(self.path, self.card)


@dataclass(frozen=True)
class ExportSettings:
    """How subnetworks are exported.

    Attributes:
        max_drop: points of top-1 that int8 may lose.
        recalibration: training images that batch norms are recalibrated on.
        finetune_epochs: passes over the training images, see `supernet.finetuning`; 0 leaves the supernet's weights.
        seed: of fine-tuning.

    Raises:
        OfaDeployError: a figure means nothing.
    """

    max_drop: float = 1.0
    recalibration: int = RECALIBRATION
    finetune_epochs: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.max_drop >= 0:
            raise OfaDeployError(f"--max-drop is a number of points, 0 or more, not {self.max_drop}")
        if self.recalibration < FEWEST:
            raise OfaDeployError(f"batch norms are recalibrated on at least {FEWEST} images, not {self.recalibration}")


@dataclass(frozen=True)
class NetworkSource:
    """Where the architecture of an export is found: just one of the first three.

    Attributes:
        arch: as text.
        result: the file of a search result.
        config: a JSON file of the official code, see `spaces.arch_lists.read_one`.
        resolution: in pixels, for a `config` that does not say it.

    Raises:
        OfaDeployError: none or several are given, or a resolution without a configuration.
    """

    arch: str | None = None
    result: Path | None = None
    config: Path | None = None
    resolution: int | None = None

    def __post_init__(self) -> None:
        if [self.arch, self.result, self.config].count(None) != 2:
            raise OfaDeployError("an export needs just one of an architecture, a result and a configuration")
        if self.config is None and self.resolution is not None:
            raise OfaDeployError("--resolution goes with --config; the other two have their own")

    def network(self, space: SearchSpace) -> tuple[Arch, Json]:
        """The architecture, and what was predicted of it where it comes from a search.

        Raises:
            OfaDeployError: a file cannot be read, or the architecture is not of the space.
        """
        if self.config is not None:
            return read_one(self.config, space, self.resolution), {}
        if self.result is None:
            return space.check(Arch.parse(str(self.arch))), {}
        result = load_result(self.result)
        if result.space != space.name:
            raise OfaDeployError(f"{self.result} is of {result.space}, not of {space.name}; choose with --space")
        return space.check(result.arch), result.predicted()


def export_model(
    net: Supernet,
    arch: Arch,
    *,
    data: Dataset,
    out: Path | str,
    origin: Mapping[str, Any] | None = None,
    predicted: Mapping[str, Any] | None = None,
    format_: str | None = None,
    device: str | None = None,
) -> Json:
    """Write the model of a subnetwork and its card.

    Args:
        net: the supernet.
        arch: which subnetwork.
        data: whose training images recalibrate the batch norms, and whose held-out images check the file.
        out: the file to write; the card is the `.json` and `.md` of the same stem.
        origin: where the supernet's weights are from, for the card, see `supernet.checkpoint.provenance`.
        predicted: figures of the search that found the subnetwork, for the card.
        format_: one of `formats.FORMATS`; None takes what the name of the file ends in.
        device: name of the one that the file is for, and that checks it; None takes the format's own.

    Returns:
        the card.

    Raises:
        ArchError: `arch` is not of the space.
        MeasureError: the file does not compute what torch computes.
        ArtifactError: the name ends in no format, or it cannot be written.
    """
    files = output_files(format_, Path(out), space=net.space.name)
    subject = Subject(
        specialise(net, net.space.check(arch), data=data), data, origin=origin or {}, predicted=predicted or {}
    )
    (model,) = model_files(subject, files, device=get_device(device) if device else None)
    model.write()
    return model.card


def export_files(
    space: SearchSpace,
    source: NetworkSource,
    *,
    data: str | None,
    weights: Path,
    out: Path | None = None,
    formats: str | None = None,
    settings: ExportSettings | None = None,
) -> dict[Path, Json]:
    """Export an architecture from files, with measured latency.

    Args:
        space: of the supernet.
        source: where the architecture is found.
        data: the images, as `data.loading.load_data` takes them.
        weights: file of the supernet.
        out: the file, or with several formats the beginning of their names.
        formats: separated by commas; None takes what `out` ends in, else ONNX.
        settings: how; None takes `ExportSettings()`.

    Returns:
        the card of each file. Each file is written whole or not at all, and none before all are made.

    Raises:
        OfaDeployError: one of the inputs is unusable, or a file does not compute what it should.
    """
    settings = settings or ExportSettings()
    arch, predicted = source.network(space)
    files = output_files(formats, out, space=space.name)
    net, origin = checkpoint.load_supernet(weights, space), checkpoint.provenance(weights)
    images = load_data(data, space, training=settings.finetune_epochs > 0)
    saved = next(iter(files.values())).with_suffix(SUFFIX)
    if settings.finetune_epochs:
        subject = _finetuned(net, arch, data=images, origin=origin, saved=saved, settings=settings)
    else:
        subnet = specialise(net, arch, data=images, images=settings.recalibration)
        subject = Subject(subnet, images, settings.recalibration, origin=origin)
    subject = replace(subject, predicted=predicted)
    cards = time_and_write(model_files(subject, files, max_drop=settings.max_drop))
    if settings.finetune_epochs:
        saved.unlink(missing_ok=True)
    return cards


def _finetuned(
    net: Supernet, arch: Arch, *, data: Dataset, origin: Json, saved: Path, settings: ExportSettings
) -> Subject:
    """A subnetwork that was trained further; `saved` keeps the state of its training meanwhile."""
    subnet, finetuned = finetune(
        net,
        arch,
        data=data,
        recipe=replace(RECIPE.scaled(settings.finetune_epochs), seed=settings.seed),
        saved=saved,
        weights_sha256=origin["sha256"],
        recalibration=settings.recalibration,
    )
    return Subject(subnet, data, settings.recalibration, origin=origin, finetuned=finetuned)


def model_files(
    subject: Subject,
    files: Mapping[str, Path],
    *,
    max_drop: float = ExportSettings.max_drop,
    device: Device | None = None,
) -> list[ModelFile]:
    """The checked files of a subnetwork.

    Args:
        subject: the subnetwork.
        files: where each format goes.
        max_drop: points of top-1 that int8 may lose.
        device: that the files are for, and that checks them; None takes each format's own.

    Raises:
        MeasureError: a file computes something else, or int8 loses too much.
    """
    models = []
    for name, path in files.items():
        content = FORMATS[name].write(subject)
        checks = check_content(name, content, subject=subject, max_drop=max_drop, device=device)
        card = make_card(subject, name, file=path.name, content=content, checks=checks, device=device)
        models.append(ModelFile(path, content, card))
    return models


def check_content(
    name: str, content: bytes, *, subject: Subject, max_drop: float, device: Device | None = None
) -> Json:
    """What the checks of a file say, for its card.

    Args:
        name: of the format.
        content: of the file.
        subject: what it must compute.
        max_drop: points of top-1 that int8 may lose.
        device: that runs the file; None takes the format's own.

    Raises:
        MeasureError: it computes something else, or int8 loses too much.
    """
    run = FORMATS[name].session(content, device)
    if FORMATS[name].precision == "fp32":
        return {"agreement_with_torch": parity(run, subject)}
    drop = accuracy_drop(run, subject)
    if drop["drop_points"] > max_drop:
        raise MeasureError(
            f"{name} loses {drop['drop_points']:.2f} points of top-1 on {drop['images']} held-out images, more than "
            f"{max_drop:g}, so nothing was written; --max-drop {np.ceil(drop['drop_points']):.0f} would take it"
        )
    return {"agreement_with_torch": parity(run, subject, tolerance=None), "accuracy": drop}


def time_and_write(models: Sequence[ModelFile]) -> dict[Path, Json]:
    """Measure what has a device, note it in the cards, and write everything.

    Latencies are interleaved over the files, which are of one network.

    Returns:
        the card of each file.
    """
    sessions, measured = {}, {}
    for model in models:
        if (device := model.device) is not None:
            shape = model.card["input"]["shape"]
            x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            sessions[model.path.name] = device.session(model.content, 1), x
            measured[model.path.name] = model, device
    for name, latency in side_by_side(sessions, 1, plan=LATENCY_PLAN).items():
        model, device = measured[name]
        model.card["measured"] = {
            "latency": {**latency, "conditions": conditions(device.name, 1)},
            "memory": measure_memory(model.content, device.name, model.card["input"]["shape"]),
        }
    for model in models:
        model.write()
    return {model.path: model.card for model in models}
