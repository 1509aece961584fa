"""Lists of architectures from files: our text form, or the lists of the official once-for-all code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArchError, ArtifactError
from ofa_deploy.files import atomic
from ofa_deploy.files.csv_text import read_records
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.net_configs import from_net_config
from ofa_deploy.spaces.official import codec_of, from_ofa
from ofa_deploy.spaces.space import SearchSpace

Row = dict[str, Any]


def read(path: Path, space: SearchSpace, *, results: bool = False) -> tuple[list[Arch], list[Row]]:
    """Architectures of a file, and its rows.

    A CSV has a column `arch` (`r28_k3e6-k5e4_...`), or the lists of the space's official form as JSON (`ks`, `e` and
    `d`; for ResNet50D `d`, `e` and `w`) and `r`. A `.json` is an object with those keys, or a list of such objects.

    Args:
        path: of the file.
        space: whose architectures they must be.
        results: whether it may be a search result as well, of which all networks are taken.

    Raises:
        ArtifactError: the file is missing or of another form, or a row is no architecture of the space; it is named.
    """
    content = atomic.read(path)
    if results and path.suffix == ".json" and (networks := _networks(content, path)):
        content = json.dumps(networks).encode()
    return parse(content, path, space)


def parse(content: bytes, path: Path, space: SearchSpace) -> tuple[list[Arch], list[Row]]:
    """What `read` does, of a content that was read already; `path` is named in errors."""
    rows = _json_rows(content, path) if path.suffix == ".json" else _csv_rows(content, path)
    archs = []
    for number, row in enumerate(rows, 1):
        try:
            archs.append(_arch(row, space))
        except ArchError as error:
            raise ArtifactError(f"{path}, row {number}: {error}") from error
    return archs, rows


def read_one(path: Path, space: SearchSpace, resolution: int | None = None) -> Arch:
    """The architecture of a JSON file of the official code: an object as in `read`, or a `net.config`.

    Args:
        path: of the file.
        space: whose architecture it must be.
        resolution: in pixels; None takes what the file says.

    Raises:
        ArtifactError: the file is missing or of another form, or says no resolution where none is given.
    """
    rows = _json_rows(atomic.read(path), path)
    if len(rows) != 1:
        raise ArtifactError(f"{path} lists {len(rows)} architectures, one is wanted")
    row = rows[0]
    if resolution is not None:
        row = row | {"r": resolution}
    try:
        if "blocks" not in row:
            return _arch(row, space)
        if not isinstance(size := row.get("r", row.get("image_size")), int):
            raise ArchError("it does not say the resolution; give it, such as --resolution 224")
        return from_net_config(space, row, size)
    except ArchError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _csv_rows(content: bytes, path: Path) -> list[Row]:
    rows: list[Row] = [*read_records(content, path)]
    if not rows:
        raise ArtifactError(f"{path} has no rows below its header")
    return rows


def _json_rows(content: bytes, path: Path) -> list[Row]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON") from error
    rows = value if isinstance(value, list) else [value]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ArtifactError(f"{path} must be a JSON object that is an architecture, or a list of such objects")
    return rows


def _networks(content: bytes, path: Path) -> list[dict[str, str]]:
    """All networks of a search result, each by its `arch`; none of another file."""
    (value, *more) = _json_rows(content, path)
    if more or value.get("kind") != "search-result":
        return []
    try:
        results = value.get("results", [value])
        networks = [network for result in results for network in result.get("front") or [result]]
        return [{"arch": str(network["arch"])} for network in networks]
    except (TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: it names no networks; search again") from error


def _arch(row: Row, space: SearchSpace) -> Arch:
    if row.get("arch"):
        return space.check(Arch.parse(str(row["arch"])))
    keys = (*codec_of(space).keys, "r")
    if missing := [key for key in keys if row.get(key) in (None, "")]:
        raise ArchError(f"it has neither arch nor {', '.join(missing)}")
    try:
        return from_ofa(space, {k: json.loads(row[k]) if isinstance(row[k], str) else row[k] for k in keys})
    except (ValueError, RecursionError) as error:
        raise ArchError(f"{', '.join(keys)} must be lists such as [3, 5, 7] and a number r") from error
