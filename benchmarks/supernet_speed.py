"""What elasticity costs: the supernet against the plain networks cut out of it, on one thread.

Three claims, each a ratio of thread CPU times taken in turn in one run:
forward(x, arch) against the extracted network's forward pass, a training step of the supernet against the same step of
plain PyTorch networks, and the time that subnet(arch) takes to cut out a network. Writes
benchmarks/results/supernet-speed_cpu_1t.csv.

    python benchmarks/supernet_speed.py [--repeats 9] [--show]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from common import check_results, head_of, make_parser, read_table, result_path, run_telling, timed, write_table
from torch import nn
from torch.nn import functional as F

from ofa_deploy.files.machine import this_machine
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.supernet.epochs import sgd
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.recipes import Phase, Recipe

RESULT = result_path("supernet-speed", "cpu", "1t")
BATCH = 64


def interleaved(repeats: int, *works: Callable[[], object]) -> list[np.ndarray]:
    """CPU milliseconds of each piece of work, shape (repeats,), taken in turn after one warm-up each."""
    for work in works:
        work()
    rows = np.array([[1e3 * timed(work, time.thread_time)[1] for work in works] for _ in range(repeats)])
    return list(rows.T)


def row(what: str, space: str, arch: Arch, ours: np.ndarray, other: np.ndarray | None) -> dict[str, object]:
    ratio = np.array([np.nan]) if other is None else ours / other
    return {
        "what": what,
        "space": space,
        "arch": str(arch),
        "ours_ms": round(float(np.median(ours)), 2),
        "plain_ms": None if other is None else round(float(np.median(other)), 2),
        "ratio": None if other is None else round(float(np.median(ratio)), 3),
        "ratio_low": None if other is None else round(float(np.quantile(ratio, 0.1)), 3),
        "ratio_high": None if other is None else round(float(np.quantile(ratio, 0.9)), 3),
    }


def forward(name: str, resolution: int, repeats: int) -> list[dict[str, object]]:
    space = get_space(name)
    net = Supernet(space).initialise(0).eval().to(memory_format=torch.channels_last)
    drawn = space.archs(space.sample(np.random.default_rng(0), 2, [resolution]))
    rows = []
    x = torch.randn(BATCH, space.in_channels, resolution, resolution).to(memory_format=torch.channels_last)
    for arch in [
        space.extreme(largest=False, resolution=resolution),
        *drawn,
        space.extreme(largest=True, resolution=resolution),
    ]:
        plain = net.subnet(arch)
        with torch.inference_mode():
            ours, other = interleaved(repeats, partial(net, x, arch), partial(plain, x))
        rows.append(row("forward", name, arch, ours, other))
    first, second = drawn
    pair = (net.subnet(first), net.subnet(second))
    with torch.inference_mode():
        ours, other = interleaved(repeats, lambda: (net(x, first), net(x, second)), lambda: (pair[0](x), pair[1](x)))
    rows.append(row("forward, new network each batch", name, first, ours, other))
    return rows


def step(name: str, resolution: int, repeats: int) -> list[dict[str, object]]:
    """Forward, backward and the optimiser's step for two random networks, as in training."""
    space = get_space(name)
    net = Supernet(space).initialise(0).train().to(memory_format=torch.channels_last)
    archs = space.archs(space.sample(np.random.default_rng(1), 2, [resolution]))
    recipe = Recipe((Phase("step", 1, 1e-6),))
    x = torch.randn(BATCH, space.in_channels, resolution, resolution).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % space.classes

    def steps(networks: list[tuple[nn.Module, tuple[Arch, ...]]]) -> Callable[[], None]:
        optimizers = {id(module): sgd(module, recipe) for module, _ in networks}

        def work() -> None:
            for each in optimizers.values():
                each.zero_grad(set_to_none=False)
            for module, arch in networks:
                F.cross_entropy(module(x, *arch), labels, label_smoothing=0.1).backward()
            for each in optimizers.values():
                each.step()

        return work

    ours, other = interleaved(
        repeats, steps([(net, (arch,)) for arch in archs]), steps([(net.subnet(arch), ()) for arch in archs])
    )
    return [row("training step", name, archs[0], ours, other)]


def cutting(name: str, repeats: int) -> list[dict[str, object]]:
    space = get_space(name)
    net, arch = Supernet(space).initialise(0), space.extreme(largest=True)
    (ours,) = interleaved(repeats, lambda: net.subnet(arch))
    return [row("subnet", name, arch, ours, None)]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    if not options.show:
        measure(options.repeats)
    check_results([RESULT])
    print(f"{head_of(RESULT)}\n")
    print(read_table(RESULT).drop(columns="arch").to_string(index=False, na_rep="-"))
    print(
        "\nratio: ours to plain, median and 10 to 90 % of the repeats. Aims: forward at most 1.05, training step at "
        "most 1.1, subnet of mbv3-w1.0 below 40 ms. Run again with: python benchmarks/supernet_speed.py"
    )


def measure(repeats: int) -> None:
    torch.set_num_threads(1)
    rows = [*cutting("mbv3-w1.0", 3 * repeats), *cutting("fmnist", 3 * repeats)]
    for name, resolution in (("fmnist", 28), ("fmnist", 16), ("mbv3-w1.0", 128)):
        rows += forward(name, resolution, repeats) + step(name, resolution, repeats)
    table = pd.DataFrame(rows)
    head = f"{this_machine()['cpu']}, torch {torch.__version__}, 1 thread, batch {BATCH}, CPU ms, channels last"
    write_table(RESULT, table, head)


if __name__ == "__main__":
    run_telling(main)
