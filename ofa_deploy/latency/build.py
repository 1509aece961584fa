"""Building a latency table: operators as graphs of their own and whole networks, in shuffled, interleaved rounds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy import artifacts
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.graphs import weights
from ofa_deploy.latency.runtimes import RUNTIMES, Parts, Session
from ofa_deploy.latency.table import LatencyTable, Row, conditions
from ofa_deploy.latency.timing import Visit, visit
from ofa_deploy.progress import Progress, Report
from ofa_deploy.space import SearchSpace

Key = tuple[int, str]
"""(round, entry) of a visit."""
SENTINEL_RUNS = 5
SLOWER = 1.1
"""A sentinel slower than its fast state by this factor tells that the machine is in another state."""
ENOUGH = 3
"""Visits in the fast state that an entry needs."""


@dataclass(frozen=True)
class Plan:
    """How a table is measured.

    Attributes:
        rounds: shuffled passes over everything; the estimate is the smallest of the rounds' medians.
        runs: samples a visit.
        seconds: a visit ends early when its samples sum to this.
        calibration: whole networks that the table is fitted to.
        test: whole networks kept out of the fit, that give its error.
        threads: of the runtime.
        seed: of the networks, the weights and the order.
    """

    rounds: int = 8
    runs: int = 20
    seconds: float = 0.03
    calibration: int = 12
    test: int = 24
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.runs < 3 or self.calibration < 3 or self.test < 3 or self.threads < 1:
            raise MeasureError("a table needs at least 1 round, 3 runs, 3 calibration and 3 test networks, 1 thread")


def build(
    space: SearchSpace, device: str, resolutions: Sequence[int], plan: Plan, out: Path, report: Report
) -> LatencyTable:
    """Measure a table and save it; a build that was killed goes on where it was.

    Args:
        space: whose operators are measured.
        device: a friendly device name, see `table.DEVICES`.
        resolutions: which resolutions to cover, in pixels.
        plan: how.
        out: the CSV file to write; beside it lies `<stem>.partial` while the build lasts.
        report: receives a line of progress now and then.

    Returns:
        the calibrated table.

    Raises:
        MeasureError: a resolution is not the space's, or the runtime fails.
        ArtifactError: the output cannot be written, or what lies there is of another build.
    """
    if unknown := [r for r in resolutions if r not in space.resolutions]:
        listed = ", ".join(map(str, space.resolutions))
        raise MeasureError(f"resolution {unknown[0]} is not one of {space.name}'s: {listed}")
    measured = conditions(device, plan.threads)
    artifacts.check_output(out, ".csv")
    rng = np.random.default_rng(plan.seed)
    ops = space.all_ops(resolutions)
    nets = space.archs(space.sample(rng, plan.calibration + plan.test, list(resolutions)))
    entries: dict[str, Parts] = {f"op{i}": [("block", op)] for i, op in enumerate(ops)}
    entries |= {str(net): space.walk(net) for net in nets}
    header = {"space": space.name, "resolutions": list(resolutions), "plan": asdict(plan), **measured}
    partial = out.with_suffix(".partial")
    sentinel = space.walk(space.extreme(False, min(resolutions)))
    visits = _measure(entries, sentinel, header, plan, partial, report)

    summaries = _summaries(visits)
    rows = {op: summaries[f"op{i}"] for i, op in enumerate(ops)}
    whole = {str(net): summaries[str(net)].latency_ms for net in nets}
    table = LatencyTable(space, rows, tuple(sorted(resolutions)), measured)
    table = table.calibrated(whole, [str(net) for net in nets[plan.calibration :]])
    samples = list(visits.values())
    details = {
        "protocol": asdict(plan), "visits": len(samples), "visits_in_slow_state": len(samples) - len(_fast(visits)),
        "dropped_percent": round(100 * sum(v.dropped for v in samples) / sum(v.runs + v.dropped for v in samples), 2),
    }  # fmt: skip
    table.save(out, details)
    partial.unlink()
    return table


def _measure(
    entries: dict[str, Parts], sentinel_parts: Parts, header: dict[str, Any], plan: Plan, partial: Path, report: Report
) -> dict[Key, Visit]:
    """Visit each entry once a round, in an order shuffled for each round, appending to `partial`.

    A sentinel network is timed before each visit. Entries with fewer than `ENOUGH` visits in the machine's fast state
    are visited again, in at most twice as many rounds more.
    """
    visits = _resume(partial, header)
    rng = np.random.default_rng(plan.seed)
    if visits:
        report(f"resuming: {len(visits)} visits are there")
    sentinel = _session(sentinel_parts, header["runtime"], plan)
    sessions: dict[str, tuple[Session, npt.NDArray[np.float32]]] = {}
    progress = Progress(plan.rounds * len(entries) - len(visits), "visits", report, seconds=2)
    with partial.open("a") as file:
        for r in range(3 * plan.rounds):
            names = list(entries) if r < plan.rounds else _lacking(visits, entries, min(ENOUGH, plan.rounds))
            if not names:
                break
            if r >= plan.rounds:
                report(f"the machine was slow for a while: visiting {len(names)} entries again")
                progress = Progress(len(names), "visits", report, seconds=2)
            for name in rng.permutation(names).tolist():
                if (r, name) in visits:
                    continue
                if name not in sessions:
                    sessions[name] = _session(entries[name], header["runtime"], plan)
                state = visit(*sentinel, plan.threads, SENTINEL_RUNS, plan.seconds).median_ms
                found = visit(*sessions[name], plan.threads, plan.runs, plan.seconds)
                visits[r, name] = replace(found, sentinel_ms=state)
                file.write(json.dumps([r, name, *asdict(visits[r, name]).values()]) + "\n")
                file.flush()
                progress.add()
    return visits


def _fast(visits: Mapping[Key, Visit]) -> set[Key]:
    """The visits during which the machine was in its fast state, by the sentinel's running median."""
    from scipy.ndimage import median_filter

    running = median_filter(np.array([v.sentinel_ms for v in visits.values()]), 9, mode="nearest")
    limit = SLOWER * np.quantile(running, 0.1)
    return {key for key, state in zip(visits, running, strict=True) if state <= limit}


def _lacking(visits: Mapping[Key, Visit], entries: Iterable[str], enough: int) -> list[str]:
    """The entries with fewer than `enough` visits in the fast state."""
    counts = Counter(name for _, name in _fast(visits))
    return [name for name in entries if counts[name] < enough]


def _session(parts: Parts, runtime: str, plan: Plan) -> tuple[Session, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(plan.seed)
    first = parts[0][1]
    chosen = RUNTIMES[runtime]
    model = chosen.emit(parts, {name: weights.draw(op, rng) for name, op in parts})
    x = rng.standard_normal((1, first.c_in, first.size, first.size)).astype(np.float32)
    return chosen.start(model, plan.threads), chosen.native(x)


def _summaries(visits: Mapping[Key, Visit]) -> dict[str, Row]:
    """For each entry, the smallest median of its visits in the fast state (of all where there are none)."""
    fast = _fast(visits)
    keys: dict[str, list[Key]] = {}
    for key in visits:
        keys.setdefault(key[1], []).append(key)
    rows = {}
    for name, own in keys.items():
        kept = [visits[key] for key in own if key in fast] or [visits[key] for key in own]
        medians = [v.median_ms for v in kept]
        spread = 100 * (max(medians) / min(medians) - 1)
        rows[name] = Row(min(medians), min(v.minimum_ms for v in kept), spread, sum(v.runs for v in kept))
    return rows


def _resume(partial: Path, header: dict[str, Any]) -> dict[Key, Visit]:
    """The visits that a killed build left."""
    lines = artifacts.resume(partial, header)
    try:
        return {(int(r), str(name)): Visit(*rest) for r, name, *rest in map(json.loads, lines)}
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{partial} is damaged; remove it to start anew") from error
