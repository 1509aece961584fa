"""Artifacts: a data file plus a JSON of the same stem that says how it came to be.

Reading one never runs code: formats are CSV, JSON, safetensors and `.npz` without pickles. A working folder and what
ships have the same layout (`lut/`, `predictors/`, `supernets/`); the working folder is looked at first.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files.atomic import read, write
from ofa_deploy.files.json_text import Json, check_seal, dumps, loads, sealed
from ofa_deploy.files.machine import made_with

SCHEMA = 1
"""Of the JSON that describes an artifact; releases read those up to their own."""
FOLDERS = ("lut", "predictors", "supernets")
"""Of artifacts, in a working folder and in what ships."""


def shipped(folder: str) -> Path:
    """Where the artifacts of this release lie: inside the wheel, or beside the `pyproject.toml` of a checkout."""
    package = Path(__file__).parents[1]
    checkout = package.parent
    return checkout / folder if (checkout / "pyproject.toml").exists() else package / "_shipped" / folder


def find_artifact(folder: str, name: str, *, hint: str = "make it, or name it") -> Path:
    """The artifact's data file `name` of `folder`: that of the working folder, else the one that ships.

    Raises:
        ArtifactError: there is none; the message ends with `hint`, the next step.
    """
    for path in (Path(folder) / name, shipped(folder) / name):
        if path.is_file():
            return path
    raise ArtifactError(f"no {folder}/{name} here, and none ships; {hint}")


def candidates(folder: str, pattern: str) -> list[Path]:
    """JSON files of a folder that match a glob pattern: the working folder's first, then what ships."""
    here = sorted(Path(folder).glob(pattern))
    resolved = {path.resolve() for path in here}
    return [*here, *(path for path in sorted(shipped(folder).glob(pattern)) if path.resolve() not in resolved)]


def save(path: Path, data: bytes, *, kind: str, space: str, details: Mapping[str, Any]) -> Json:
    """Save an artifact: the data at `path`, and beside it the JSON that describes it.

    Args:
        path: of the data file.
        data: its content.
        kind: what it is, e.g. `latency-table`.
        space: name of its search space.
        details: how it came to be; JSON values.

    Returns:
        the description that was written.
    """
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    description = {
        "schema": SCHEMA,
        "kind": kind,
        "space": space,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "created": today,
        **details,
        "made_with": made_with(),
    }
    description = sealed(description)
    try:
        text = dumps(description).encode()
    except UnicodeEncodeError as error:
        raise ArtifactError(f"cannot write {path}: its description holds half a character") from error
    write(path, data)
    write(path.with_suffix(".json"), text)
    return description


def load(path: Path, kind: str, *, space: str | None = None) -> tuple[bytes, Json]:
    """Read an artifact and check it: kind, schema, space and checksum.

    Args:
        path: of the data file.
        kind: what it must be.
        space: the space that it must belong to; None accepts any.

    Returns:
        its data and its description.

    Raises:
        ArtifactError: naming what is wrong.
    """
    description = describe(path, kind)
    if path.suffix == ".json":
        raise ArtifactError(f"{path} describes {description.get('file', 'another file')}; name that one")
    if space is not None and description["space"] != space:
        raise ArtifactError(f"{path} is of the space {description['space']}, not of {space}; choose with --space")
    data = read(path)
    if hashlib.sha256(data).hexdigest() != description.get("sha256"):
        raise ArtifactError(f"{path} is damaged or was edited: its checksum is not the one in its JSON; make it anew")
    return data, description


def describe(path: Path, kind: str) -> Json:
    """Read and check the JSON beside a data file, leaving the data alone.

    Raises:
        ArtifactError: it is missing, no JSON, of another kind or of a newer schema.
    """
    if not path.name:
        raise ArtifactError(f"{path} is no file")
    beside = path.with_suffix(".json")
    if not beside.exists():
        read(path)
        raise ArtifactError(f"{path} has no {beside.name} beside it, so it is no {kind} of ofa-deploy")
    description = loads(read(beside), beside)
    if description.get("kind") != kind or not isinstance(description.get("space"), str):
        raise ArtifactError(f"{beside} is of another kind ({description.get('kind', 'unknown')}), not of {kind}")
    schema = description.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ArtifactError(f"{beside} has schema {schema}, this release reads up to {SCHEMA}; upgrade ofa-deploy")
    check_seal(description, beside)
    return description


@cache
def slug(text: str) -> str:
    """A text as a part of a file's name: its letters and digits, in lower case, with dashes for all between them."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
