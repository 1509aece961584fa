"""How exact tables are that are fitted to whole networks: `ofa-deploy lut fit` on published latencies of four GPUs.

`gpu_latency_mbv3-w1.2.csv` of HELP (MIT) has 3,507 networks at batches of 1, 32 and 64. Tables are fitted to 900 of
them and judged on the others; and to ten, with the tables of the other three GPUs at that batch, on ten draws. Takes
about five minutes of one core. Writes benchmarks/results/fitted-tables_gpu.csv.

    python benchmarks/fitted_tables.py --published FOLDER
    python benchmarks/fitted_tables.py --show
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ofa_deploy.files import atomic
from ofa_deploy.latency.regression import fit_table
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.families import get_space

RESULT = Path(__file__).parent / "results" / "fitted-tables_gpu.csv"
SOURCE = "gpu_latency_mbv3-w1.2.csv"
GPUS, BATCHES = ("2080ti", "titan_rtx", "titan_xp", "v100"), (1, 32, 64)
MANY, FEW, DRAWS = 900, 10, 10


def run(path: Path) -> pd.DataFrame:
    space = get_space("mbv3-w1.2")
    archs, rows = arch_lists.read(path, space)
    genes = space.genes(archs)
    order = np.random.default_rng(0).permutation(len(archs))
    apart = order[MANY:]
    out = []
    for batch in BATCHES:
        measured = {gpu: np.array([float(row[f"{gpu}_{batch}_ms"]) for row in rows]) for gpu in GPUS}
        conditions = {"device": "gpu", "threads": 1, "batch": batch}

        def fitted(some, latency, others=(), conditions=conditions):  # type: ignore[no-untyped-def]
            some_archs = [archs[i] for i in some]
            return fit_table(space, some_archs, latency_ms=latency[some], conditions=conditions, others=others)

        tables = {}
        for gpu, latency in measured.items():
            tables[gpu] = table = fitted(order[:MANY], latency)
            relative = 100 * np.abs(table.latency_ms(genes[apart]) / latency[apart] - 1)
            out.append(
                {
                    "gpu": gpu,
                    "batch": batch,
                    "networks": MANY,
                    "others": 0,
                    "draw": 0,
                    "mape_percent": relative.mean().round(3),
                    "median_percent": np.median(relative).round(3),
                    "expected_mape_percent": table.error["mape_percent"],
                }
            )
            print(out[-1], file=sys.stderr)
        for gpu, latency in measured.items():
            others = [table for name, table in tables.items() if name != gpu]
            for draw in range(DRAWS):
                some = np.random.default_rng(100 + draw).permutation(order[:MANY])[:FEW]
                table = fitted(some, latency, others)
                relative = 100 * np.abs(table.latency_ms(genes[apart]) / latency[apart] - 1)
                out.append(
                    {
                        "gpu": gpu,
                        "batch": batch,
                        "networks": FEW,
                        "others": len(others),
                        "draw": draw,
                        "mape_percent": relative.mean().round(3),
                        "median_percent": np.median(relative).round(3),
                        "expected_mape_percent": table.error["mape_percent"],
                    }
                )
    return pd.DataFrame(out)


def show() -> None:
    table = pd.read_csv(RESULT, comment="#")
    print(RESULT.read_text().splitlines()[0])
    wide = table.pivot_table(index=["networks", "others", "batch"], columns="gpu", values="mape_percent")
    wide["mean"] = wide[list(GPUS)].mean(axis=1)
    wide["median error"] = table.groupby(["networks", "others", "batch"]).median_percent.mean()
    print(wide.round(2).to_string())
    print(
        f"MAPE in % on networks kept apart; few networks: mean of {DRAWS} draws. A table's own cross-validation expects"
    )
    ratio = (table.expected_mape_percent / table.mape_percent).groupby(table.networks).median()
    print(", ".join(f"{r:.2f} times that error from {n} networks" for n, r in ratio.items()) + " (median).")
    print("run again with: python benchmarks/fitted_tables.py --published FOLDER (its head says of what)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, help=f"folder that holds {SOURCE}")
    parser.add_argument("--show", action="store_true", help="only print the committed results")
    options = parser.parse_args()
    if not options.show:
        if options.published is None:
            parser.error(f"--published FOLDER is missing: where {SOURCE} lies")
        found = run(options.published / SOURCE)
        head = f"# {SOURCE}, sha256 {atomic.sha256(options.published / SOURCE)[:16]}\n"
        atomic.write(RESULT, head + found.to_csv(index=False))
    show()


if __name__ == "__main__":
    main()
