"""Measuring many graphs in shuffled, interleaved rounds; `latency.machine_state` makes estimates of the visits."""

from __future__ import annotations

import json
import logging
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ofa_deploy.device.timing import FEWEST_RUNS, Array, Session, Visit
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import journals
from ofa_deploy.progress import Progress

logger = logging.getLogger(__name__)

Key = tuple[int, str]
"""(round, entry) of a visit."""
SENTINEL_RUNS = 5
"""Samples of the sentinel before each visit."""
FEWEST = 5
"""Whole networks that a table needs."""


@dataclass(frozen=True)
class MeasurePlan:
    """How a table is measured.

    Attributes:
        rounds: shuffled passes over everything; the estimate is the median of the rounds' medians.
        runs: samples a visit.
        seconds: a visit ends early when its samples sum to this.
        networks: whole ones, that the table is calibrated with or fitted to.
        threads: of the runtime.
        seed: of the networks, the weights and the order.
    """

    rounds: int = 16
    runs: int = 20
    seconds: float = 0.03
    networks: int = 72
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):  # numbers of numpy become Python's, which JSON has
            number = operator.index if isinstance(field.default, int) else float
            object.__setattr__(self, field.name, number(getattr(self, field.name)))
        fewest = {"rounds": 1, "runs": FEWEST_RUNS, "networks": FEWEST, "threads": 1}
        if few := [f"{least} {name}" for name, least in fewest.items() if getattr(self, name) < least]:
            raise MeasureError(f"a table needs at least {' and '.join(few)}")


class Started(NamedTuple):
    """A graph that is ready to run, and the input that it is timed on."""

    session: Session
    x: Array

    def time(self, plan: MeasurePlan, *, runs: int) -> Visit:
        """A visit of some runs, as a plan has it."""
        return self.session.time(self.x, runs=runs, seconds=plan.seconds, threads=plan.threads)


def measure(
    names: Collection[str],
    start: Callable[[str], Started],
    *,
    sentinel: Started,
    plan: MeasurePlan,
    partial: Path,
    header: dict[str, Any],
    keep: Callable[[str], bool] = lambda name: True,
) -> dict[Key, Visit]:
    """Visit each entry once a round, in an order shuffled for each round, appending to `partial`.

    A sentinel network is timed before each visit. An entry is let go after its last one.

    Args:
        names: of the entries.
        start: gets an entry ready, by its name.
        sentinel: the network that is timed before each visit.
        plan: rounds, samples and seed.
        partial: file of the visits; those of a killed run with the same header are not repeated.
        header: what the run is about, JSON values.
        keep: whether an entry stays ready until its next visit, asked at each; those that do not are started again, and
            take no memory in between.

    Raises:
        ArtifactError: what lies at `partial` is damaged, or of another run, or the disk is full.
    """
    visits = read(journals.resume(partial, header), partial)
    rng = np.random.default_rng(plan.seed)
    if visits:
        logger.info(f"resuming: {len(visits)} visits are there")
    ready: dict[str, Started] = {}
    progress = Progress(len(missing(visits, names, plan)), "visits", seconds=2)
    for r in range(plan.rounds):
        for name in rng.permutation(list(names)).tolist():
            if (r, name) in visits:
                continue
            started = ready.pop(name, None) or start(name)
            if r + 1 < plan.rounds and keep(name):
                ready[name] = started
            state = sentinel.time(plan, runs=SENTINEL_RUNS)
            visits[r, name] = replace(started.time(plan, runs=plan.runs), sentinel_ms=state.median_ms)
            line = json.dumps([r, name, *asdict(visits[r, name]).values()])
            journals.append(partial, journals.numbered(len(visits), line))
            progress.add()
    return visits


def missing(visits: Mapping[Key, Visit], names: Collection[str], plan: MeasurePlan) -> set[Key]:
    """What `measure` would still visit."""
    return {(r, name) for r in range(plan.rounds) for name in names} - visits.keys()


def read(lines: Iterable[str], path: Path) -> dict[Key, Visit]:
    """Visits from the lines that `measure` wrote.

    Raises:
        ArtifactError: they are not what was written.
    """
    visits = {}
    try:
        for number, text in enumerate(lines, 1):
            r, name, *rest = json.loads(journals.unnumbered(number, text))
            visits[int(r), str(name)] = visit = Visit(*rest)
            times = (visit.median_ms, visit.minimum_ms, visit.sentinel_ms)
            counts = (r, visit.runs, visit.dropped)
            if not all(math.isfinite(t) and t > 0 for t in times) or not all(type(c) is int and c >= 0 for c in counts):
                raise ValueError(name)
            if visit.runs + visit.dropped == 0:
                raise ValueError(name)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged; remove it to start anew") from error
    return visits
