"""Files that long work appends its results to, so that it goes on from there when it is killed."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArtifactError, InfeasibleError
from ofa_deploy.files import atomic


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
        atomic.write(partial, first + "\n")
        return []
    lines = atomic.read(partial).decode(errors="replace").split("\n")
    try:
        same = json.loads(lines[0]) == json.loads(first)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{partial} is damaged; remove it to start anew") from error
    if not same:
        raise _of_another_run(partial)
    atomic.write(partial, "\n".join([first, *lines[1:-1]]) + "\n")
    return lines[1:-1]


def _of_another_run(partial: Path | None) -> ArtifactError:
    return ArtifactError(f"{partial} is of a run with other options or inputs; repeat those, or remove the file")


def numbered(number: int, line: str) -> str:
    """A line of an append-only file, with a checksum of it and of its number there (from 1)."""
    return f"{line}\t{zlib.crc32(f'{number} {line}'.encode())}\n"


def append(partial: Path, line: str) -> None:
    """Write a line at the end of a file; where there is room for a part of it only, that part is cut off on resuming.

    Raises:
        ArtifactError: it cannot be written.
    """
    content = line.encode()
    try:
        with partial.open("ab", buffering=0) as file:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise ArtifactError(
            f"cannot write {partial}: {error.strerror or error}; mend that and repeat the command to go on"
        ) from error


def unnumbered(number: int, text: str) -> str:
    """The line that `numbered` was given.

    Raises:
        ValueError: it is another, or stands elsewhere.
    """
    line = text.rpartition("\t")[0]
    if f"{text}\n" != numbered(number, line):
        raise ValueError(f"the checksum of line {number} does not match")
    return line


class Journal:
    """Outcomes of the steps of a computation in which each step follows from those before: a repeated one takes them
    from here until they end, and makes the others.

    Args:
        partial: append-only file of the outcomes; None keeps none.
        header: what the computation is about, JSON values.
    """

    def __init__(self, partial: Path | None = None, header: Mapping[str, Any] | None = None) -> None:
        self._partial = partial
        self._lines = [] if partial is None else resume(partial, header or {})
        self._number = 0

    @property
    def recorded(self) -> int:
        """How many outcomes were there when it began."""
        return len(self._lines)

    @property
    def has_steps(self) -> bool:
        """Whether there is any outcome, taken or made."""
        return self._number > 0

    def step(self, label: Any, make: Callable[[], Any]) -> Any:
        """The outcome of the next step, as JSON values.

        Args:
            label: tells the step from others, JSON values.
            make: makes the outcome where it is not there.

        Raises:
            ArtifactError: the file is damaged or cannot be written, or its next step is another one.
        """
        number = self._number + 1
        if number <= len(self._lines):
            try:
                then, outcome = json.loads(unnumbered(number, self._lines[number - 1]))
            except (ValueError, TypeError, RecursionError) as error:
                raise ArtifactError(f"{self._partial} is damaged; remove it to start anew") from error
            if then != json.loads(json.dumps(label)):
                raise _of_another_run(self._partial)
        else:
            line = json.dumps([label, make()])
            if self._partial is not None:
                append(self._partial, numbered(number, line))
            outcome = json.loads(line)[1]
        self._number = number
        return outcome


@contextmanager
def journal(out: Path | None, header: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of the computation whose result becomes `out`: in `<out>.partial`, which a kill leaves there.

    Raises:
        ArtifactError: another run works on `out`, or what lies there is damaged or of another run.
    """
    if out is None:
        yield Journal()
        return
    partial = out.with_name(f"{out.name}.partial")
    with atomic.locked(out):
        steps = Journal(partial, header)
        try:
            yield steps
        except BaseException as error:
            nothing = not steps.has_steps and not steps.recorded
            if nothing or isinstance(error, InfeasibleError):  # which no repeating changes
                partial.unlink(missing_ok=True)
            raise
        partial.unlink(missing_ok=True)
