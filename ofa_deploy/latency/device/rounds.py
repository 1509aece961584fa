"""Measuring many graphs: shuffled, interleaved rounds, and how each graph's visits become one estimate."""

from __future__ import annotations

import json
import math
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ofa_deploy import partials
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.latency.device.timing import FEWEST_RUNS, Array, Session, Visit, visit
from ofa_deploy.progress import Progress, Report

Key = tuple[int, str]
"""(round, entry) of a visit."""
SENTINEL_RUNS = 5
SLOWER = 1.3
"""A sentinel slower than its fast state by this factor tells that the machine is in another state."""
WINDOW = 9
"""Visits over which the sentinel's running median is taken."""
FEWEST = 5
"""Whole networks that a table needs."""
ENOUGH = 3
"""Visits in the fast state that an entry needs."""


@dataclass(frozen=True)
class Plan:
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
    networks: int = 36
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for one in fields(self):  # numbers of numpy become Python's, which JSON has
            number = operator.index if isinstance(one.default, int) else float
            object.__setattr__(self, one.name, number(getattr(self, one.name)))
        fewest = {"rounds": 1, "runs": FEWEST_RUNS, "networks": FEWEST, "threads": 1}
        if few := [f"{least} {name}" for name, least in fewest.items() if getattr(self, name) < least]:
            raise MeasureError(f"a table needs at least {' and '.join(few)}")


class Started(NamedTuple):
    """A graph that is ready to run, and the input that it is timed on."""

    session: Session
    x: Array


@dataclass(frozen=True)
class Estimate:
    """Latency of one graph, from all its visits.

    Attributes:
        latency_ms: the median of the visits' medians, each carried to the machine's fast state.
        minimum_ms: the smallest sample, carried likewise.
        spread_percent: (largest - smallest median) / smallest, over the visits.
        runs: samples in all.
    """

    latency_ms: float
    minimum_ms: float
    spread_percent: float
    runs: int


def measure(
    names: Collection[str], start: Callable[[str], Started], sentinel: Started, plan: Plan, partial: Path,
    header: dict[str, Any], report: Report, keep: Callable[[str], bool] = lambda name: True,
) -> dict[Key, Visit]:  # fmt: skip
    """Visit each entry once a round, in an order shuffled for each round, appending to `partial`.

    A sentinel network is timed before each visit. Entries with fewer than `ENOUGH` visits in the machine's fast state
    are visited again, in at most twice as many rounds more.

    Args:
        names: of the entries.
        start: gets an entry ready.
        sentinel: a network that is timed before each visit.
        plan: rounds, samples and seed.
        partial: file of the visits; those of a killed run with the same header are not repeated.
        header: what the run is about, JSON values.
        report: receives a line of progress now and then.
        keep: which entries stay ready between their visits; the others cost less memory.

    Raises:
        ArtifactError: what lies at `partial` is damaged, or of another run, or the disk is full.
    """
    visits = read(partials.resume(partial, header), partial)
    rng = np.random.default_rng(plan.seed)
    if visits:
        report(f"resuming: {len(visits)} visits are there")
    known = set(names)
    ready: dict[str, Started] = {}
    there = sum(name in known for _, name in visits)
    progress = Progress(plan.rounds * len(names) - there, "visits", report, seconds=2)
    for r in range(3 * plan.rounds):
        due = _due(visits, names, r, plan)
        if not due:
            break
        if r >= plan.rounds:
            report(f"the machine was slow for a while: visiting {len(due)} of {len(names)} entries again")
            progress = Progress(len(due), "visits", report, seconds=2)
        for name in rng.permutation(due).tolist():
            if (r, name) in visits:
                continue
            started = ready.get(name) or start(name)
            if keep(name):
                ready[name] = started
            state = visit(*sentinel, plan.threads, SENTINEL_RUNS, plan.seconds).median_ms
            found = visit(*started, plan.threads, plan.runs, plan.seconds)
            visits[r, name] = replace(found, sentinel_ms=state)
            line = json.dumps([r, name, *asdict(visits[r, name]).values()])
            partials.append(partial, partials.numbered(len(visits), line))
            progress.add()
    return visits


def _due(visits: Mapping[Key, Visit], names: Collection[str], r: int, plan: Plan) -> list[str]:
    """The entries to visit in round `r`: a function of their rounds before it, so that a kill changes nothing."""
    if r < plan.rounds:
        return list(names)
    known = set(names)
    before = {key: found for key, found in visits.items() if key[0] < r and key[1] in known}
    return lacking(before, names, min(ENOUGH, plan.rounds))


def missing(visits: Mapping[Key, Visit], names: Collection[str], plan: Plan) -> set[Key]:
    """What `measure` would still visit in the first round that is not complete."""
    for r in range(3 * plan.rounds):
        if lacks := {(r, name) for name in _due(visits, names, r, plan)} - visits.keys():
            return lacks
    return set()


def read(lines: Iterable[str], path: Path) -> dict[Key, Visit]:
    """Visits from the lines that `measure` wrote.

    Raises:
        ArtifactError: they are not what was written.
    """
    visits = {}
    try:
        for number, text in enumerate(lines, 1):
            r, name, *rest = json.loads(partials.unnumbered(number, text))
            visits[int(r), str(name)] = found = Visit(*rest)
            times = (found.median_ms, found.minimum_ms, found.sentinel_ms)
            counts = (r, found.runs, found.dropped)
            if not all(math.isfinite(t) and t > 0 for t in times) or not all(type(c) is int and c >= 0 for c in counts):
                raise ValueError(name)
            if found.runs + found.dropped == 0:
                raise ValueError(name)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged; remove it to start anew") from error
    return visits


def _states(visits: Mapping[Key, Visit]) -> dict[Key, float]:
    """How much slower than in its fast state the machine was, by the sentinel's running median: 1 is fast."""
    sentinel = np.pad([v.sentinel_ms for v in visits.values()], WINDOW // 2, mode="edge")
    running = np.median([sentinel[i : i + len(visits)] for i in range(WINDOW)], axis=0)
    return dict(zip(visits, (running / np.quantile(running, 0.1)).tolist()))


def fast(visits: Mapping[Key, Visit]) -> set[Key]:
    """The visits that count: the machine was in its fast state, or not much slower."""
    return {key for key, state in _states(visits).items() if state <= SLOWER}


def lacking(visits: Mapping[Key, Visit], names: Iterable[str], enough: int) -> list[str]:
    """The entries with fewer than `enough` visits in the fast state."""
    counts = Counter(name for _, name in fast(visits))
    return [name for name in names if counts[name] < enough]


def estimates(visits: Mapping[Key, Visit], kind: Callable[[str], object] = lambda name: None) -> dict[str, Estimate]:
    """For each entry, the median of its visits that count (of all where none does), carried to the fast state.

    Entries of a kind answer alike to the machine's state: where it is s, their latency is s^a times that of the fast
    state. The exponent a is that of least squares (of logarithms, within entries), between 0 and 1.

    Args:
        visits: of all entries.
        kind: of an entry, by its name.
    """
    states = _states(visits)
    own: dict[str, list[Key]] = {}
    for key in visits:
        own.setdefault(key[1], []).append(key)
    kept = {name: [key for key in keys if states[key] <= SLOWER] or keys for name, keys in own.items()}
    state = {name: np.array([states[key] for key in keys]) for name, keys in kept.items()}
    medians = {name: np.array([visits[key].median_ms for key in keys]) for name, keys in kept.items()}
    kinds: dict[object, list[str]] = {}
    for name in kept:
        kinds.setdefault(kind(name), []).append(name)
    exponents = {
        one: _exponent((np.log(state[name]), np.log(medians[name])) for name in names) for one, names in kinds.items()
    }
    found = {}
    for name, keys in kept.items():
        seen, slower = [visits[key] for key in keys], state[name] ** exponents[kind(name)]
        latency = float(np.median(medians[name] / slower))
        minimum = float((np.array([v.minimum_ms for v in seen]) / slower).min())
        spread = float(100 * (medians[name].max() / medians[name].min() - 1))
        found[name] = Estimate(latency, minimum, spread, sum(v.runs for v in seen))
    return found


def _exponent(entries: Iterable[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]) -> float:
    """Common slope of y over x within entries, by least squares, kept between 0 and 1."""
    above, below = 0.0, 0.0
    for x, y in entries:
        above += float((x - x.mean()) @ (y - y.mean()))
        below += float((x - x.mean()) @ (x - x.mean()))
    return min(1.0, max(0.0, above / below)) if below else 0.0
