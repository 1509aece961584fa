"""Whether `ofa-deploy search --verify` keeps its promise: delivered networks, measured again after all are found.

Builds this machine's tables of `fmnist`, asks for networks within budgets from 4 to 60 % of the range of the table
(above that the best network leaves some of it), and then measures all delivered networks in rounds of their own, beside
networks of the table that tell the machine's state. About a minute a budget; nothing else should run. Writes
benchmarks/results/search-promises_fmnist_DEVICE.csv.

    python benchmarks/search_promises.py [--device cpu --device tflite] [--budgets 15] [--candidates 3] [--show]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import (
    RESULTS,
    check_results,
    logger,
    make_parser,
    read_table,
    result_path,
    run_telling,
    shipped_predictor,
    write_table,
)

from ofa_deploy.delivery.verification import find_verified_network
from ofa_deploy.device.devices import get_device
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.comparison import beside_table
from ofa_deploy.search.problem import Problem
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space


def run(device: str, budgets: int, candidates: int) -> pd.DataFrame:
    space = get_space("fmnist")
    predictor = shipped_predictor(space)
    job = TableJob(space, space.resolutions, plan=MeasurePlan())
    with tempfile.TemporaryDirectory() as folder:
        table = build_table(job, device, out=Path(folder) / "table.csv")
    rows = []
    for share in np.linspace(4, 60, budgets):
        result = find_verified_network(
            Problem(space, predictor=predictor), table, budget=f"{share:.1f}%", number=candidates
        )
        verified = result.verified
        assert verified is not None
        rows.append(
            {
                "share_percent": round(share, 1),
                "budget_ms": verified.budget_ms,
                "arch": str(result.arch),
                "table_ms": round(float(table.latency_ms(space.genes([result.arch]))[0]), 5),
                "measured_ms": verified.measured_ms,
                "within_budget": verified.within_budget,
                "rounds": verified.rounds,
            }
        )
        logger.info(str(rows[-1]))
    nets, target = [space.walk(Arch.parse(str(row["arch"]))) for row in rows], get_device(device)
    sessions = {str(i): job.started(net, target) for i, net in enumerate(nets)}
    again, slower = beside_table(sessions, table, threads=1)
    for i, row in enumerate(rows):
        row |= {"again_ms": again[str(i)]["latency_ms"], "machine_slower_percent": slower}
    return pd.DataFrame(rows).assign(cpu=table.conditions["machine"]["cpu"])


def summary(rows: pd.DataFrame, device: str) -> dict[str, object]:
    used, off = rows["again_ms"] / rows["budget_ms"], rows["table_ms"] / rows["again_ms"] - 1
    return {
        "device": device,
        "budgets": len(rows),
        "within": f"{100 * rows['within_budget'].mean():.0f} %",
        "used": f"{100 * (rows['measured_ms'] / rows['budget_ms']).mean():.1f} %",
        "measured again: within": f"{100 * (used <= 1).mean():.0f} %",
        "within 1 %": f"{100 * (used <= 1.01).mean():.0f} %",
        "used ": f"{100 * used.mean():.1f} %",
        "most": f"{100 * used.max():.1f} %",
        "table alone off by": f"{100 * abs(off).mean():.1f} %",
        "rounds": f"{rows['rounds'].mean():.1f}",
        "machine slower": f"{rows['machine_slower_percent'].iloc[0]:.0f} %",
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--device", action="append", choices=("cpu", "tflite"))
    parser.add_argument("--budgets", type=int, default=15)
    parser.add_argument("--candidates", type=int, default=3)
    arguments = parser.parse_args()
    for device in [] if arguments.show else arguments.device or ["cpu", "tflite"]:
        frame = run(device, arguments.budgets, arguments.candidates)
        write_table(result_path("search-promises", "fmnist", device), frame)
    paths = sorted(RESULTS.glob("search-promises_*.csv"))
    check_results(paths)
    print(pd.DataFrame([summary(read_table(path), path.stem.split("_")[-1]) for path in paths]).to_string(index=False))
    print("\nLatencies of networks that `search --verify` delivered, relative to the budget. To run it anew:")
    print("python benchmarks/search_promises.py")


if __name__ == "__main__":
    run_telling(main)
