"""Building a latency table: operators as graphs of their own and whole networks, in shuffled, interleaved rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy import artifacts
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.graphs import onnx as graphs
from ofa_deploy.graphs import weights
from ofa_deploy.latency.runtimes import RUNTIMES, Session
from ofa_deploy.latency.table import LatencyTable, Row, conditions
from ofa_deploy.latency.timing import Flusher, Visit, visit
from ofa_deploy.ops import Op
from ofa_deploy.progress import Progress, Report
from ofa_deploy.space import SearchSpace

Parts = Sequence[tuple[str, Op]]
Key = tuple[int, str]
"""(round, entry) of a visit."""


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
    runs: int = 12
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
    visits = _measure(entries, header, plan, partial, report)

    rows = {op: _summary([visits[r, f"op{i}"] for r in range(plan.rounds)]) for i, op in enumerate(ops)}
    whole = {str(net): _summary([visits[r, str(net)] for r in range(plan.rounds)]).latency_ms for net in nets}
    table = LatencyTable(space, rows, tuple(sorted(resolutions)), measured)
    table = table.calibrated(whole, [str(net) for net in nets[plan.calibration :]])
    samples = list(visits.values())
    details = {
        "protocol": {**asdict(plan), "operators": "16 MiB read between runs", "networks": "run back to back"},
        "dropped_percent": round(100 * sum(v.dropped for v in samples) / sum(v.runs + v.dropped for v in samples), 2),
    }  # fmt: skip
    table.save(out, details)
    partial.unlink()
    return table


def _measure(
    entries: dict[str, Parts], header: dict[str, Any], plan: Plan, partial: Path, report: Report
) -> dict[Key, Visit]:
    """Visit each entry once a round, in an order shuffled for each round, appending to `partial`."""
    visits = _resume(partial, header)
    rng = np.random.default_rng(plan.seed)
    todo = [
        (r, name)
        for r in range(plan.rounds)
        for name in rng.permutation(list(entries)).tolist()
        if (r, name) not in visits
    ]
    if visits:
        report(f"resuming: {len(visits)} of {len(visits) + len(todo)} visits are there")
    sessions: dict[str, tuple[Session, npt.NDArray[np.float32]]] = {}
    flush = Flusher()
    progress = Progress(len(todo), "visits", report, seconds=2)
    with partial.open("a") as file:
        for r, name in todo:
            if name not in sessions:
                sessions[name] = _session(entries[name], header["runtime"], plan)
            session, x = sessions[name]
            alone = len(entries[name]) == 1
            visits[r, name] = visit(session, x, plan.threads, flush if alone else None, plan.runs, plan.seconds)
            file.write(json.dumps([r, name, *asdict(visits[r, name]).values()]) + "\n")
            file.flush()
            progress.add()
    return visits


def _session(parts: Parts, runtime: str, plan: Plan) -> tuple[Session, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(plan.seed)
    first = parts[0][1]
    model = graphs.emit(parts, {name: weights.draw(op, rng) for name, op in parts})
    x = rng.standard_normal((1, first.c_in, first.size, first.size)).astype(np.float32)
    return RUNTIMES[runtime](model.SerializeToString(), plan.threads), x


def _summary(visits: Sequence[Visit]) -> Row:
    medians = [v.median_ms for v in visits]
    low = min(medians)
    return Row(low, min(v.minimum_ms for v in visits), 100 * (max(medians) - low) / low, sum(v.runs for v in visits))


def _resume(partial: Path, header: dict[str, Any]) -> dict[Key, Visit]:
    """What a killed build left; a torn last line is cut off."""
    if not partial.exists():
        artifacts.write(partial, json.dumps(header) + "\n")
        return {}
    lines = artifacts.read(partial).decode(errors="replace").split("\n")
    try:
        if json.loads(lines[0]) != json.loads(json.dumps(header)):
            raise ArtifactError(f"{partial} is of a build with other options; repeat those, or remove the file")
        visits = {(int(r), str(name)): Visit(*rest) for r, name, *rest in map(json.loads, lines[1:-1])}
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{partial} is damaged; remove it to start anew") from error
    artifacts.write(partial, "\n".join(lines[:-1]) + "\n")
    return visits
