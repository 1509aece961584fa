"""How good and how quick the search is: against the published finder, against long searches, and against proofs.

Published: evolution as the once-for-all paper and its code have it, written anew: 100 individuals, 500 generations, a
quarter are parents, half of the children are mutations (rate 0.1) and half crossovers, drawn until they are within the
limit; networks are Python dicts that are copied deeply, costs are summed key by key, accuracy is predicted for 100 at a
time; the last generation is evaluated and not looked at. `ofa-deploy search` runs as it does by default, but for
--risk 0. The best known network is the best of all these runs and of some searches of a million evaluations.

Cases: the shipped predictors and tables; with --published FOLDER also a predictor of the official shape (fitted to
ImageNet accuracies that others measured on the w1.0 supernet, taken for mbv3-w1.2: it is a test function here, not a
prediction) with once-for-all's Note10 table and with MACs; and a `concave` predictor of 16 units with nsganetv2's table
of an i7-8700K, where the best network is proved. Seconds are CPU seconds of one thread. About an hour of one core;
writes benchmarks/results/search-quality_CASE.csv, a case that is there is left out.

    python benchmarks/search_quality.py [--published FOLDER] [--seeds 10] [--long 3] [--show]
"""

from __future__ import annotations

import copy
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import (
    RESULTS,
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

from ofa_deploy.accuracy.predictors.concave import Concave
from ofa_deploy.accuracy.predictors.model import Labels, fit_model
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.accuracy.predictors.published import PublishedMLP
from ofa_deploy.accuracy.predictors.sources import Merged, merge
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.files import artifacts
from ofa_deploy.latency.foreign_tables import import_tables
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.certificates import certify
from ofa_deploy.search.limits import Limit, cost_limit, latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.run import find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.encoding import layout_of
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

BENCHMARK = "search-quality"
LONG = 1_000_000
SOURCES = ("imagenet_mbv3-w1.0_top1_r224.csv", "imagenet_mbv3-w1.0_top1_multires.csv")
NEAR = 0.01
"""Points of the best known within which a search counts as having found it."""
ROUNDED = 1e-5
"""Points that rounding may have added to a score on record."""


@dataclass(frozen=True)
class Case:
    """A search to be judged."""

    name: str
    space: SearchSpace
    predictor: Predictor
    limit: Limit
    prove: bool = False


class Watched:
    """A predictor that notes when a network within the limit first reaches a score."""

    def __init__(self, case: Case) -> None:
        self._case, self.space, self.evaluations = case, case.space, 0
        self._start = time.process_time()
        self.best: list[tuple[float, float, int]] = []

    def predict(self, genes: Genes, *, return_std: bool = False) -> Any:
        if return_std:
            return self._case.predictor.predict(genes, return_std=True)
        scores = self._case.predictor.predict(genes)
        self.evaluations += len(genes)
        within = scores[self._case.limit.excess(genes) == 0]
        if len(within) and (not self.best or within.max() > self.best[-1][1]):
            self.best.append((time.process_time() - self._start, float(within.max()), self.evaluations))
        return scores

    def gains(self, genes: Genes) -> Floats:
        return self._case.predictor.gains(genes)

    def seconds_to(self, score: float) -> float:
        return next((seconds for seconds, best, _ in self.best if best >= score - ROUNDED), float("nan"))


Config = dict[str, Any]


class Published:
    """The published finder."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.space, self.rng = case, case.space, random.Random(seed)
        cost, choices = case.limit.cost, case.space.stages[0].choices
        self.sizes = [r for i, r in enumerate(case.space.resolutions) if np.isfinite(cost.fixed[i])]
        self.fixed = dict(zip(case.space.resolutions, cost.fixed.tolist(), strict=True))
        self.table = {
            (r, slot, choice): float(cost.blocks[i, slot, 0, number])
            for i, r in enumerate(case.space.resolutions)
            for slot in range(len(case.space.slots))
            for number, choice in enumerate(choices, 1)
        }

    def run(self, generations: int = 500, size: int = 100, parents: float = 0.25, mutate: float = 0.5) -> float:
        """Predicted accuracy of the best network."""
        population = [self.fitting(self.random) for _ in range(size)]
        scored = list(zip(self.accuracies(population), population, strict=True))
        best = -1.0
        for _ in range(generations):
            best_pairs = sorted(scored, key=lambda pair: -pair[0])[: round(parents * size)]
            best = max(best, best_pairs[0][0])
            mutants = [self.fitting(partial(self.mutated, best_pairs)) for _ in range(round(mutate * size))]
            children = mutants + [self.fitting(partial(self.crossed, best_pairs)) for _ in range(size - len(mutants))]
            scored = best_pairs + list(zip(self.accuracies(children), children, strict=True))
        return best

    def fitting(self, make: Callable[[], Config]) -> Config:
        while True:
            config = make()
            if self.cost(config) <= self.case.limit.allowed:
                return config

    def random(self) -> Config:
        space = self.space
        return {
            "r": self.rng.choice(self.sizes),
            "d": [self.rng.choice(s.depths) for s in space.stages],
            "ks": [self.rng.choice(space.kernels) for _ in space.slots],
            "e": [self.rng.choice(space.expands) for _ in space.slots],
        }

    def mutated(self, parents: list[tuple[float, Config]], rate: float = 0.1) -> Config:
        new, fresh = copy.deepcopy(self.rng.choice(parents)[1]), self.random()
        if self.rng.random() < rate:
            new["r"] = fresh["r"]
        for key in ("d", "ks", "e"):
            for i in range(len(new[key])):
                if self.rng.random() < rate:
                    new[key][i] = fresh[key][i]
        return new

    def crossed(self, parents: list[tuple[float, Config]]) -> Config:
        a, b = self.rng.choice(parents)[1], self.rng.choice(parents)[1]
        new = copy.deepcopy(a)
        for key in new:
            if isinstance(new[key], list):
                for i in range(len(new[key])):
                    new[key][i] = self.rng.choice([a[key][i], b[key][i]])
            else:
                new[key] = self.rng.choice([a[key], b[key]])
        return new

    def active(self, config: Config) -> Iterator[tuple[int, tuple[int, float]]]:
        slot = 0
        for stage, depth in zip(self.space.stages, config["d"], strict=True):
            for i in range(depth):
                yield slot + i, (config["ks"][slot + i], config["e"][slot + i])
            slot += stage.depths[-1]

    def cost(self, config: Config) -> float:
        total = self.fixed[config["r"]]
        for slot, choice in self.active(config):
            total += self.table[config["r"], slot, choice]
        return total

    def accuracies(self, configs: list[Config]) -> list[float]:
        genes = np.zeros((len(configs), self.space.columns), np.int16)
        choices = self.space.stages[0].choices
        for row, config in zip(genes, configs, strict=True):
            row[0] = self.space.resolutions.index(config["r"])
            for slot, choice in self.active(config):
                row[1 + slot] = 1 + choices.index(choice)
        return self.case.predictor.predict(genes).tolist()


def shipped_cases() -> Iterator[Case]:
    for name, budgets in (("fmnist", ("10%", "30%", "60%")), ("mbv3-w1.0", ("15%", "40%"))):
        space = get_space(name)
        predictor = shipped_predictor(space)
        for table in sorted(artifacts.shipped("lut").glob(f"{name}_*.csv")):
            loaded = LatencyTable.load(table, space)
            if loaded.conditions["precision"] != "fp32":
                continue
            for budget in budgets:
                limit = latency_limit(loaded, budget, margin_percent=0.0)
                yield Case(f"{name}, {loaded.conditions['device']}, {limit.upper:.3g} ms", space, predictor, limit)


def samples(folder: Path, space: SearchSpace) -> Merged:
    return merge([Samples.load(folder / name, space) for name in SOURCES])


def official_shape(folder: Path) -> Predictor:
    """A predictor as the official ones are, for mbv3-w1.2; its training data are of w1.0."""
    measured = samples(folder, get_space("mbv3-w1.0"))
    model = PublishedMLP(layout_of(measured.space)).fit(measured.x, measured.y)
    layers = [layer for layer in model.net_ if isinstance(layer, torch.nn.Linear)]
    arrays = {f"weight{i}": layer.weight.detach().numpy().T[None].copy() for i, layer in enumerate(layers)}
    arrays |= {f"bias{i}": layer.bias.detach().numpy()[None] for i, layer in enumerate(layers[:-1])}
    arrays[f"bias{len(layers) - 1}"] = np.array([[model.base_]], np.float32)
    sizes = (224 * 2.0**model.resolutions_).round().astype(int)
    arrays |= {"resolutions": sizes, "target": np.array([0.0, 100.0]), "noise": np.zeros(1)}
    return Predictor(get_space("mbv3-w1.2"), (("official", arrays),))


def imported(files: list[Path], space: SearchSpace, device: str) -> LatencyTable:
    with tempfile.TemporaryDirectory() as folder:
        return import_tables(files, space, device=device, out=Path(folder) / "table.csv")


def published_cases(folder: Path) -> Iterator[Case]:
    space = get_space("mbv3-w1.2")
    predictor = official_shape(folder)
    note10 = imported(sorted((folder / "note10_lut_mbv3-w1.2").glob("*.yaml")), space, "note10")
    for budget in ("15ms", "25ms", "35ms"):
        yield Case(
            f"official shape, note10, {budget}", space, predictor, latency_limit(note10, budget, margin_percent=0.0)
        )
    for budget in ("200M", "300M", "600M"):
        yield Case(f"official shape, {budget} MACs", space, predictor, cost_limit(space, "macs", budget=budget))
    space = get_space("mbv3-w1.0")
    measured = samples(folder, space)
    recipe = Concave(members=1, units=16, weight_decay=1.0)
    concave = fit_model(recipe, Labels(measured.x, measured.y, measured.weight, layout_of(space)))
    proved = Predictor(space, (("concave", concave.arrays),))
    i7 = imported([folder / "i7-8700K_lut.yaml"], space, "i7-8700K")
    for budget in ("10ms", "15ms", "20ms", "30ms"):
        yield Case(
            f"concave, i7-8700K, {budget}", space, proved, latency_limit(i7, budget, margin_percent=0.0), prove=True
        )


def judge(case: Case, seeds: int, long: int) -> list[dict[str, Any]]:
    rows = []

    def add(method: str, seed: int, score: float, seconds: float, evaluations: int) -> None:
        rows.append(
            {
                "case": case.name,
                "method": method,
                "seed": seed,
                "score": round(score, 5),
                "cpu_seconds": round(seconds, 3),
                "evaluations": evaluations,
            }
        )
        logger.info(f"{case.name}: {method}, seed {seed}: {score:.4f} in {seconds:.2f} s")

    for seed in range(max(1, seeds // 2)):
        score, seconds = timed(Published(case, seed).run)
        add("published", seed, score, seconds, 50_100)
    target = float(np.median([row["score"] for row in rows]))
    for seed in range(seeds):
        watched = Watched(case)
        problem = Problem(case.space, [case.limit], watched)
        result, seconds = timed(partial(find_network, problem, SearchSettings(seed=seed), risk=0))
        add("ofa-deploy", seed, result.score, seconds, result.evaluations)
        rows[-1]["seconds_to_published"] = round(watched.seconds_to(target), 4)
    settings, stopping = SearchSettings(population=1000, restarts=40), Stopping(LONG // 1000, patience=LONG)
    for seed in range(long):
        watched = Watched(case)
        problem, longer = Problem(case.space, [case.limit], watched), replace(settings, seed=1000 + seed)
        result, seconds = timed(partial(find_network, problem, longer, stopping=stopping, risk=0))
        add("long", seed, result.score, seconds, watched.evaluations)
    if case.prove:
        proof = certify(Problem(case.space, [case.limit], case.predictor), 60, case.space.genes([result.arch]))
        add("proof", 0, proof.found_percent, proof.seconds, 0)
        rows[-1]["bound"] = round(proof.bound_percent, 5)
        assert proof.proven
    return rows


def table(rows: pd.DataFrame) -> str:
    out = []
    for case, searches in rows.groupby("case", sort=False):
        best = searches["score"].max()
        methods = dict(iter(searches.groupby("method")))
        ours, published = methods["ofa-deploy"], methods["published"]
        quicker = published["cpu_seconds"].median() / ours["seconds_to_published"].median()
        out.append(
            {
                "case": case,
                "published": f"{published['score'].median():.3f}",
                "spread": f"{np.ptp(published['score']):.3f}",
                "s": f"{published['cpu_seconds'].median():.1f}",
                "as good in s": f"{ours['seconds_to_published'].median():.3f}",
                "times": f"{quicker:.0f}",
                "ofa-deploy": f"{ours['score'].median():.3f}",
                "s ": f"{ours['cpu_seconds'].median():.2f}",
                "best known": f"{best:.3f}",
                f"within {NEAR}": f"{(ours['score'] > best - NEAR).sum()}/{len(ours)}",
                "worst": f"{best - ours['score'].min():.4f}",
                "proved in s": f"{methods['proof']['cpu_seconds'].iloc[0]:.2f}" if "proof" in methods else "-",
            }
        )
    return pd.DataFrame(out).to_string(index=False)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--published", type=Path, help="folder of the published measurements")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--long", type=int, default=3, help="searches of a million evaluations")
    arguments = parser.parse_args()
    if not arguments.show:
        torch.set_num_threads(1)
        cases = [*(published_cases(arguments.published) if arguments.published else []), *shipped_cases()]
        for case in cases:
            path = result_path(BENCHMARK, *case.name.replace(", ", "_").replace(" ", "-").split("_"))
            if not path.exists():
                with threadpool_limits(1):
                    frame = pd.DataFrame(judge(case, arguments.seeds, arguments.long))
                write_table(path, frame)
    paths = sorted(RESULTS.glob(f"{BENCHMARK}_*.csv"))
    check_results(paths)
    print(table(pd.concat(map(read_table, paths), ignore_index=True)))
    print("\nScores in points, s: CPU seconds of one thread. To run it anew, remove the results first:")
    print("python benchmarks/search_quality.py --published FOLDER")


if __name__ == "__main__":
    run_telling(main)
