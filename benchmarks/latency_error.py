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

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.device.rounds import MeasurePlan, Started, measure
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.machine_state import estimates
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import file_name
from ofa_deploy.spaces import families
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space

RESULTS = Path(__file__).parent / "results"
SPACES = ("fmnist", "mbv3-w1.0")
SLOWER = 1.03
"""While networks of the build take longer than then by this factor, there are `PASSES` times `--rounds` at most."""
PASSES = 3


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(name: str, device: str, networks: int, rounds: int, tables: Path | None, out: Path) -> Path:
    """Measure a case and write its CSV, whose first line is a comment with the conditions as JSON."""
    space = get_space(name)
    job = TableJob(space, space.resolutions, MeasurePlan())
    with tempfile.TemporaryDirectory() as folder:
        path = (tables or Path(folder)) / file_name(space, conditions(device, 1))
        table = LatencyTable.load(path, space) if path.exists() else build_table(job, device, path)
        runtime = table.conditions["runtime"]
        archs = space.archs(space.sample(np.random.default_rng(12345), networks, list(space.resolutions)))
        known = {n["arch"]: n["measured_ms"] for n in table.networks}

        def started(arch: Arch) -> Started:
            return job.started(space.walk(arch), DEVICES[device])

        names, sentinel = [*map(str, archs), *known], started(space.extreme(False, min(space.resolutions)))
        partial = Path(folder) / "again.partial"
        for number in range(PASSES):
            plan = MeasurePlan(rounds=rounds * (number + 1))
            visits = measure(
                names, lambda arch: started(Arch.parse(arch)), sentinel=sentinel, plan=plan, partial=partial, header={}
            )
            measured = estimates(visits)
            state = float(np.median([measured[arch].latency_ms / before for arch, before in known.items()]))
            if state < SLOWER:
                break
            say(f"the machine is {100 * state - 100:.1f} % slower than during the build")
    c = table.conditions
    about = {
        "space": name,
        "device": device,
        "runtime": f"{runtime} {c['runtime_version']}",
        "cpu": c["machine"]["cpu"],
        "threads": 1,
        "batch": 1,
        "precision": c["precision"],
        "rounds": plan.rounds,
        "state_since_build": round(state, 4),
        "expected_mape_percent": table.error["mape_percent"],
    }
    found = [measured[str(arch)] for arch in archs]
    halves = [estimates({key: visit for key, visit in visits.items() if key[0] % 2 == half}) for half in (0, 1)]
    apart = np.array([halves[0][str(arch)].latency_ms / halves[1][str(arch)].latency_ms for arch in archs])
    rows = pd.DataFrame(
        {
            "arch": list(map(str, archs)),
            "predicted_ms": table.latency_ms(space.genes(archs)).round(5),
            "measured_ms": [round(f.latency_ms, 5) for f in found],
            "spread_percent": [round(f.spread_percent, 2) for f in found],
            "halves_percent": (100 * (apart / np.median(apart) - 1)).round(2),
        }
    )
    path = out / f"latency-error_{name}_{device}_1t_{artifacts.slug(c['machine']['cpu'])}.csv"
    atomic.write(path, f"# {json.dumps(about)}\n{rows.to_csv(index=False)}")
    return path


def show(path: Path) -> None:
    """Print the errors of a CSV that `run` wrote."""
    about = json.loads(path.read_text().splitlines()[0][2:])
    rows = pd.read_csv(path, comment="#")
    error = 100 * (rows.predicted_ms / rows.measured_ms - 1)
    state = about["state_since_build"]
    rest = 100 * (rows.predicted_ms * state / rows.measured_ms - 1).abs()
    order = rows[["predicted_ms", "measured_ms"]].corr("spearman").iloc[0, 1]
    own, off = rows.measured_ms, error.abs()
    where = f"{about['space']} on {about['device']} ({about['runtime']}, {about['cpu']}, one thread)"
    print(f"{where}: {len(rows)} networks, {own.min():.2f} to {own.max():.2f} ms")
    print(
        f"    MAPE {off.mean():.2f} % (the table itself expected {about['expected_mape_percent']:.2f} %), "
        f"bias {error.mean():+.2f} %, worst {off.max():.1f} %, within 5 % {(off <= 5).mean():.0%}, "
        f"Spearman {order:.4f}"
    )
    print(f"    their own spread over {about['rounds']} rounds: {rows.spread_percent.median():.1f} % (median)")
    if "halves_percent" in rows:  # older results lack it
        noise = rows.halves_percent.abs().mean()
        print(f"    by the even rounds and by the odd ones they differ by {noise:.2f} %")
    print(
        f"    networks measured during the build measure {100 * state - 100:+.1f} % now (median); beyond that change "
        f"of the machine's state the MAPE is {rest.mean():.2f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", action="append", choices=list(DEVICES), help="may be given twice; default: cpu, tflite"
    )
    parser.add_argument("--space", action="append", choices=list(families.SPACES), help="likewise; default: the two")
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument(
        "--lut", type=Path, help="folder of tables of this machine; those that it lacks are built there"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results; default: the committed ones")
    parser.add_argument("--show", action="store_true", help="only print the committed results")
    options = parser.parse_args()
    if options.show:
        paths = sorted(RESULTS.glob("latency-error_*.csv"))
    else:
        spaces, devices = options.space or SPACES, options.device or ["cpu", "tflite"]
        paths = [
            run(name, device, options.networks, options.rounds, options.lut, options.out)
            for name in spaces
            for device in devices
        ]
    for path in paths:
        show(path)
    if options.show:
        print("measure on this machine with: python benchmarks/latency_error.py")


if __name__ == "__main__":
    main()
