"""Progress of long work: a line now and then, with rate and time left."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str], None]
"""Receives a line for the user."""


class Progress:
    """Counts what is done, of a total (0 where that is not known), and reports it every few seconds."""

    def __init__(self, total: int, unit: str, report: Report, seconds: float = 5.0) -> None:
        self._total, self._unit, self._report, self._seconds = total, unit, report, seconds
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
        said = [f"{self._done}{f'/{self._total}' if self._total else ''} {self._unit}", f"{rate:.3g}/s"]
        if self._total >= self._done:
            left = (self._total - self._done) / rate
            said.append(f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left")
        self._report(", ".join([*said, *([note] if note else [])]))
