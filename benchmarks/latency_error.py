"""How far latency tables are from whole networks that they have never seen.

Builds a table of this machine, then draws other networks with another seed and measures them, in rounds of their own
after the build and by the same protocol, and beside networks that were measured during the build. While those say that
the machine is slower than it was then by more than 3 % there are more rounds, up to three times as many: on a shared
machine that is its state, not the table. Prints the error beside the noise: how far the networks are from themselves,
by the even rounds and by the odd ones, and what is left of that change. Takes two to twenty minutes a space and device.
Writes latency-error_SPACE_DEVICE_1t_PROCESSOR.csv into benchmarks/results, or --out.

    python benchmarks/latency_error.py [--space fmnist] [--device tflite-int8] [--networks 60] [--rounds 16] [--lut DIR]
    python benchmarks/latency_error.py --show
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from common import RESULTS, head_of, logger, make_parser, read_table, result_path, run_telling, write_table

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.device.rounds import Key, MeasurePlan, Started, measure
from ofa_deploy.device.timing import Visit
from ofa_deploy.files import artifacts
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.machine_state import Estimate, estimates
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import file_name
from ofa_deploy.spaces import families
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space

SPACES = ("fmnist", "mbv3-w1.0")
SLOWER = 1.03
"""While networks of the build take longer than then by this factor, there are `PASSES` times `--rounds` at most."""
PASSES = 3


@dataclass(frozen=True)
class Measured:
    """Networks as they were measured after a build.

    Attributes:
        archs: the networks.
        visits: every visit, also to networks of the build.
        rounds: of the last pass.
        state: how much longer networks of the build take now, as a factor (median).
    """

    archs: list[Arch]
    visits: Mapping[Key, Visit]
    rounds: int
    state: float

    def latencies(self, visits: Mapping[Key, Visit]) -> list[Estimate]:
        """Estimate of each network from some of the visits."""
        by_name = estimates(visits)
        return [by_name[str(arch)] for arch in self.archs]


def measure_after(job: TableJob, device: str, table: LatencyTable, networks: int, *, rounds: int) -> Measured:
    """Measure new networks, and those of the build, until these are about as quick as they were then."""
    space = job.space
    archs = space.archs(space.sample(np.random.default_rng(12345), networks, list(space.resolutions)))
    build_ms = {network["arch"]: network["measured_ms"] for network in table.networks}

    def started(arch: Arch) -> Started:
        return job.started(space.walk(arch), DEVICES[device])

    names, sentinel = (
        [*map(str, archs), *build_ms],
        started(space.extreme(largest=False, resolution=min(space.resolutions))),
    )
    with tempfile.TemporaryDirectory() as folder:
        for number in range(PASSES):
            plan, partial = MeasurePlan(rounds=rounds * (number + 1)), Path(folder) / "again.partial"
            visits = measure(
                names, lambda name: started(Arch.parse(name)), sentinel=sentinel, plan=plan, partial=partial, header={}
            )
            measured = estimates(visits)
            state = float(np.median([measured[name].latency_ms / before for name, before in build_ms.items()]))
            if state < SLOWER:
                break
            logger.info(f"the machine is {100 * state - 100:.1f} % slower than during the build")
    return Measured(archs, visits, plan.rounds, state)


def run(name: str, device: str, tables: Path | None, out: Path, *, networks: int, rounds: int) -> Path:
    """Measure a case and write its CSV, whose first line is a comment with the conditions as JSON."""
    space = get_space(name)
    job = TableJob(space, space.resolutions, plan=MeasurePlan())
    with tempfile.TemporaryDirectory() as folder:
        path = (tables or Path(folder)) / file_name(space, conditions(device, 1))
        table = LatencyTable.load(path, space) if path.exists() else build_table(job, device, out=path)
        after = measure_after(job, device, table, networks, rounds=rounds)
    cpu = table.conditions["machine"]["cpu"]
    case = {
        "space": name,
        "device": device,
        "runtime": f"{table.conditions['runtime']} {table.conditions['runtime_version']}",
        "cpu": cpu,
        "threads": 1,
        "batch": 1,
        "precision": table.conditions["precision"],
        "rounds": after.rounds,
        "state_since_build": round(after.state, 4),
        "expected_mape_percent": table.error["mape_percent"],
    }
    path = result_path("latency-error", name, device, "1t", artifacts.slug(cpu), folder=out)
    write_table(path, compared(table, after), json.dumps(case))
    return path


def compared(table: LatencyTable, after: Measured) -> pd.DataFrame:
    """A row a network: predicted and measured latency, and how far it is from itself in even and odd rounds."""
    measured = after.latencies(after.visits)
    even, odd = (
        after.latencies({key: visit for key, visit in after.visits.items() if key[0] % 2 == half}) for half in (0, 1)
    )
    ratio = np.array([a.latency_ms / b.latency_ms for a, b in zip(even, odd, strict=True)])
    return pd.DataFrame(
        {
            "arch": list(map(str, after.archs)),
            "predicted_ms": table.latency_ms(table.space.genes(after.archs)).round(5),
            "measured_ms": [round(estimate.latency_ms, 5) for estimate in measured],
            "spread_percent": [round(estimate.spread_percent, 2) for estimate in measured],
            "halves_percent": (100 * (ratio / np.median(ratio) - 1)).round(2),
        }
    )


def show(path: Path) -> None:
    """Print the errors of a CSV that `run` wrote."""
    case, rows = json.loads(head_of(path)), read_table(path)
    error = 100 * (rows.predicted_ms / rows.measured_ms - 1)
    state = case["state_since_build"]
    rest = 100 * (rows.predicted_ms * state / rows.measured_ms - 1).abs()
    order = rows[["predicted_ms", "measured_ms"]].corr("spearman").iloc[0, 1]
    measured, off = rows.measured_ms, error.abs()
    where = f"{case['space']} on {case['device']} ({case['runtime']}, {case['cpu']}, one thread)"
    print(f"{where}: {len(rows)} networks, {measured.min():.2f} to {measured.max():.2f} ms")
    print(
        f"    MAPE {off.mean():.2f} % (the table itself expected {case['expected_mape_percent']:.2f} %), "
        f"bias {error.mean():+.2f} %, worst {off.max():.1f} %, within 5 % {(off <= 5).mean():.0%}, "
        f"Spearman {order:.4f}"
    )
    print(f"    their own spread over {case['rounds']} rounds: {rows.spread_percent.median():.1f} % (median)")
    if "halves_percent" in rows:  # older results lack it
        noise = rows.halves_percent.abs().mean()
        print(f"    by the even rounds and by the odd ones they differ by {noise:.2f} %")
    print(
        f"    networks measured during the build measure {100 * state - 100:+.1f} % now (median); beyond that change "
        f"of the machine's state the MAPE is {rest.mean():.2f} %"
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--device", action="append", choices=list(DEVICES), help="may be given twice; default: cpu, tflite"
    )
    parser.add_argument(
        "--space", action="append", choices=list(families.SPACES), help="may be given twice; default: the two"
    )
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument(
        "--lut", type=Path, help="folder of tables of this machine; those that it lacks are built there"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results; default: the committed ones")
    options = parser.parse_args()
    if options.show:
        paths = sorted(RESULTS.glob("latency-error_*.csv"))
    else:
        spaces, devices = options.space or SPACES, options.device or ["cpu", "tflite"]
        paths = [
            run(name, device, options.lut, options.out, networks=options.networks, rounds=options.rounds)
            for name in spaces
            for device in devices
        ]
    for path in paths:
        show(path)
    if options.show:
        print("measure on this machine with: python benchmarks/latency_error.py")


if __name__ == "__main__":
    run_telling(main)
