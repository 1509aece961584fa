"""Which subnetworks to measure: drawn one by one, or as tries that share beginnings, at equal CPU time.

Measures with `ofa-deploy sample`'s own code into .sample-design/: 1,000 uniformly drawn networks that are kept apart,
others drawn uniformly, and a trie design for as many networks as the same CPU seconds pay for. Predictors fitted on
growing shares of the latter two are judged on those kept apart. On two cores it takes about two hours; a run that was
killed goes on where it was. Writes benchmarks/results/sample-design_fmnist.csv.

    python benchmarks/sample_design.py [--number 1000] [--jobs 2] [--show]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from common import logger, make_parser, print_results, result_path, run_telling, shipped_weights, write_table
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors.estimator import make_estimator
from ofa_deploy.accuracy.predictors.evaluate import errors
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.sampling import SamplingPlan, sample_accuracies
from ofa_deploy.accuracy.workers import Workers
from ofa_deploy.files.machine import this_machine
from ofa_deploy.spaces.encoding import features
from ofa_deploy.spaces.families import get_space

RESULT = result_path("sample-design", "fmnist")
WORK = Path(".sample-design")
SHARES = (0.25, 0.5, 1.0)
GROUP = {"uniform": 1, "trie": 108}
"""Networks that are drawn together: shares are whole groups, in random order."""
PILOT = 432  # networks of the trie design that are measured first, to learn what one costs


def measured(name: str, design: str, number: int, seed: int, jobs: int) -> tuple[Samples, float]:
    """Samples, and the CPU seconds of one network."""
    space = get_space("fmnist")
    out = WORK / f"{name}_{number}.csv"
    if not out.exists():
        logger.info(f"-- {name}: {number} networks")
        weights = shipped_weights(space)
        plan = SamplingPlan(number, seed, design)
        sample_accuracies(weights, space, plan=plan, data=None, workers=Workers(jobs), out=out)
    description = json.loads(out.with_suffix(".json").read_text())
    return Samples.load(out, space), description["cpu_seconds"] / number


def run(number: int, jobs: int) -> pd.DataFrame:
    space = get_space("fmnist")
    apart, _ = measured("apart", "uniform", number, 1, jobs)
    uniform, each = measured("uniform", "uniform", number, 2, jobs)
    _, cheaper = measured("pilot", "trie", PILOT, 3, jobs)
    trie, cheaper = measured("trie", "trie", round(number * each / cheaper), 3, jobs)
    unseen = features(space, apart.genes)
    rows = []
    for design, samples, seconds in (("uniform", uniform, each), ("trie", trie, cheaper)):
        groups_of = np.array_split(np.arange(len(samples)), len(samples) // GROUP[design])
        shuffled = np.random.default_rng(0).permutation(len(groups_of))
        order = np.concatenate([groups_of[i] for i in shuffled])
        for share in SHARES:
            n = round(share * number * each / seconds)
            some = order[:n]
            x, y = features(space, samples.genes[some]), samples.top1_percent[some]
            for name, model in {"gp": make_estimator("gp", space), "mlp": make_estimator("mlp", space)}.items():
                with threadpool_limits(1):
                    predicted = model.fit(x, y).predict(unseen, return_std=True)
                figures = errors(apart.top1_percent, predicted, apart.genes[:, 0])
                rows.append(
                    {
                        "design": design,
                        "networks": len(y),
                        "cpu_minutes": round(len(y) * seconds / 60, 1),
                        "cpu_seconds_each": round(seconds, 3),
                        "model": name,
                        **figures,
                    }
                )
                logger.info(str(rows[-1]))
    return pd.DataFrame(rows)


def show(table: pd.DataFrame) -> None:
    print(table.drop(columns="coverage90_percent").to_string(index=False))
    print("errors on networks kept apart; run again with: python benchmarks/sample_design.py")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if not options.show:
        WORK.mkdir(exist_ok=True)
        table = run(options.number, options.jobs)
        noise = json.loads((WORK / f"apart_{options.number}.json").read_text())["label_noise"]
        head = f"{options.number} uniformly drawn networks kept apart, label noise {noise}, {this_machine()['cpu']}"
        write_table(RESULT, table, head)
    print_results([RESULT], show)


if __name__ == "__main__":
    run_telling(main)
