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

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import lsq_linear

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.device.rounds import Key, MeasurePlan, Started, measure
from ofa_deploy.device.timing import Array, Session, Visit, preempted, time_by_samples
from ofa_deploy.files import atomic
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.cross_validation import errors
from ofa_deploy.latency.machine_state import estimates
from ofa_deploy.spaces.families import get_space

RESULTS = Path(__file__).parent / "results"
SPACE = "fmnist"
COLD_BYTES = 16 << 20
CALIBRATED = 12
"""Networks that the tables are calibrated with."""
TRIES = 5
Visits = Mapping[Key, Visit]
ERRORS = ("mape_percent", "p95_percent", "bias_percent")
CALIBRATIONS = {"none": (), "scale": (0,), "affine": (0, 1), "per_million": (0, 1, 2), "constant": (0, 1, 2, 3)}
"""Which of the terms sum of the operators, number of operators, million parameters, constant are fitted."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
    found = estimates(visits, lambda name: name.split("op")[0] if ":op" in name else "networks")
    return {name: one.latency_ms for name, one in found.items()}


def plain(visits: Visits) -> dict[str, float]:
    """The median of each entry's visits, in whatever state the machine was."""
    own: dict[str, list[float]] = {}
    for (_, name), visit in visits.items():
        own.setdefault(name, []).append(visit.median_ms)
    return {name: float(np.median(medians)) for name, medians in own.items()}


def smallest(visits: Visits) -> dict[str, float]:
    """The smallest median of each entry's visits."""
    found: dict[str, float] = {}
    for (_, name), own in visits.items():
        found[name] = min(own.median_ms, found.get(name, own.median_ms))
    return found


ESTIMATES: Mapping[str, Callable[[Visits], dict[str, float]]] = {"median": median, "plain": plain, "smallest": smallest}


def run(device: str, rounds: int, networks: int, resolutions: tuple[int, ...]) -> Path:
    """Measure, analyse, and write the CSV, whose first line is a comment with the conditions as JSON."""
    job = TableJob(get_space(SPACE), resolutions, MeasurePlan(rounds=rounds, networks=CALIBRATED + networks))
    measured = conditions(device, 1)
    runtime = measured["runtime"]

    def started(name: str) -> Started:
        state, entry = name.split(":")
        session, x = job.started(job.entries[entry], DEVICES[device])
        return Started(Cold(session) if state == "cold" else session, x)

    names = [f"{state}:{name}" for name in job.operators for state in ("warm", "cold")]
    names += [f"warm:{net}" for net in job.networks]
    path = RESULTS / f"timing-protocol_{SPACE}_{runtime}.csv"
    partial = path.with_suffix(".partial")
    began = time.monotonic()
    header = {**job.about, **measured, "study": "timing protocol"}
    visits = measure(
        names,
        started,
        sentinel=job.started(job.sentinel, DEVICES[device]),
        plan=job.plan,
        partial=partial,
        header=header,
    )
    about = {
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
    atomic.write(path, f"# {json.dumps(about)}\n{analysed(job, visits).to_csv(index=False)}")
    partial.unlink()
    return path


def analysed(job: TableJob, visits: dict[tuple[int, str], Visit]) -> pd.DataFrame:
    """Errors in percent by state of the weights, rounds and calibration; and the noise floor."""
    space, nets, own = job.space, job.networks, CALIBRATED
    counts = np.array([[len(space.ops(net)), sum(op.params for op in space.ops(net)) / 1e6, 1.0] for net in nets])
    rows = []
    wholes = {estimate: latencies(visits) for estimate, latencies in ESTIMATES.items()}
    for rounds, (estimate, latencies) in itertools.product(range(1, job.plan.rounds + 1), ESTIMATES.items()):
        truth = np.array([wholes[estimate][f"warm:{net}"] for net in nets])
        found = latencies({key: visit for key, visit in visits.items() if key[0] < rounds})
        calibration = np.array([found[f"warm:{net}"] for net in nets[:own]])
        shown_in_full = estimate == "median"
        ways = tuple(CALIBRATIONS) if shown_in_full else ("constant",)
        for state in ("warm", "cold") if shown_in_full else ("warm",):
            of = {op: found[f"{state}:{name}"] for name, op in job.operators.items()}
            terms = np.column_stack([[sum(of[op] for op in space.ops(net)) for net in nets], counts])
            for way in ways:
                predicted, used = terms[:, 0], CALIBRATIONS[way]
                if used:
                    chosen = terms[:, used]
                    bounds = ([0.0, -np.inf, 0.0, -np.inf][: len(used)], np.inf)
                    predicted = chosen @ lsq_linear(chosen[:own] / calibration[:, None], np.ones(own), bounds).x
                found_errors = errors(predicted[own:], truth[own:])
                rows.append(
                    {
                        "weights": state,
                        "estimate": estimate,
                        "rounds": rounds,
                        "calibration": way,
                        **{key: found_errors[key] for key in ERRORS},
                    }
                )
    if job.plan.rounds > 1:
        half = job.plan.rounds // 2
        for estimate, latencies in ESTIMATES.items():
            halves = [
                latencies({key: visit for key, visit in visits.items() if (key[0] < half) == first})
                for first in (True, False)
            ]
            floor = errors(*(np.array([found[f"warm:{net}"] for net in nets]) for found in halves))
            rows.append(
                {
                    "weights": "noise floor",
                    "estimate": estimate,
                    "rounds": half,
                    "calibration": "none",
                    **{key: floor[key] for key in ERRORS},
                }
            )
    return pd.DataFrame(rows)


def show(path: Path) -> None:
    """Print a CSV that `run` wrote."""
    about = json.loads(path.read_text().splitlines()[0][2:])
    rows = pd.read_csv(path, comment="#")
    print(
        f"{about['space']} with {about['runtime']} on {about['cpu']}, one thread: {about['test_networks']} networks, "
        f"{about['minutes']} minutes; MAPE in %"
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", action="append", choices=list(DEVICES), help="may be given twice; default: cpu, tflite"
    )
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--networks", type=int, default=40, help="to test on")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[16, 20, 24, 28])
    parser.add_argument("--show", action="store_true", help="only print the committed results")
    options = parser.parse_args()
    if options.show:
        paths = sorted(RESULTS.glob(f"timing-protocol_{SPACE}_*.csv"))
    else:
        given = options.rounds, options.networks, tuple(options.resolutions)
        paths = [run(device, *given) for device in options.device or ["cpu", "tflite"]]
    for path in paths:
        show(path)
    if options.show:
        print("measure on this machine with: python benchmarks/timing_protocol.py")


if __name__ == "__main__":
    main()
