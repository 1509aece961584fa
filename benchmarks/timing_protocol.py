"""What the measuring protocol of latency tables is worth: rounds, warm or cold weights, calibration, the noise floor.

All operators of `fmnist`, twelve networks to calibrate with and others to test on are visited in interleaved, shuffled
rounds of one run; operators both back to back (warm) and after 16 MiB were read (cold), networks back to back as an
application would run them. From the visits of the first 1, 2, ... rounds come tables, calibrated in five ways, and
their errors on the test networks as measured in all rounds. The estimate of a graph is the median of its visits, each
carried to the machine's fast state; tables of medians as they were, and of the smallest, are shown too, for the
calibration that tables have. The noise floor is how much the latencies
of the same networks differ between the first and the second half of the rounds. Takes about three minutes a device,
and goes on where it was when it is killed. Writes benchmarks/results/timing-protocol_fmnist_RUNTIME.csv.

    python benchmarks/timing_protocol.py [--device cpu] [--device tflite] [--rounds 16] [--networks 40] [--show]
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from common import RESULTS, head_of, make_parser, read_table, result_path, run_telling, write_table
from scipy.optimize import lsq_linear

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.device.rounds import Key, MeasurePlan, Started, measure
from ofa_deploy.device.timing import Array, Session, Visit, preempted, time_by_samples
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.cross_validation import errors
from ofa_deploy.latency.machine_state import estimates
from ofa_deploy.spaces.families import get_space

SPACE = "fmnist"
COLD_BYTES = 16 << 20
CALIBRATED = 12
"""Networks that the tables are calibrated with."""
TRIES = 5
Visits = Mapping[Key, Visit]
ERRORS = ("mape_percent", "p95_percent", "bias_percent")
CALIBRATIONS = {"none": (), "scale": (0,), "affine": (0, 1), "per_million": (0, 1, 2), "constant": (0, 1, 2, 3)}
"""Which of the terms sum of the operators, number of operators, million parameters, constant are fitted."""


class Cold:
    """A session that is timed with its weights out of the caches."""

    def __init__(self, session: Session) -> None:
        self.session, self.buffer = session, np.ones(COLD_BYTES // 8)

    def __call__(self, x: Array) -> Array:
        return self.session(x)

    def time(self, x: Array, *, runs: int, seconds: float, threads: int) -> Visit:
        def sample() -> float:
            for _ in range(TRIES):
                self.buffer.sum()
                wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
                self.session(x)
                cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
                if not preempted(wall * 1e-6, cpu * 1e-6):
                    break
            return wall * 1e-6

        sample()
        return time_by_samples(sample, runs=runs, seconds=seconds)


def median(visits: Visits) -> dict[str, float]:
    """Latency of each entry, as tables have it."""
    by_name = estimates(visits, lambda name: name.split("op")[0] if ":op" in name else "networks")
    return {name: estimate.latency_ms for name, estimate in by_name.items()}


def plain(visits: Visits) -> dict[str, float]:
    """The median of each entry's visits, in whatever state the machine was."""
    medians: dict[str, list[float]] = {}
    for (_, name), visit in visits.items():
        medians.setdefault(name, []).append(visit.median_ms)
    return {name: float(np.median(values)) for name, values in medians.items()}


def smallest(visits: Visits) -> dict[str, float]:
    """The smallest median of each entry's visits."""
    latencies: dict[str, float] = {}
    for (_, name), visit in visits.items():
        latencies[name] = min(visit.median_ms, latencies.get(name, visit.median_ms))
    return latencies


ESTIMATES: Mapping[str, Callable[[Visits], dict[str, float]]] = {"median": median, "plain": plain, "smallest": smallest}


def run(device: str, rounds: int, networks: int, resolutions: tuple[int, ...]) -> Path:
    """Measure, analyse, and write the CSV, whose first line is a comment with the conditions as JSON."""
    job = TableJob(get_space(SPACE), resolutions, plan=MeasurePlan(rounds=rounds, networks=CALIBRATED + networks))
    measured = conditions(device, 1)
    runtime = measured["runtime"]

    def started(name: str) -> Started:
        state, entry = name.split(":")
        session, x = job.started(job.entries[entry], DEVICES[device])
        return Started(Cold(session) if state == "cold" else session, x)

    names = [f"{state}:{name}" for name in job.operators for state in ("warm", "cold")]
    names += [f"warm:{net}" for net in job.networks]
    path = result_path("timing-protocol", SPACE, runtime)
    partial = path.with_suffix(".partial")
    began = time.monotonic()
    header = {**job.description, **measured, "study": "timing protocol"}
    visits = measure(
        names,
        started,
        sentinel=job.started(job.sentinel, DEVICES[device]),
        plan=job.plan,
        partial=partial,
        header=header,
    )
    case = {
        "space": SPACE,
        "resolutions": list(resolutions),
        "runtime": f"{runtime} {measured['runtime_version']}",
        "cpu": measured["machine"]["cpu"],
        "cores": measured["machine"]["cores"],
        "threads": 1,
        "batch": 1,
        "rounds": rounds,
        "test_networks": networks,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    write_table(path, analysed(job, visits), json.dumps(case))
    partial.unlink()
    return path


def analysed(job: TableJob, visits: Visits) -> pd.DataFrame:
    """Errors in percent by state of the weights, rounds and calibration; and the noise floor."""
    rows = []
    for estimate, latencies in ESTIMATES.items():
        whole = latencies(visits)
        truth = np.array([whole[f"warm:{net}"] for net in job.networks])
        in_full = estimate == "median"
        for rounds in range(1, job.plan.rounds + 1):
            measured = latencies({key: visit for key, visit in visits.items() if key[0] < rounds})
            for state in ("warm", "cold") if in_full else ("warm",):
                row = {"weights": state, "estimate": estimate, "rounds": rounds}
                ways = tuple(CALIBRATIONS) if in_full else ("constant",)
                rows += [row | judged(job, measured, truth, state=state, calibration=way) for way in ways]
    rows.sort(key=lambda row: row["rounds"])  # those of an estimate stay in order
    return pd.DataFrame(rows + (noise_floor(job, visits) if job.plan.rounds > 1 else []))


def judged(
    job: TableJob, measured: Mapping[str, float], truth: np.ndarray, *, state: str, calibration: str
) -> dict[str, object]:
    """Errors of a table on the networks that it was not calibrated with, in percent."""
    space, nets, terms_used = job.space, job.networks, CALIBRATIONS[calibration]
    counts = np.array([[len(space.ops(net)), sum(op.params for op in space.ops(net)) / 1e6, 1.0] for net in nets])
    operators = {op: measured[f"{state}:{name}"] for name, op in job.operators.items()}
    terms = np.column_stack([[sum(operators[op] for op in space.ops(net)) for net in nets], counts])
    predicted = terms[:, 0]
    if terms_used:
        calibrated_ms = np.array([measured[f"warm:{net}"] for net in nets[:CALIBRATED]])
        columns, bounds = terms[:, terms_used], ([0.0, -np.inf, 0.0, -np.inf][: len(terms_used)], np.inf)
        scaled = columns[:CALIBRATED] / calibrated_ms[:, None]
        predicted = columns @ lsq_linear(scaled, np.ones(CALIBRATED), bounds).x
    figures = errors(predicted[CALIBRATED:], truth[CALIBRATED:])
    return {"calibration": calibration, **{key: figures[key] for key in ERRORS}}


def noise_floor(job: TableJob, visits: Visits) -> list[dict[str, object]]:
    """How far the latencies of the same networks are apart in the two halves of the rounds, for each estimate."""
    half, rows = job.plan.rounds // 2, []
    for estimate, latencies in ESTIMATES.items():
        halves = [
            latencies({key: visit for key, visit in visits.items() if (key[0] < half) == first})
            for first in (True, False)
        ]
        floor = errors(*(np.array([latency[f"warm:{net}"] for net in job.networks]) for latency in halves))
        row = {"weights": "noise floor", "estimate": estimate, "rounds": half, "calibration": "none"}
        rows.append(row | {key: floor[key] for key in ERRORS})
    return rows


def show(path: Path) -> None:
    """Print a CSV that `run` wrote."""
    case, rows = json.loads(head_of(path)), read_table(path)
    print(
        f"{case['space']} with {case['runtime']} on {case['cpu']}, one thread: {case['test_networks']} networks, "
        f"{case['minutes']} minutes; MAPE in %"
    )
    tables = rows[rows.weights != "noise floor"]
    index = ["weights", "estimate", "calibration"]
    wide = tables.pivot_table(index=index, columns="rounds", values="mape_percent", sort=False)
    print(wide.sort_index(level=0, ascending=False, sort_remaining=False).round(2).to_string())
    for row in rows[rows.weights == "noise floor"].itertuples():
        print(
            f"noise floor: the {row.estimate} of the same networks in the first {row.rounds} rounds against the "
            f"others differs by {row.mape_percent:.2f} % (of 95 % of them by less than "
            f"{row.p95_percent:.2f} %)"
        )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--device", action="append", choices=list(DEVICES), help="may be given twice; default: cpu, tflite"
    )
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--networks", type=int, default=40, help="to test on")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[16, 20, 24, 28])
    options = parser.parse_args()
    if options.show:
        paths = sorted(RESULTS.glob(f"timing-protocol_{SPACE}_*.csv"))
    else:
        plan = options.rounds, options.networks, tuple(options.resolutions)
        paths = [run(device, *plan) for device in options.device or ["cpu", "tflite"]]
    for path in paths:
        show(path)
    if options.show:
        print("measure on this machine with: python benchmarks/timing_protocol.py")


if __name__ == "__main__":
    run_telling(main)
