"""Results of a run that measures, on disk as they come: what a killed run has measured is not lost."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import journals
from ofa_deploy.spaces.arch import Arch


class Shards:
    """Results on disk: a line a group with its checksum. A file that would hold none is removed in the end.

    Args:
        partial: the file; where it is there already, its results are read.
        header: what the run measures, and how; the file must be of a run with the same.

    Raises:
        ArtifactError: the file is damaged, or of another run.
    """

    def __init__(self, partial: Path, header: dict[str, Any]) -> None:
        self.partial = partial
        self.counts: dict[int, list[int]] = {}
        """Correct images of each network of a group, by the group's number."""
        self.seconds: dict[int, float] = {}
        """CPU seconds that each group took."""
        self.checksums: dict[int, int] = {}
        """CRC-32 of each group's networks."""
        for number, text in enumerate(journals.resume(partial, header), 1):
            try:
                index, counts, seconds, checksum = json.loads(journals.unnumbered(number, text))
                self.counts[index], self.seconds[index] = [int(count) for count in counts], float(seconds)
                self.checksums[index] = checksum
            except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
                raise self.damaged() from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.counts:
            self.remove()

    def remove(self) -> None:
        """Remove the file."""
        self.partial.unlink(missing_ok=True)

    def damaged(self) -> ArtifactError:
        """The error of a file that is not what was written."""
        return ArtifactError(f"{self.partial} is damaged (a checksum does not match); remove it to start anew")

    def measured(self, groups: Sequence[Sequence[Arch]]) -> list[int]:
        """Numbers of the groups whose results are there.

        Raises:
            ArtifactError: the results are of other networks.
        """
        numbers = [i for i in range(len(groups)) if i in self.counts]
        if any(len(self.counts[i]) != len(groups[i]) or self.checksums[i] != _checksum(groups[i]) for i in numbers):
            raise ArtifactError(
                f"{self.partial} is of other networks: another release has drawn them; remove it to start anew"
            )
        return numbers

    def add(self, number: int, group: Sequence[Arch], *, counts: list[int], seconds: float) -> None:
        """Keep the results of a group, also on disk.

        Args:
            number: of the group.
            group: its networks.
            counts: correct images of each of them.
            seconds: CPU seconds that they took.
        """
        self.counts[number], self.seconds[number], self.checksums[number] = counts, seconds, _checksum(group)
        line = json.dumps([number, counts, round(seconds, 3), self.checksums[number]])
        journals.append(self.partial, journals.numbered(len(self.counts), line))


def _checksum(group: Sequence[Arch]) -> int:
    return zlib.crc32("\n".join(map(str, group)).encode())
