"""How exact tables are that are fitted to whole networks: `ofa-deploy lut fit` on published latencies of four GPUs.

`gpu_latency_mbv3-w1.2.csv` of HELP (MIT) has 3,507 networks at batches of 1, 32 and 64. Tables are fitted to 900 of
them and judged on the others; and to ten, with the tables of the other three GPUs at that batch, on ten draws. Takes
about five minutes of one core. Writes benchmarks/results/fitted-tables_gpu.csv.

    python benchmarks/fitted_tables.py --published FOLDER
    python benchmarks/fitted_tables.py --show
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from common import logger, make_parser, print_results, result_path, run_telling, write_table

from ofa_deploy.files import atomic
from ofa_deploy.latency.regression import fit_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.families import get_space

RESULT = result_path("fitted-tables", "gpu")
SOURCE = "gpu_latency_mbv3-w1.2.csv"
GPUS, BATCHES = ("2080ti", "titan_rtx", "titan_xp", "v100"), (1, 32, 64)
MANY, FEW, DRAWS = 900, 10, 10


def judged(table: LatencyTable, genes: Genes, latency_ms: Floats) -> dict[str, float]:
    """Errors of a table on networks that it was not fitted to, in percent, and what it expected of itself."""
    relative = 100 * np.abs(table.latency_ms(genes) / latency_ms - 1)
    return {
        "mape_percent": relative.mean().round(3),
        "median_percent": np.median(relative).round(3),
        "expected_mape_percent": table.error["mape_percent"],
    }


def run(path: Path) -> pd.DataFrame:
    space = get_space("mbv3-w1.2")
    archs, lines = arch_lists.read(path, space)
    order = np.random.default_rng(0).permutation(len(archs))
    apart = order[MANY:]
    genes = space.genes([archs[i] for i in apart])
    rows = []
    for batch in BATCHES:
        latencies = {gpu: np.array([float(line[f"{gpu}_{batch}_ms"]) for line in lines]) for gpu in GPUS}
        fit = partial(fit_table, space, conditions={"device": "gpu", "threads": 1, "batch": batch})
        tables: dict[str, LatencyTable] = {}
        for gpu, latency in latencies.items():
            many = order[:MANY]
            tables[gpu] = fit([archs[i] for i in many], latency_ms=latency[many])
            row = {"gpu": gpu, "batch": batch, "networks": MANY, "others": 0, "draw": 0}
            rows.append(row | judged(tables[gpu], genes, latency[apart]))
            logger.info(str(rows[-1]))
        for gpu, latency in latencies.items():
            others = [table for name, table in tables.items() if name != gpu]
            for draw in range(DRAWS):
                few = np.random.default_rng(100 + draw).permutation(order[:MANY])[:FEW]
                table = fit([archs[i] for i in few], latency_ms=latency[few], others=others)
                row = {"gpu": gpu, "batch": batch, "networks": FEW, "others": len(others), "draw": draw}
                rows.append(row | judged(table, genes, latency[apart]))
    return pd.DataFrame(rows)


def show(table: pd.DataFrame) -> None:
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
    parser = make_parser(__doc__)
    parser.add_argument("--published", type=Path, help=f"folder that holds {SOURCE}")
    options = parser.parse_args()
    if not options.show:
        if options.published is None:
            parser.error(f"--published FOLDER is missing: where {SOURCE} lies")
        head = f"{SOURCE}, sha256 {atomic.sha256(options.published / SOURCE)[:16]}"
        write_table(RESULT, run(options.published / SOURCE), head)
    print_results([RESULT], show)


if __name__ == "__main__":
    run_telling(main)
