"""What there is to work with: spaces, and the artifacts of the working folder and of this release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import artifacts, atomic, json_text
from ofa_deploy.files.json_text import Json
from ofa_deploy.formatting import mapping
from ofa_deploy.spaces.families import SPACES
from ofa_deploy.spaces.space import SearchSpace

KINDS = {
    "supernet": "supernets",
    "accuracy-samples": "samples",
    "accuracy-predictor": "predictors",
    "latency-table": "tables",
}
"""What artifacts are called in a list, by the kind in their JSON."""
SHOWN = (
    "model",
    "error",
    "device",
    "runtime",
    "threads",
    "resolutions",
    "number",
    "top1_percent",
    "label_noise",
    "dataset",
    "created",
    "sha256",
)
"""What a list says of an artifact, where its JSON has it."""
_EXPECTED = {"lut": "tables", "predictors": "predictors", "supernets": "supernets"}
"""The kind that an artifact of a folder is taken for where its JSON cannot be read."""


@dataclass(frozen=True)
class Item:
    """An artifact of the working folder or of this release.

    Attributes:
        kind: one of the values of `KINDS`.
        path: of its data file.
        origin: `here` for the working folder, `shipped` for this release.
        record: its JSON.
        problem: what is wrong with it; empty where nothing is.
    """

    kind: str
    path: Path
    origin: str
    record: Mapping[str, Any]
    problem: str = ""

    @property
    def space(self) -> str:
        """Name of its search space."""
        return str(self.record.get("space", "-"))

    def to_json(self) -> Json:
        """The artifact as JSON values: where it lies, and what its JSON says of its quality."""
        details = {key: self.record[key] for key in SHOWN if key in self.record}
        problem = {"problem": self.problem} if self.problem else {}
        return {"space": self.space, "path": str(self.path), "origin": self.origin, **details, **problem}


def items(*kinds: str) -> list[Item]:
    """Artifacts, the working folder's first; damaged ones say what is wrong with them.

    Args:
        kinds: values of `KINDS`; none means all of them.
    """
    paths = [(path, folder) for folder in artifacts.FOLDERS for path in artifacts.candidates(folder, "*.json")]
    described = [item for path, folder in paths if (item := _item(path, folder)) is not None]
    return [item for item in described if item.kind in (kinds or KINDS.values())]


def _item(path: Path, folder: str) -> Item | None:
    """The artifact of a JSON file; None where it describes something else."""
    origin = "shipped" if path.parent.resolve() == artifacts.shipped(folder).resolve() else "here"
    try:
        record = json_text.loads(atomic.read(path), path)
    except OfaDeployError as error:
        return Item(_EXPECTED[folder], path, origin, {}, str(error))
    kind, file = record.get("kind"), record.get("file")
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(file, str):
        return None
    data = path.with_name(Path(file).name or path.name)
    try:
        _, checked_record = artifacts.load(data, kind)
        return Item(KINDS[kind], data, origin, checked_record)
    except OfaDeployError as error:
        return Item(KINDS[kind], data, origin, record, str(error))


def spaces() -> list[Json]:
    """Every search space as JSON values."""
    return [
        {
            "space": space.name,
            "input_channels": space.in_channels,
            "classes": space.classes,
            "resolutions": list(space.resolutions),
            "networks": networks(space),
            "origin": "shipped",
        }
        for space in SPACES.values()
    ]


def networks(space: SearchSpace) -> int:
    """How many networks a space has at each resolution."""
    number = 1
    for stage in space.stages:
        number *= sum(len(stage.choices) ** depth for depth in stage.depths)
    for choices in space.widths:
        number *= len(choices)
    return number


def inventory() -> Json:
    """Spaces, and artifacts by kind, as JSON values."""
    everything = items()
    by_kind = {kind: [item.to_json() for item in everything if item.kind == kind] for kind in KINDS.values()}
    return {"spaces": spaces(), **by_kind}


def error_of(item: Item) -> Mapping[str, Any]:
    """The errors that a table's or a predictor's JSON has on record; nothing where they are not known."""
    error = mapping(item.record.get("error"))
    return error if error.get("networks", error.get("fitted")) else {}
