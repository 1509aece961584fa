"""Building a latency table: operators as graphs of their own and whole networks, in shuffled, interleaved rounds.

    operators at some resolutions      whole networks, drawn at random
                  |                              |
                  v                              v
         `TableJob.entries`: one graph each, random weights, by the device's emitter
                                 |
                                 v
         `device.rounds.measure`: every round visits each graph once, in a shuffled order;
         before each visit the sentinel, one small network, is timed as well
                                 |     (each visit is appended to <stem>.partial)
                                 v
         `machine_state.states`: how much slower than its fast state the machine was, visit by visit,
         from what visits that are close in time, and their sentinels, have in common
                                 |
                                 v
         `machine_state.estimates`: for each graph, the median of its visits carried to the fast state
                  |                              |
              operators                   whole networks
                  v                              |
         rows of the table                       |
                  |                              v
                  +----------------> `calibration.calibrated`: what rows are worth inside of networks,
                  |                  and by cross-validation how wrong that is about networks not seen
                  v                              |
             `LatencyTable` <--------------------+
                  |
                  v
         <stem>.csv, a row an operator, and <stem>.json

Two ways part from it: with `--interpolate`, `interpolation` decides after each measure which resolutions are measured
next, and fills in the others; without blocks, `regression` fits the rows to the whole networks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import Device, get_device
from ofa_deploy.device.rounds import Key, MeasurePlan, Started, measure
from ofa_deploy.device.timing import Array, Visit
from ofa_deploy.errors import MeasureError
from ofa_deploy.files import atomic, machine, outputs
from ofa_deploy.graphs import weights
from ofa_deploy.graphs.formats import NamedOps, format_of
from ofa_deploy.latency import interpolation
from ofa_deploy.latency.calibration import calibrated
from ofa_deploy.latency.machine_state import Estimate, estimates, states
from ofa_deploy.latency.regression import check_cover, fit_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import check_replaces
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace

QUANTILES = {"median": 0.5, "worst_tenth": 0.9}
"""Of how much slower than its fast state the machine was in the visits, for a table's JSON."""


@dataclass(frozen=True)
class TableJob:
    """What is measured for a table: every operator of some resolutions, and whole networks.

    Attributes:
        space: whose operators and networks are measured.
        resolutions: in pixels, each one of the space's.
        plan: rounds, runs and seconds of a visit, threads, number of whole networks, and the seed that draws them.
        blocks: whether operators are measured; otherwise the table is fitted to the plan's whole networks alone, by
            `regression.fit_table`.
        batch: images a run; latencies are those of a batch.

    Raises:
        MeasureError: there is no resolution, one is not the space's, or the batch is not positive.
    """

    space: SearchSpace
    resolutions: Sequence[int]
    _: KW_ONLY
    plan: MeasurePlan = field(default_factory=MeasurePlan)
    blocks: bool = True
    batch: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolutions", tuple(map(int, self.resolutions)))
        if self.batch < 1:
            raise MeasureError(f"a batch has at least 1 image, not {self.batch}")
        if not self.resolutions:
            raise MeasureError("no resolution is left to measure; the tables of --from have none in common")
        if unknown := [r for r in self.resolutions if r not in self.space.resolutions]:
            listed = ", ".join(map(str, self.space.resolutions))
            raise MeasureError(f"resolution {unknown[0]} is not one of {self.space.name}'s: {listed}")

    @cached_property
    def operators(self) -> dict[str, Op]:
        """The operators that are measured, by the names of their entries."""
        ops = self.space.all_ops(self.resolutions) if self.blocks else []
        return {f"op{i}": op for i, op in enumerate(ops)}

    @cached_property
    def networks(self) -> list[Arch]:
        """The whole networks that are measured, drawn by the plan's seed."""
        rng = np.random.default_rng(self.plan.seed)
        return self.space.archs(self.space.sample(rng, self.plan.networks, list(self.resolutions)))

    @cached_property
    def entries(self) -> dict[str, NamedOps]:
        """The graphs to measure, by name."""
        blocks: dict[str, NamedOps] = {name: [("block", op)] for name, op in self.operators.items()}
        return blocks | {str(net): self.space.walk(net) for net in self.networks}

    @property
    def sentinel(self) -> NamedOps:
        """The network that tells the state of the machine."""
        return self.space.walk(self.space.extreme(largest=False, resolution=min(self.resolutions)))

    @property
    def description(self) -> dict[str, Any]:
        """What identifies the job, as JSON values."""
        return {
            "space": self.space.name,
            "resolutions": list(self.resolutions),
            "plan": asdict(self.plan),
            "blocks": self.blocks,
            "batch": self.batch,
        }

    def model(self, named_ops: NamedOps, device: Device, *, draw: weights.Draw = weights.draw) -> tuple[bytes, Array]:
        """A model file of some operators in sequence with random weights, and an input in the file's layout."""
        rng = np.random.default_rng(self.plan.seed)
        first, file_format = named_ops[0][1], format_of(device)
        model = file_format.emit(named_ops, {name: draw(op, rng) for name, op in named_ops}, batch=self.batch)
        x = rng.standard_normal((self.batch, first.c_in, first.size, first.size)).astype(np.float32)
        return model, file_format.native(x)

    def started(self, named_ops: NamedOps, device: Device) -> Started:
        """A model of some operators in sequence, as `model` makes it, ready to run on a device."""
        model, x = self.model(named_ops, device)
        return Started(device.session(model, self.plan.threads), x)

    def table(
        self,
        visits: Mapping[Key, Visit],
        conditions: Mapping[str, Any],
        *,
        others: Sequence[LatencyTable] = (),
        interpolated: Mapping[Op, Estimate] | None = None,
    ) -> LatencyTable:
        """The calibrated table of what was measured.

        Args:
            visits: to every entry.
            conditions: under which they were made, as `device.conditions` gives them.
            others: tables of other devices, for a table without blocks.
            interpolated: rows of operators that were not measured.

        Raises:
            MeasureError: a table without blocks cannot be fitted.
        """
        estimated = estimates(visits, self.operators.__contains__)
        networks_ms = {str(arch): estimated[str(arch)].latency_ms for arch in self.networks}
        if not self.blocks:
            return fit_table(
                self.space,
                self.networks,
                latency_ms=np.array([networks_ms[str(arch)] for arch in self.networks]),
                conditions=conditions,
                others=others,
                seed=self.plan.seed,
                resolutions=tuple(sorted(self.resolutions)),
            )
        filled = interpolated or {}
        rows = {op: filled[op] if op in filled else estimated[name] for name, op in self.operators.items()}
        table = LatencyTable(self.space, rows, tuple(sorted(self.resolutions)), conditions)
        return calibrated(table, networks_ms, seed=self.plan.seed)

    def details(self, visits: Mapping[Key, Visit]) -> dict[str, Any]:
        """How the measuring went, for a table's JSON."""
        slower = states(visits, self.operators.__contains__) - 1
        percent = {name: round(100 * float(np.quantile(slower, level)), 1) for name, level in QUANTILES.items()}
        dropped, runs = (sum(getattr(visit, name) for visit in visits.values()) for name in ("dropped", "runs"))
        return {
            "protocol": asdict(self.plan),
            "visits": len(visits),
            "slower_percent": percent,
            "dropped_percent": round(100 * dropped / (runs + dropped), 2),
        }


def build_table(
    job: TableJob,
    name: str,
    *,
    out: Path | str,
    others: Sequence[LatencyTable] = (),
    interpolate: float | None = None,
) -> LatencyTable:
    """Measure a table on this machine and save it; a build that was killed goes on where it was.

    Args:
        job: what to measure.
        name: of the device, see `device.devices.DEVICES`.
        out: the CSV file to write; beside it lies `<stem>.partial` while the build lasts.
        others: tables of other devices that tell the work of operators, for a job without blocks.
        interpolate: percent that interpolated entries may be off in a check before their resolution is measured; None
            measures every operator.

    Returns:
        the calibrated table.

    Raises:
        MeasureError: the runtime fails, or a table without blocks cannot be fitted.
        ArtifactError: the output cannot be written, or what lies there is another build's.
    """
    out = Path(out)
    check_cover(job.resolutions, others)
    if interpolate is not None and not job.blocks:
        raise MeasureError("only operators are interpolated; leave out --interpolate where whole networks are measured")
    device, measured = get_device(name), conditions(name, job.plan.threads, batch=job.batch)
    outputs.check_output(out, ".csv")
    check_replaces(out, job.resolutions, others=others)

    partial = out.with_suffix(".partial")
    header = {**job.description, **measured, "interpolate": interpolate}

    def visit(names: Sequence[str]) -> Mapping[Key, Visit]:
        return measure(
            names,
            lambda entry: job.started(job.entries[entry], device),
            sentinel=job.started(job.sentinel, device),
            plan=job.plan,
            partial=partial,
            header=header,
            keep=lambda entry: not machine.memory_is_short(),
        )

    with atomic.locked(out):
        if interpolate is None:
            visits, rows, details = visit(list(job.entries)), None, {}
        else:
            visits, filled = _filled(job, interpolate, visit)
            rows, details = filled.rows, {"interpolated": filled.details}
        table = job.table(visits, measured, others=others, interpolated=rows)
        table.save(out, {**job.details(visits), **details})
        partial.unlink()
    return table


def _filled(
    job: TableJob, tolerance_percent: float, visit: Callable[[Sequence[str]], Mapping[Key, Visit]]
) -> tuple[Mapping[Key, Visit], interpolation.Filled]:
    """What `interpolation.fill` measures and interpolates; whole networks are measured with the first operators."""
    networks = [str(arch) for arch in job.networks]

    def visits_to(operators: Sequence[str]) -> Mapping[Key, Visit]:
        """Without what a killed run has visited later: that would change what was decided."""
        entries = dict.fromkeys([*operators, *networks])
        return {key: value for key, value in visit(list(entries)).items() if key[1] in entries}

    return interpolation.fill(
        job.space,
        job.resolutions,
        names={op: name for name, op in job.operators.items()},
        tolerance_percent=tolerance_percent,
        seed=job.plan.seed,
        visit=visits_to,
    )
