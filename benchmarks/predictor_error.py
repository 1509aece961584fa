"""How many measured networks a predictor needs: learning curves of every model, and of the published recipe.

From each list of measured accuracies a seeded 30 % is kept apart; models are fitted on some or all of the other 70 %,
their settings chosen and `auto` decided on those alone, and judged on the 30 %. Lists: `fmnist`, the shipped samples;
with --published FOLDER also `imagenet-r224` and `imagenet-multires`, subnetworks of the official supernet that others
have measured (`imagenet_mbv3-w1.0_top1_r224.csv` of DyNAS-T, Apache-2.0; `imagenet_mbv3-w1.0_top1_multires.csv` of
memory-optimized-once-for-all), and `imagenet-multires-with-r224`, where all of the former are fitted too, as a second
source. Takes about a minute of one core for each list, seed and number of labels; a run that was killed goes on where
it was. Writes benchmarks/results/predictor-error_LIST.csv.

    python benchmarks/predictor_error.py [--list NAME] [--labels N] [--published FOLDER] [--seeds 5] [--jobs 2] [--show]
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from common import RESULTS, logger, make_parser, print_results, result_path, run_telling, write_table
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from ofa_deploy.accuracy.predictors.estimator import make_estimator
from ofa_deploy.accuracy.predictors.evaluate import choose, cross_validated, errors, folds, line, widening
from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.accuracy.predictors.predictor import blend
from ofa_deploy.accuracy.predictors.published import PublishedMLP
from ofa_deploy.accuracy.predictors.sources import merge
from ofa_deploy.accuracy.samples import Samples, file_name
from ofa_deploy.files import artifacts, atomic, journals
from ofa_deploy.files.machine import this_machine
from ofa_deploy.spaces.encoding import features, layout_of
from ofa_deploy.spaces.families import get_space

LABELS = (100, 250, 500, 0)  # 0: all of the 70 %
ORDER = (*RECIPES, "auto", "published recipe", "line on log MACs")
Rows = list[dict[str, object]]


def lists(published: Path | None) -> dict[str, tuple[str, list[Path]]]:
    """Space of each list of measured accuracies, its file, and those that are further sources."""
    places = {"fmnist": ("fmnist", [artifacts.shipped("predictors") / file_name(get_space("fmnist"))])}
    if published is not None:
        single, several = (published / f"imagenet_mbv3-w1.0_top1_{name}.csv" for name in ("r224", "multires"))
        places["imagenet-r224"] = "mbv3-w1.0", [single]
        places["imagenet-multires"] = "mbv3-w1.0", [several]
        places["imagenet-multires-with-r224"] = "mbv3-w1.0", [several, single]
    return places


def judge(name: str, space_name: str, paths: list[Path], *, labels: int, seed: int) -> Rows:
    """Errors of every model on the 30 % of the first file that are kept apart."""
    os.environ["OMP_NUM_THREADS"] = "1"
    space = get_space(space_name)
    samples, *others = [Samples.load(path, space) for path in paths]
    fitted, apart = train_test_split(np.arange(len(samples)), test_size=0.3, random_state=seed)
    fitted = fitted[: labels or None]
    first = Samples(space, samples.genes[fitted], samples.top1_percent[fitted])
    merged = merge([first, *others])
    a, b, weight, sure = merged.x, merged.y, merged.weight, merged.source == 0
    x, y, resolution = features(space, samples.genes[apart]), samples.top1_percent[apart], samples.genes[apart, 0]
    rows: Rows = []

    def add(model: str, predicted: tuple[np.ndarray, np.ndarray], seconds: float, blended: str = "") -> None:
        row: dict[str, object] = {"list": name, "labels": len(fitted), "seed": seed, "model": model}
        row |= errors(y, predicted, resolution)
        rows.append(row | {"cpu_seconds": round(seconds, 2), "chosen": blended})

    with threadpool_limits(1):
        began = time.process_time()
        estimators = {key: make_estimator(key, space).tuned(a, b, weight) for key in RECIPES}
        unseen = cross_validated(estimators, a, b, weight, seed=0, jobs=1)
        best = choose(b, unseen, folds(a, 0), sure)
        predicted = {}
        for key, estimator in estimators.items():
            start = time.process_time()
            predicted[key] = clone(estimator).fit(a, b, sample_weight=weight).predict(x, return_std=True)
            wide = widening(b, unseen[key], sure)
            add(key, (predicted[key][0], predicted[key][1] * wide), time.process_time() - start)
        mean, std = blend([predicted[key] for key in best])
        wide = widening(b, blend([unseen[key] for key in best]), sure)
        add("auto", (mean, std * wide), time.process_time() - began, "+".join(best))
        layout = layout_of(space)
        for key, model in {"published recipe": PublishedMLP(layout), "line on log MACs": line(layout)}.items():
            start = time.process_time()
            mean = model.fit(a, b).predict(x)
            add(key, (mean, np.zeros(len(apart))), time.process_time() - start)
    return rows


def run(name: str, space: str, paths: list[Path], *, labels: tuple[int, ...], seeds: int, jobs: int) -> None:
    """Judge all models on a list and write its CSV."""
    partial = Path(f".predictor-error_{name}.partial")
    header = {"sha256": [atomic.sha256(path) for path in paths], "labels": labels}
    rows: Rows = [row for text in journals.resume(partial, header) for row in json.loads(text)]
    done = {(row["labels"] if row["labels"] in labels else 0, row["seed"]) for row in rows}
    todo = [(n, seed) for seed in range(seeds) for n in labels if (n, seed) not in done]
    logger.info(f"{name}: {len(todo)} of {len(labels) * seeds} to do")
    results = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(
        joblib.delayed(judge)(name, space, paths, n, seed) for n, seed in todo
    )
    with partial.open("a") as file:
        for number, figures in enumerate(results, 1):
            rows += figures
            file.write(json.dumps(figures) + "\n")
            file.flush()
            logger.info(f"{name}: {number}/{len(todo)}")
    table = pd.DataFrame(rows)
    table["order"] = table.model.map(ORDER.index)
    table = table.sort_values(["labels", "seed", "order"]).drop(columns="order")
    others = "".join(f", with {path.name}" for path in paths[1:])
    head = f"{paths[0].name}, 30 % kept apart{others}, {this_machine()['cpu']}"
    write_table(result_path("predictor-error", name), table, head)
    partial.unlink()


def show(table: pd.DataFrame) -> None:
    """Print the mean over the seeds of each error."""
    tau = "kendall_tau_within_resolution"
    if tau not in table:
        tau = "kendall_tau"
    print(f"RMSE in points / {tau.replace('_', ' ')} / % in the 90 % interval, mean of {table.seed.nunique()} splits")
    mean = table.groupby(["model", "labels"])[["rmse_points", tau, "coverage90_percent"]].mean()
    numbers = sorted(table.labels.unique())
    print(f"{'labels':>18}" + "".join(f"{n:>22}" for n in numbers))
    for model in ORDER:
        cells = []
        for n in numbers:
            rmse, order, inside = mean.loc[(model, n)]
            cells.append(f"{rmse:.3f} / {order:.3f} / " + (f"{inside:2.0f}" if inside == inside else " -"))
        print(f"{model:>18}" + "".join(f"{cell:>22}" for cell in cells))
    blends = table[(table.model == "auto") & (table.labels == numbers[-1])].chosen.value_counts()
    print("auto took " + ", ".join(f"{name} ({n})" for name, n in blends.items()) + " of the most labels\n")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--list", action="append", help="one of them; may be given several times; default: all")
    parser.add_argument("--labels", type=int, action="append", help=f"that are fitted, 0: all; default: {LABELS}")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if not options.show:
        for name, (space, paths) in lists(options.published).items():
            if not options.list or name in options.list:
                run(name, space, paths, labels=tuple(options.labels or LABELS), seeds=options.seeds, jobs=options.jobs)
    print_results(sorted(RESULTS.glob("predictor-error_*.csv")), show)
    print("run again with: python benchmarks/predictor_error.py --published FOLDER (its head says of what)")


if __name__ == "__main__":
    run_telling(main)
