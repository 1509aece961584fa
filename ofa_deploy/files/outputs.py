"""What may be written where: checked before the work for it begins."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import artifacts
from ofa_deploy.files.json_text import Json

logger = logging.getLogger(__name__)


def check_output(path: Path, *suffixes: str) -> None:
    """Refuse an artifact that cannot be written before the work for it begins.

    Raises:
        ArtifactError: `check_file` refuses it, or the JSON that would describe it is there and is something else.
    """
    check_file(path, *suffixes)
    beside = path.with_suffix(".json")
    if beside.exists() and described_by(beside) != path.name:
        raise ArtifactError(f"{beside} does not belong to {path} and would be overwritten; choose another name")


def check_file(path: Path, *suffixes: str) -> None:
    """Refuse a file that cannot be written before the work for it begins.

    Raises:
        ArtifactError: its name does not end in one of `suffixes`, where there are any, it is a folder, or its folder
            cannot be made or written.
    """
    if suffixes and path.suffix not in suffixes:
        raise ArtifactError(f"the output {path} must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise ArtifactError(f"the output {path} is a folder; choose another name")
    check_folder(path)


def check_plain(path: Path, *suffixes: str) -> None:
    """Refuse a file that is no artifact and cannot be written, before the work for it begins.

    Raises:
        ArtifactError: `check_file` refuses it, or an artifact, or the description of one, lies there.
    """
    check_file(path, *suffixes)
    if described := described_by(path):
        raise ArtifactError(f"{path} describes {described} and would be overwritten; choose another --out")
    beside = path.with_suffix(".json")
    if beside != path and path.exists() and described_by(beside) == path.name:
        raise ArtifactError(f"{path} is what {beside} describes and would be overwritten; choose another --out")


def made_already(path: Path, kind: str, *, expected: Mapping[str, Any]) -> Json:
    """The description of an artifact that is there already, if it was made as it would be made now.

    Args:
        path: of its data file.
        kind: what it must be.
        expected: what its description must say, where it says anything; None is anything.

    Raises:
        ArtifactError: it was made otherwise, or its description is missing or damaged.
    """
    if not path.with_suffix(".json").exists():
        raise ArtifactError(f"{path} is there already, of somebody else's making; remove it, or choose another --out")
    description = artifacts.describe(path, kind)
    others = [key for key, value in expected.items() if value is not None and description.get(key, value) != value]
    if others:
        names = ", ".join(key.replace("_", " ") for key in others)
        raise ArtifactError(f"{path} is there already, made otherwise ({names}); remove it, or choose another --out")
    logger.info(f"{path} is there already, made like this; remove it to make it anew")
    return description


def described_by(path: Path) -> str | None:
    """The file that a JSON says it is about; None where it says none, or cannot be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        described = json.loads(path.read_bytes())
        return str(described["file"]) if isinstance(described, dict) and "file" in described else None
    return None


def check_folder(path: Path) -> None:
    """Make sure that a file can be written to a folder, before the work for it begins; nothing is made yet.

    Raises:
        ArtifactError: the folder, or the next above it that is there, cannot be written.
    """
    try:
        with tempfile.TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())):
            pass
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
