"""How far latency tables are from whole networks that they have never seen.

Builds a table of this machine, then draws other networks with another seed and measures them in rounds of their own
after the build. Prints the error beside the noise floor: how much the measured networks themselves differ between
rounds, and how much networks that were measured during the build have changed since: on a shared machine that is its
state, not the table. Writes benchmarks/results/latency-error_SPACE_cpu_1t.csv.

    python benchmarks/latency_error.py [--networks 60] [--rounds 10]
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
from pathlib import Path

import numpy as np

from ofa_deploy import artifacts
from ofa_deploy.arch import Arch
from ofa_deploy.export.check import latency
from ofa_deploy.families import get_space
from ofa_deploy.graphs import weights
from ofa_deploy.latency.build import build
from ofa_deploy.latency.device.rounds import Plan
from ofa_deploy.latency.runtimes import RUNTIMES

RESULTS = Path(__file__).parent / "results"
CASES = {"fmnist": (16, 20, 24, 28), "mbv3-w1.0": (128, 160, 192, 224)}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(name: str, networks: int, rounds: int) -> str:
    space = get_space(name)
    with tempfile.TemporaryDirectory() as folder:
        table = build(space, "cpu", CASES[name], Plan(), Path(folder) / "table.csv", say)
    archs = space.archs(space.sample(np.random.default_rng(12345), networks, CASES[name]))
    rng = np.random.default_rng(0)
    runtime = RUNTIMES[table.conditions["runtime"]]
    sessions = {}
    known = {n["arch"]: n["measured_ms"] for n in table.networks if n["use"] == "test"}
    for arch in [*archs, *map(Arch.parse, known)]:
        parts = space.walk(arch)
        model = runtime.emit(parts, {part: weights.draw(op, rng) for part, op in parts})
        image = rng.standard_normal((1, space.in_channels, arch.resolution, arch.resolution)).astype(np.float32)
        sessions[str(arch)] = (runtime.start(model, 1), runtime.native(image))
    measured = latency(sessions, 1, rounds)
    predicted = table.latency_ms(space.genes(archs))
    truth = np.array([measured[str(arch)]["latency_ms"] for arch in archs])
    error = 100 * (predicted / truth - 1)
    state = np.median([measured[name]["latency_ms"] / before for name, before in known.items()])
    rest = 100 * np.abs(predicted * state / truth - 1)
    floor = np.median([measured[str(arch)]["spread_percent"] for arch in archs])

    text = io.StringIO()
    machine = artifacts.machine()
    text.write(f"# {machine['cpu']}, onnxruntime {artifacts.version('onnxruntime')}, 1 thread, batch 1, fp32\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arch", "predicted_ms", "measured_ms", "error_percent", "spread_percent"])
    for arch, p, t, e in zip(archs, predicted, truth, error, strict=True):
        writer.writerow([arch, f"{p:.5f}", f"{t:.5f}", f"{e:.3f}", measured[str(arch)]["spread_percent"]])
    artifacts.write(RESULTS / f"latency-error_{name}_cpu_1t.csv", text.getvalue())
    return (
        f"{name:10} {networks:3} networks, {truth.min():.2f} to {truth.max():.2f} ms: "
        f"MAPE {np.abs(error).mean():.2f} %, bias {error.mean():+.2f} %, worst {np.abs(error).max():.1f} %, "
        f"within 5 % {np.mean(np.abs(error) <= 5):.0%}; "
        f"the networks' own spread over {rounds} rounds: {floor:.1f} % (median). "
        f"Networks measured during the build measure {100 * state - 100:+.1f} % now (median), in these same rounds; "
        f"beyond that change of the machine's state the MAPE is {rest.mean():.2f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    for line in [run(name, options.networks, options.rounds) for name in CASES]:
        print(line)


if __name__ == "__main__":
    main()
