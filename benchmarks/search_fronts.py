"""Fronts of accuracy against latency: `ofa-deploy search --front` against pymoo's NSGA-II at as many evaluations.

Both search the shipped predictors and tables; pymoo (which has to be installed for this: pip install pymoo) with
integer variables for resolution, depths and blocks, a population of 128, and inactive blocks ignored. The hypervolume's
reference point is the fastest network's accuracy and the slowest network's latency. CPU seconds of one thread; some
minutes. Writes benchmarks/results/search-fronts.csv.

    python benchmarks/search_fronts.py [--seeds 5] [--show]
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from common import (
    check_results,
    logger,
    make_parser,
    read_table,
    result_path,
    run_telling,
    shipped_predictor,
    timed,
    write_table,
)
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.files import artifacts
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.front import hypervolume
from ofa_deploy.search.limits import Limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.run import find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

RESULT = result_path("search-fronts")


def canonical(space: SearchSpace, x: np.ndarray, sizes: list[int]) -> Genes:
    """Genes from integers: resolution, a depth a stage, a block a slot."""
    genes = np.zeros((len(x), space.columns), np.int16)
    genes[:, 0] = np.array(sizes)[x[:, 0]]
    slots = x[:, 1 + len(space.stages) :]
    for number, (stage, columns) in enumerate(zip(space.stages, space.stage_columns, strict=True)):
        depth = np.array(stage.depths)[x[:, 1 + number]]
        blocks = 1 + slots[:, columns.start - 1 : columns.stop - 1]
        genes[:, columns] = np.where(np.arange(stage.depths[-1]) < depth[:, None], blocks, 0)
    return genes


def pymoo(space: SearchSpace, predictor: Predictor, limit: Limit, evaluations: int, seed: int) -> tuple[Floats, Floats]:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    sizes = [i for i, fixed in enumerate(limit.cost.fixed) if np.isfinite(fixed)]
    upper = [len(sizes) - 1, *[len(s.depths) - 1 for s in space.stages]]
    upper += [len(space.stages[place.stage].choices) - 1 for place in space.slots if place.stage is not None]

    class Networks(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=len(upper), n_obj=2, xl=0, xu=np.array(upper), vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, object], *_: object, **__: object) -> None:
            genes = canonical(space, x.astype(int), sizes)
            out["F"] = np.stack([-predictor.predict(genes), limit.cost(genes)], axis=1)

    algorithm = NSGA2(
        pop_size=128,
        sampling=IntegerRandomSampling(),
        eliminate_duplicates=True,
        crossover=SBX(vtype=float, repair=RoundingRepair()),
        mutation=PM(vtype=float, repair=RoundingRepair()),
    )
    result = minimize(Networks(), algorithm, ("n_eval", evaluations), seed=seed)
    return -result.F[:, 0], result.F[:, 1]


def run(seeds: int) -> pd.DataFrame:
    rows = []
    for name in ("fmnist", "mbv3-w1.0"):
        space = get_space(name)
        predictor = shipped_predictor(space)
        table = LatencyTable.load(sorted(artifacts.shipped("lut").glob(f"{name}_cpu_*.csv"))[0], space)
        limit = latency_limit(table, "100%", margin_percent=0.0)
        for seed in range(seeds):
            problem, settings = Problem(space, [limit], predictor), SearchSettings(seed=seed)
            result, seconds = timed(partial(find_network, problem, settings, risk=0, front=True))
            front = result.front_frame()
            worst = float(predictor.predict(space.genes([space.extreme(largest=False)]))[0]), limit.allowed
            volumes = {"ofa-deploy": hypervolume(front["score"].to_numpy(), front["latency_ms"].to_numpy(), *worst)}
            times = {"ofa-deploy": seconds}
            other, times["pymoo"] = timed(partial(pymoo, space, predictor, limit, result.evaluations, seed))
            volumes["pymoo"] = hypervolume(*other, *worst)
            rows += [
                {
                    "space": name,
                    "method": method,
                    "seed": seed,
                    "hypervolume": round(volume, 5),
                    "cpu_seconds": round(times[method], 3),
                    "evaluations": result.evaluations,
                }
                for method, volume in volumes.items()
            ]
            logger.info(str(rows[-2:]))
    return pd.DataFrame(rows)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.show:
        with threadpool_limits(1):
            write_table(RESULT, run(arguments.seeds))
    check_results([RESULT])
    rows = read_table(RESULT)
    figures = rows.groupby(["space", "method"])[["hypervolume", "cpu_seconds", "evaluations"]]
    print(figures.agg(["median", "min", "max"]).round(4).to_string())
    print("\nHypervolume in points times ms, CPU seconds of one thread. To run it anew (needs pymoo):")
    print("python benchmarks/search_fronts.py")


if __name__ == "__main__":
    run_telling(main)
