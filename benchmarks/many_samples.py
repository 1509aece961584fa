"""What 16,000 measured networks tell a predictor that 1,000 do not.

The 1,000 shipped networks that were drawn one by one are predicted in five folds by models that were fitted on the
other 800 of them, on the 16,000 shipped networks of the trie design, and on both. Takes about ten minutes of one core.
Writes benchmarks/results/many-samples_fmnist.csv.

    python benchmarks/many_samples.py [--show]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors.estimator import make_estimator
from ofa_deploy.accuracy.predictors.evaluate import errors, folds
from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.accuracy.samples import Samples, file_name
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.spaces.encoding import features
from ofa_deploy.spaces.families import get_space

RESULT = Path(__file__).parent / "results" / "many-samples_fmnist.csv"
MANY = "fmnist-trie_samples.csv"


def about(name: str) -> str:
    """How shipped samples were measured."""
    found = json.loads((artifacts.shipped("predictors") / name).with_suffix(".json").read_text())
    minutes = found["cpu_seconds"] / 60
    return f"{found['number']} networks ({found['design']}) measured in {minutes:.0f} CPU minutes"


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
            found = errors(y, (predicted[key], np.zeros(len(y))), few.genes[:, 0])
            rows.append({"model": name, "fitted_on": text, **found})
            print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def show() -> None:
    table = pd.read_csv(RESULT, comment="#")
    print(RESULT.read_text().splitlines()[0])
    print(table.to_string(index=False))
    print("run again with: python benchmarks/many_samples.py\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="only print the committed results")
    if not parser.parse_args().show:
        head = ", ".join(map(about, (file_name(get_space("fmnist")), MANY)))
        atomic.write(RESULT, f"# {head}\n" + run().to_csv(index=False))
    show()


if __name__ == "__main__":
    main()
