"""What 16,000 measured networks tell a predictor that 1,000 do not.

The 1,000 shipped networks that were drawn one by one are predicted in five folds by models that were fitted on the
other 800 of them, on the 16,000 shipped networks of the trie design, and on both. Takes about ten minutes of one core.
Writes benchmarks/results/many-samples_fmnist.csv.

    python benchmarks/many_samples.py [--show]
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from common import logger, make_parser, print_results, result_path, run_telling, write_table
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors.estimator import make_estimator
from ofa_deploy.accuracy.predictors.evaluate import errors, folds
from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.accuracy.samples import Samples, file_name
from ofa_deploy.files import artifacts
from ofa_deploy.spaces.encoding import features
from ofa_deploy.spaces.families import get_space

RESULT = result_path("many-samples", "fmnist")
MANY = "fmnist-trie_samples.csv"


def origin(name: str) -> str:
    """How shipped samples were measured."""
    description = json.loads((artifacts.shipped("predictors") / name).with_suffix(".json").read_text())
    minutes = description["cpu_seconds"] / 60
    return f"{description['number']} networks ({description['design']}) measured in {minutes:.0f} CPU minutes"


def run() -> pd.DataFrame:
    space = get_space("fmnist")
    few, many = (Samples.load(artifacts.shipped("predictors") / name, space) for name in (file_name(space), MANY))
    x, y = features(space, few.genes), few.top1_percent
    more, labels = features(space, many.genes), many.top1_percent
    rows = []
    for name in RECIPES:
        predicted = {"some": np.zeros(len(y)), "both": np.zeros(len(y))}
        with threadpool_limits(1):
            some = make_estimator(name, space).tuned(x, y)
            both = make_estimator(name, space).tuned(np.concatenate([x, more]), np.concatenate([y, labels]))
            for fitted, held in folds(x, 0):
                predicted["some"][held] = clone(some).fit(x[fitted], y[fitted]).predict(x[held])
                a, b = np.concatenate([x[fitted], more]), np.concatenate([y[fitted], labels])
                predicted["both"][held] = clone(both).fit(a, b).predict(x[held])
            predicted["many"] = make_estimator(name, space).tuned(more, labels).fit(more, labels).predict(x)
        words = {"some": "800 drawn one by one", "many": f"{len(labels)} of tries", "both": "both"}
        for key, text in words.items():
            figures = errors(y, (predicted[key], np.zeros(len(y))), few.genes[:, 0])
            rows.append({"model": name, "fitted_on": text, **figures})
            logger.info(str(rows[-1]))
    return pd.DataFrame(rows)


def show(table: pd.DataFrame) -> None:
    print(table.to_string(index=False))
    print("run again with: python benchmarks/many_samples.py\n")


def main() -> None:
    parser = make_parser(__doc__)
    if not parser.parse_args().show:
        head = ", ".join(map(origin, (file_name(get_space("fmnist")), MANY)))
        write_table(RESULT, run(), head)
    print_results([RESULT], show)


if __name__ == "__main__":
    run_telling(main)
