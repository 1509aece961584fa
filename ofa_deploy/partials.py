"""Files that long work appends its results to, so that it goes on from there when it is killed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_deploy import artifacts
from ofa_deploy.errors import ArtifactError


def resume(partial: Path, header: Mapping[str, Any]) -> list[str]:
    """Begin an append-only file of results, or go on with the one that a killed run left.

    Args:
        partial: the file; its first line is the header, each further one a result.
        header: what the run is about, JSON values.

    Returns:
        the results that are there, a line each; a last line torn by the kill is cut off.

    Raises:
        ArtifactError: what lies there is damaged, or of a run with another header.
    """
    first = json.dumps(header)
    if not partial.exists():
        artifacts.write(partial, first + "\n")
        return []
    lines = artifacts.read(partial).decode(errors="replace").split("\n")
    try:
        same = json.loads(lines[0]) == json.loads(first)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{partial} is damaged; remove it to start anew") from error
    if not same:
        raise ArtifactError(f"{partial} is of a run with other options or inputs; repeat those, or remove the file")
    artifacts.write(partial, "\n".join(lines[:-1]) + "\n")
    return lines[1:-1]


def numbered(number: int, line: str) -> str:
    """A line of an append-only file, with a checksum of it and of its number there (from 1)."""
    return f"{line}\t{zlib.crc32(f'{number} {line}'.encode())}\n"


def unnumbered(number: int, text: str) -> str:
    """The line that `numbered` was given.

    Raises:
        ValueError: it is another, or stands elsewhere.
    """
    line = text.rpartition("\t")[0]
    if f"{text}\n" != numbered(number, line):
        raise ValueError(f"the checksum of line {number} does not match")
    return line
