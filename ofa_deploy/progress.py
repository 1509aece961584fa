"""What the package tells while it works: by `logging`, with rate and time left of what takes long.

Libraries tell nothing unless they are asked to: whoever wants the lines attaches a handler to the logger `ofa_deploy`,
as the command line does by `telling`. Information is INFO, what a user should know before relying on a result WARNING.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)
ROOT = "ofa_deploy"
"""Name of the logger above all those of the package."""


class _Stderr(logging.Handler):
    """Prints to what `sys.stderr` is when a line comes; warnings begin with `note: `."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        note = "note: " if record.levelno >= logging.WARNING else ""
        print(f"{note}{record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def telling() -> Iterator[None]:
    """While the block lasts, what the package logs is printed to standard error, a line each.

    It goes no further: libraries that log by `logging.warning`, as onnxruntime's quantisation does, give Python's root
    logger a handler, which would print each line again.
    """
    root, handler = logging.getLogger(ROOT), _Stderr()
    level, propagate = root.level, root.propagate
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        root.propagate = propagate


@contextmanager
def silent() -> Iterator[None]:
    """While the block lasts, the package logs no information: for those processes that are not the first of several."""
    root = logging.getLogger(ROOT)
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


class Progress:
    """Counts what is done, of a total (0 where that is not known), and logs it every few seconds.

    Args:
        total: how many there are.
        unit: what is counted, in plural.
        seconds: between two lines.
    """

    def __init__(self, total: int, unit: str, seconds: float = 5.0) -> None:
        self._total, self._unit, self._seconds = total, unit, seconds
        self._done = 0
        self._started = self._last = time.perf_counter()

    def add(self, number: int = 1, note: str = "") -> None:
        """Count `number` more; where a line is due, it ends with `note`."""
        self._done += number
        now = time.perf_counter()
        if now - self._last < self._seconds:
            return
        self._last = now
        rate = self._done / (now - self._started)
        line = [f"{self._done}{f'/{self._total}' if self._total else ''} {self._unit}", f"{rate:.3g}/s"]
        if self._total >= self._done:
            seconds_left = (self._total - self._done) / rate
            line.append(f"{seconds_left:.0f} s left" if seconds_left < 120 else f"{seconds_left / 60:.0f} min left")
        logger.info(", ".join([*line, *([note] if note else [])]))
