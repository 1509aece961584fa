"""Whole files: read, written whole or not at all, and locked while a run works on them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has none; two runs on one output are the user's own care there
    fcntl = None  # type: ignore[assignment]

from ofa_deploy.errors import ArtifactError


def read(path: Path) -> bytes:
    """Content of a file.

    Raises:
        ArtifactError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # such as half a character
        raise ArtifactError(f"{path} is no name of a file: {error}") from error


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    return hashlib.sha256(read(path)).hexdigest()


def write(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the block ends well, and vanishes when it does not.

    Those that killed runs have left of the same `path` vanish as well.

    Raises:
        ArtifactError: the folder cannot be made or written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        temporary = Path(name)
        with open(handle, "rb") as alive:
            _lock(alive)
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            if fcntl is None:
                alive.close()  # an open file cannot be renamed there
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise ArtifactError(f"cannot write {path}: {reason}; choose another place") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a second run from working on the output `path` while the block lasts; a kill leaves no lock.

    Raises:
        ArtifactError: another run works on it.
    """
    lock = path.with_name(f".{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "wb") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino != lock.stat().st_ino:
                    raise BlockingIOError  # the run that just ended has removed the file that we opened
        except OSError as error:
            raise ArtifactError(f"another run is writing {path}; wait for it, or choose another --out") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:64]}."


def _lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed, or its process is killed; False where another has it, or there are no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fcntl is not None
    except OSError:
        return False


def _sweep(path: Path) -> None:
    """Remove the temporary files that killed runs have left of `path`: those that nobody has locked."""
    left = re.compile(re.escape(_prefix(path)) + "[a-z0-9_]{8}")  # as tempfile names them
    for name in os.listdir(path.parent):
        if left.fullmatch(name):
            with contextlib.suppress(OSError), open(path.with_name(name), "rb") as file:
                if _lock(file):
                    path.with_name(name).unlink(missing_ok=True)


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
