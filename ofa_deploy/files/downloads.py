"""Downloads that go on where they were cut off, and are checked against the size that the server names."""

from __future__ import annotations

import http.client
import logging
import re
import urllib.error
import urllib.request
from pathlib import Path

from ofa_deploy.errors import DataError
from ofa_deploy.progress import Progress

logger = logging.getLogger(__name__)

CHUNK = 1 << 18
"""Bytes that are read at once."""


def download(url: str, path: Path, *, hint: str) -> None:
    """Download `url` to `path`; until it is whole it lies at `<path>.partial`, from where a repeated call goes on.

    Args:
        url: http or https.
        path: where to.
        hint: what to do where it fails, for the error.

    Raises:
        DataError: there is no network, the server refuses, or the connection ended early.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            have, size = _where(answer, have)
            if have:
                logger.info(f"going on after {have / 1e6:.1f} MB")
            progress = Progress(0 if size is None else size - have, "bytes")
            with open(partial, "ab" if have else "wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    progress.add(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{have}":  # it was whole already
                partial.replace(path)
                return
            partial.unlink()  # what is there is not a beginning of this file
        raise DataError(f"cannot download {url}: the server answers {error.code} {error.reason}; {hint}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise DataError(f"cannot download {url}: {reason}; repeat to go on, or, without a network, {hint}") from error
    arrived = partial.stat().st_size
    if size is not None and arrived != size:
        if arrived > size:
            partial.unlink()
        raise DataError(f"{url} has {size} bytes, {arrived} arrived; repeat the command to go on")
    partial.replace(path)


def _where(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Bytes to keep of what is there, and the whole size where the server names it."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:
        return 0, int(length) if length else None
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if not span or int(span[1]) != have:
        raise http.client.HTTPException("the server sends another part than was asked for")
    if span[2] != "*":
        return have, int(span[2])
    return have, have + int(length) if length else None
