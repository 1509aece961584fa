"""When a search ends: one rule, which every loop asks.

A further rule is a field of `Stopping`, a row of `RULES`, and an option of the command. What a rule asks of a search is
a property of `Progress`, which `archive.Archive` has, and of `Clock`, which passes it on.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ofa_deploy.errors import OfaDeployError

LEAST = 1e-6
"""Relative improvement that is worth waiting for more."""
EXHAUSTED = "exhausted"
"""Ending of a search that came across nothing new."""


class Progress(Protocol):
    """What a search has come to."""

    @property
    def size(self) -> int:
        """How many architectures were evaluated."""

    @property
    def feasible(self) -> bool:
        """Whether one of them is within the limits."""


@dataclass(frozen=True)
class Stopping:
    """When a search ends: as soon as one of these numbers is reached; None never ends it.

    Attributes:
        generations: of evolution.
        patience: generations of evolution without a better architecture.
        seconds: of wall time.
        evaluations: distinct architectures. They are evaluated in batches, of which the last is finished; the first,
            random ones and the best by a surrogate, has more than 600.

    Raises:
        OfaDeployError: a number is not positive, or nothing ends the search.
    """

    generations: int | None = 120
    patience: int | None = 20
    seconds: float | None = None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        for name, rule in RULES.items():  # numbers of numpy become Python's, which JSON has
            if (most := getattr(self, name)) is not None:
                object.__setattr__(self, name, rule.number(most))
                if not (most > 0 and math.isfinite(most)):
                    raise OfaDeployError(f"--{name} must be {rule.least}, not {most}")
        if all(getattr(self, name) is None for name in RULES):
            raise OfaDeployError(f"nothing ends this search; set one of {', '.join(RULES)}")

    def start(self, progress: Progress | None = None) -> Clock:
        """The rule at the beginning of a search, whose time runs from now; without `progress` it has the time only."""
        return Clock(self, progress)

    def repeatable(self, stopped_by: str, evaluations: int) -> Stopping:
        """The rule that ends a search where this one did, however fast the machine is: without time.

        Args:
            stopped_by: what ended the search.
            evaluations: that it had made by then.
        """
        if self.seconds is None:
            return self
        by_time = stopped_by == "seconds" or stopped_by not in RULES
        return replace(self, seconds=None, evaluations=evaluations if by_time else self.evaluations)

    def ending(self, name: str) -> str:
        """What ended a search, in words.

        Args:
            name: a key of `RULES`, `EXHAUSTED`, or empty where that is not on record.
        """
        if name in RULES:
            return RULES[name].ending.format(getattr(self, name))
        return "ended as nothing near was new" if name == EXHAUSTED else ""


class Clock:
    """The rule of one search while it runs.

    Seconds and evaluations end the search as a whole, but not before something is within the limits; generations and
    patience end its evolution. Where neither of these two is set, seconds and evaluations end evolution in any case.

    Args:
        stopping: the rule.
        progress: of the search.

    Attributes:
        generations: of evolution, so far.
        waited: generations since the last better architecture.
        stopped_by: what ended the search: a key of `RULES`, `EXHAUSTED`, or empty so far.
    """

    def __init__(self, stopping: Stopping, progress: Progress | None) -> None:
        self.stopping, self._progress, self._started = stopping, progress, time.monotonic()
        self.generations = self.waited = 0
        self._reached = -math.inf
        self.stopped_by = ""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def seconds_left(self) -> float:
        """Until the time is over, negative after that; infinity where no time is set."""
        return math.inf if self.stopping.seconds is None else self.stopping.seconds - self.seconds

    @property
    def evaluations(self) -> int:
        """Distinct architectures that were evaluated."""
        return 0 if self._progress is None else self._progress.size

    def due(self) -> bool:
        """Whether the search ends here."""
        feasible = self._progress is None or self._progress.feasible
        return feasible and self._ended(of_evolution=False)

    def due_after(self, reached: float, *, fresh: bool) -> bool:
        """Count a generation, and tell whether evolution ends with it.

        Args:
            reached: its best score, or its front's hypervolume.
            fresh: whether it evaluated anything new.
        """
        better = self.generations == 0 or reached > self._reached * (1 + LEAST)
        self.waited = 0 if better else self.waited + 1
        self.generations, self._reached = self.generations + 1, reached
        if self.due() or self._ended(of_evolution=True) or (self._endless and self._ended(of_evolution=False)):
            return True
        if not fresh:
            self.stopped_by = EXHAUSTED
        return not fresh

    @property
    def _endless(self) -> bool:
        """Whether no rule is about evolution alone."""
        return all(getattr(self.stopping, name) is None for name, rule in RULES.items() if rule.of_evolution)

    def _ended(self, *, of_evolution: bool) -> bool:
        for name, rule in RULES.items():
            most = getattr(self.stopping, name)
            if rule.of_evolution == of_evolution and most is not None and rule.reached(self) >= most:
                self.stopped_by = name
                return True
        return False


@dataclass(frozen=True)
class Rule:
    """One way to end a search.

    Attributes:
        number: makes Python's number of what was set.
        reached: the number of a search so far, which is compared with what was set.
        least: what must be set, in words.
        ending: how an answer says that this ended its search; `{}` stands for what was set.
        of_evolution: whether it ends evolution only.
    """

    number: Callable[[Any], float]
    reached: Callable[[Clock], float]
    least: str
    ending: str
    of_evolution: bool = False


RULES: Mapping[str, Rule] = {
    "seconds": Rule(float, lambda clock: clock.seconds, "above 0", "ended by --seconds {:g}"),
    "evaluations": Rule(operator.index, lambda clock: clock.evaluations, "at least 1", "ended by --evaluations {}"),
    "patience": Rule(
        operator.index,
        lambda clock: clock.waited,
        "at least 1",
        "ended after {} generations without a better one",
        of_evolution=True,
    ),
    "generations": Rule(
        operator.index,
        lambda clock: clock.generations,
        "at least 1",
        "ended by --generations {}",
        of_evolution=True,
    ),
}
"""The rules, by the fields of `Stopping`."""
