"""What progressive shrinking brings: the same networks trained three ways, each way with the same compute in all.

- progressive shrinking: `ofa-deploy train`'s short recipe, shortened;
- joint: from the first step four subnetworks a step are drawn from the whole space, without a teacher;
- alone: each network by itself, with a sixth of the compute.

Compute is counted in multiply-accumulates (forward 1, backward 2, the teacher's forward pass 1). The networks share
depth, kernel and expansion over their stages, from the smallest to the largest, at 28 pixels. Accuracy is top-1 on the
10,000 test images of Fashion-MNIST, batch norms recalibrated. The shipped supernet, which the whole short recipe made
of all 50,000 training images, is measured beside them. Needs the data set; two threads take about an hour a
seed, and a run that was killed goes on where it was. Writes benchmarks/results/progressive-shrinking_fmnist.csv and
a plot beside it.

    python benchmarks/progressive_shrinking.py [--seeds 2] [--images 10000] [--epochs 24] [--threads 2] [--show]
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from common import logger, make_parser, print_results, result_path, run_telling, shipped_weights, write_table

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.files.machine import this_machine
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.parts import Stage
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.evaluation import specialise, top1_percent
from ofa_deploy.supernet.recipes import Phase, Recipe, get_recipe
from ofa_deploy.supernet.training import train_supernet

RESULT = result_path("progressive-shrinking", "fmnist")
WORK = Path(".progressive-shrinking")
SIZES = ((2, 3, 3), (2, 5, 4), (3, 3, 4), (3, 5, 6), (4, 5, 4), (4, 7, 6))  # depth, kernel, expansion
METHODS = ("progressive shrinking", "joint", "alone")
SHIPPED = "shipped"


def network(space: SearchSpace, depth: int, kernel: int, expand: float) -> Arch:
    return space.check(Arch(space.resolutions[-1], (((kernel, expand),) * depth,) * len(space.stages)))


def only(space: SearchSpace, arch: Arch) -> SearchSpace:
    """The space that has just this network, at every resolution."""
    blocks = iter(arch.stages)

    def fixed(part: Stage) -> Stage:
        stage = next(blocks)
        (kernel, expand) = stage[0]
        return replace(part, depths=(len(stage),), kernels=(kernel,), expands=(expand,))

    return replace(space, parts=tuple(fixed(p) if isinstance(p, Stage) else p for p in space.parts))


def macs_an_image(space: SearchSpace, phase: Phase, *, taught: bool) -> float:
    """Expected multiply-accumulates that an image costs in a phase."""
    subspace = phase.subspace_of(space)
    drawn = space.genes(subspace.archs(subspace.sample(np.random.default_rng(0), 4000)))
    largest = np.mean(
        [space.macs(space.genes([space.extreme(largest=True, resolution=r)]))[0] for r in space.resolutions]
    )
    return 3 * phase.subnets * float(space.macs(drawn).mean()) + (float(largest) if taught else 0.0)


def compute(space: SearchSpace, recipe: Recipe, images: int) -> float:
    """Multiply-accumulates of a whole recipe."""
    return sum(
        phase.epochs * images * macs_an_image(space, phase, taught=recipe.teacher_epochs is not None and i > 0)
        for i, phase in enumerate(recipe.phases)
    )


def recipes(space: SearchSpace, epochs: int, images: int, seed: int) -> dict[str, dict[Arch | None, Recipe]]:
    """For each method its trainings: of the whole space (None) or of a network alone."""
    shrinking = replace(get_recipe("short").scaled(epochs), seed=seed)
    budget = compute(space, shrinking, images)
    first, last = shrinking.phases[0], shrinking.phases[-1]
    joint = replace(last, name="joint", epochs=1, lr=first.lr / 2, warmup=1)
    joint = replace(joint, epochs=round(budget / images / macs_an_image(space, joint, taught=False)))
    out: dict[str, dict[Arch | None, Recipe]] = {
        "progressive shrinking": {None: shrinking},
        "joint": {None: replace(shrinking, phases=(joint,))},
        "alone": {},
    }
    for size in SIZES:
        arch = network(space, *size)
        cost = macs_an_image(only(space, arch), first, taught=False)
        alone = replace(first, name="alone", epochs=max(2, round(budget / len(SIZES) / images / cost)))
        out["alone"][arch] = replace(shrinking, phases=(alone,))
    return out


def top1(path: Path, space: SearchSpace, arch: Arch, data: Dataset) -> float:
    """Top-1 of a network on the test images, in percent."""
    assert data.test is not None
    subnet = specialise(checkpoint.load_supernet(path, space), arch, data=data)
    return top1_percent(subnet, data, data.test)


def run(seeds: int, images: int, epochs: int) -> pd.DataFrame:
    space = get_space("fmnist")
    data = load_data("fmnist", space, training=True)
    data = replace(data, train=data.train[:images])
    rows = []
    for seed in range(seeds):
        for method, trainings in recipes(space, epochs, images, seed).items():
            for arch, recipe in trainings.items():
                part = space if arch is None else only(space, arch)
                path = WORK / f"{method.replace(' ', '-')}_{arch or 'all'}_{seed}_{images}_{epochs}.safetensors"
                logger.info(f"-- {method}, seed {seed}, {arch or 'whole space'}: {recipe.epochs} epochs")
                done = path.with_suffix(".result.json")
                if not done.exists():
                    if not path.exists():
                        train_supernet(part, data, recipe=recipe, out=path)
                    seconds = artifacts.describe(path, checkpoint.KIND)["seconds"]
                    archs = [network(space, *size) for size in SIZES] if arch is None else [arch]
                    accuracies = {str(a): top1(path, part, a, data) for a in archs}
                    atomic.write(done, json.dumps({"top1": accuracies, "seconds": seconds}))
                result = json.loads(done.read_text())
                for name, percent in result["top1"].items():
                    genes = space.genes([Arch.parse(name)])
                    rows.append(
                        {
                            "method": method,
                            "seed": seed,
                            "arch": name,
                            "macs": int(space.macs(genes)[0]),
                            "top1_percent": round(percent, 2),
                            "epochs": recipe.epochs,
                            "seconds": result["seconds"],
                            "tera_macs": round(compute(part, recipe, images) / 1e12, 1),
                        }
                    )
    return pd.concat([pd.DataFrame(rows), shipped(space, data)], ignore_index=True)


def shipped(space: SearchSpace, data: Dataset) -> pd.DataFrame:
    """The same networks of the supernet that ships."""
    path = shipped_weights(space)
    description = artifacts.describe(path, checkpoint.KIND)
    archs = [network(space, *size) for size in SIZES]
    return pd.DataFrame(
        {
            "method": SHIPPED,
            "seed": description["recipe"]["seed"],
            "arch": list(map(str, archs)),
            "macs": space.macs(space.genes(archs)),
            "top1_percent": [round(top1(path, space, a, data), 2) for a in archs],
            "epochs": description["last_epoch"]["epoch"],
            "seconds": description["seconds"],
            "tera_macs": round(compute(space, get_recipe("short"), description["training_images"]) / 1e12, 1),
        }
    )


def show(table: pd.DataFrame) -> None:
    """Print mean and range over the seeds, and the difference to progressive shrinking."""
    sizes = table[["arch", "macs"]].drop_duplicates().sort_values("macs")
    print(f"{'network':>14} {'MACs':>8}  " + "".join(f"{m:>26}" for m in (*METHODS, SHIPPED)))
    for row in sizes.itertuples():
        cells = []
        for method in (*METHODS, SHIPPED):
            percent = table[(table.method == method) & (table.arch == row.arch)].top1_percent
            many = f" ({percent.min():.2f}-{percent.max():.2f})" if len(percent) > 1 else ""
            cells.append(f"{percent.mean():.2f}{many}")
        stage = Arch.parse(row.arch).stages[0]
        name = f"d{len(stage)} k{stage[0][0]} e{stage[0][1]}"
        print(f"{name:>14} {row.macs / 1e6:6.2f} M  " + "".join(f"{c:>26}" for c in cells))
    wide = table.pivot_table(index=["seed", "arch", "macs"], columns="method", values="top1_percent").reset_index()
    for other in METHODS[1:]:
        gain = wide[METHODS[0]] - wide[other]
        small = gain[wide.macs <= sizes.macs.iloc[2]]
        print(
            f"progressive shrinking minus {other}: {gain.mean():+.2f} points over all networks and seeds, "
            f"{small.mean():+.2f} over the three smallest ({small.min():+.2f} to {small.max():+.2f})"
        )
    spent = table.drop_duplicates(["method", "seed", "epochs", "tera_macs"]).groupby(["method", "seed"]).tera_macs.sum()
    print("compute in 10^12 MACs:", ", ".join(f"{m} {spent[m].mean():.0f}" for m in (*METHODS, SHIPPED)))
    seeds = table[table.method == METHODS[0]].seed.nunique()
    over = f"{seeds} seed{'s' * (seeds > 1)}"
    print(f"top-1 in percent on the test images, mean (lowest-highest) over {over}; the shipped supernet is one")


def plot(table: pd.DataFrame, path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for method, marker in zip((*METHODS, SHIPPED), "osvd", strict=True):
        some = table[table.method == method].groupby("macs").top1_percent
        mean = some.mean()
        reach = np.abs(np.stack([mean - some.min(), some.max() - mean]))
        axes.errorbar(mean.index / 1e6, mean, yerr=reach, marker=marker, capsize=3, label=method)
    axes.set(xlabel="million MACs", ylabel="top-1 on the test images, %", xscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if not options.show:
        torch.set_num_threads(options.threads)
        table = run(options.seeds, options.images, options.epochs)
        cpu = this_machine()["cpu"]
        conditions = f"{options.images} training images, short recipe of {options.epochs} epochs"
        write_table(RESULT, table, f"{conditions}, {options.threads} threads, {cpu}")
        plot(table, RESULT.with_suffix(".png"))
    print_results([RESULT], show)
    print(f"every network: {RESULT}; plot beside it; run again with: python benchmarks/progressive_shrinking.py")


if __name__ == "__main__":
    run_telling(main)
