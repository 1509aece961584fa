"""The loop that all of this package shares: search, measure what was found, correct, and search again.

search ──> candidates ──> measure ──> correct ──> nothing to correct, or no round left: the end
  ^                                      │
  └──────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ofa_deploy.search.exploration import RISK, check_risk
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping

Candidates = TypeVar("Candidates")


class ClosedLoop(Protocol[Candidates]):
    """What one loop searches, measures and corrects."""

    def search(self) -> Candidates:
        """Networks that are worth measuring, by all that was corrected so far; none ends the loop."""

    def measure(self, candidates: Candidates, number: int) -> None:
        """Measure them.

        Args:
            candidates: of the search.
            number: of the round, from 1.
        """

    def correct(self, candidates: Candidates, number: int) -> bool:
        """Correct what the search goes by, and tell whether to search again.

        Args:
            candidates: that were measured.
            number: of the round, from 1.
        """


def search_again(loop: ClosedLoop[Candidates], rounds: int) -> int:
    """Search, measure and correct, until nothing is left to correct.

    Args:
        loop: what is searched, measured and corrected.
        rounds: at most.

    Returns:
        how many searches there were, one that found nothing included.
    """
    for number in range(1, rounds + 1):
        candidates = loop.search()
        if not candidates:
            return number
        loop.measure(candidates, number)
        if not loop.correct(candidates, number):
            return number
    return rounds


@dataclass(frozen=True)
class SearchPlan:
    """How each search of a loop runs, and what its result records.

    Attributes:
        settings: of each search.
        stopping: when each search ends.
        risk: candidates are compared by prediction minus this many of its standard deviations.
        inputs: recorded in the result: what was asked for, and the checksums of files; JSON values.

    Raises:
        OfaDeployError: `risk` is out of its range.
    """

    settings: SearchSettings = field(default_factory=SearchSettings)
    stopping: Stopping = field(default_factory=Stopping)
    risk: float = RISK
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_risk(self.risk)
