"""What measuring a subnetwork costs, and what each part of sharing the work saves.

Groups of the trie design, as `ofa-deploy sample --number 16000 --design trie` measures them, against the plain loop
over `subnet(arch)` on the same images in the same batches. Parts are added one after the other: channels-last
memory, folded batch norms, shared beginnings. The loops take a few networks of each group, sharing takes all of it;
all in one process of one thread, interleaved, CPU seconds a network. The counts of correct images must be the same.
Takes about two minutes a group. Writes benchmarks/results/sampling-speed_fmnist.csv.

    python benchmarks/sampling_speed.py [--groups 8] [--networks 4] [--show]
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from common import logger, make_parser, print_results, result_path, run_telling, shipped_supernet, timed, write_table

from ofa_deploy.accuracy import prefixes
from ofa_deploy.accuracy.designs import draw
from ofa_deploy.accuracy.measure import BATCH_PIXELS, classified
from ofa_deploy.data.dataset import Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.files.machine import this_machine
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.recalibration import recalibrate

RESULT = result_path("sampling-speed", "fmnist")
PARTS = ("loop over subnet(arch)", "+ channels last", "+ folded batch norms", "+ shared beginnings")


def loop(net: Supernet, archs: Sequence[Arch], images: Dataset, *, channels_last: bool, fold: bool) -> list[int]:
    """Correct held-out images of each network, one network after the other."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    counts = []
    for arch in archs:
        r = arch.resolution
        batch = max(16, BATCH_PIXELS // r**2)
        with torch.inference_mode():
            plain = net.subnet(arch).to(memory_format=layout)
            recalibrate(plain, [x.contiguous(memory_format=layout) for x in images.recalibration(r)])
            plain.eval()
            if fold:
                prefixes.fold(plain)
            right = 0
            for i in range(0, len(images.heldout), batch):
                part = images.heldout[i : i + batch]
                x = images.tensor(part.pixels, r).contiguous(memory_format=layout)
                right += int((plain(x).argmax(1) == torch.from_numpy(part.labels)).sum())
        counts.append(right)
    return counts


def run(groups: int, networks: int) -> pd.DataFrame:
    torch.set_num_threads(1)
    space = get_space("fmnist")
    net = shipped_supernet(space)
    images = load_data(None, space)
    drawn = [group for group in draw(space, "trie", number=16_000, seed=0) if len(group) > 100]
    rng = np.random.default_rng(0)
    rows = []
    for number in range(groups):
        archs = drawn[number * len(drawn) // groups]
        some = rng.choice(len(archs), networks, replace=False)
        few = [archs[i] for i in some]
        ways: dict[str, Callable[[], list[int]]] = {
            PARTS[0]: lambda few=few: loop(net, few, images, channels_last=False, fold=False),
            PARTS[1]: lambda few=few: loop(net, few, images, channels_last=True, fold=False),
            PARTS[2]: lambda few=few: loop(net, few, images, channels_last=True, fold=True),
            PARTS[3]: lambda archs=archs: classified(net, archs, data=images).sum(axis=1).tolist(),
        }
        counts = {}
        for part in rng.permutation(PARTS).tolist():
            correct, seconds = timed(ways[part], time.thread_time)
            counts[part] = [correct[i] for i in some] if part == PARTS[3] else correct
            measured = len(archs) if part == PARTS[3] else networks
            rows.append(
                {
                    "group": number,
                    "resolution": archs[0].resolution,
                    "part": part,
                    "networks": measured,
                    "cpu_seconds_each": round(seconds / measured, 4),
                }
            )
        assert counts[PARTS[2]] == counts[PARTS[3]], "shared beginnings changed a count"
        differ = [abs(a - b) for a, b in zip(counts[PARTS[0]], counts[PARTS[3]], strict=True)]
        rows[-1]["largest_difference"] = max(differ)
        rows[-1]["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        alone = float(space.macs(space.genes(archs)).sum())
        rows[-1]["macs_saved"] = round(1 - prefixes.macs(prefixes.trie(space, archs)) / alone, 4)
        logger.info(f"{number + 1}/{groups}")
    return pd.DataFrame(rows)


def show(table: pd.DataFrame) -> None:
    wide = table.pivot_table(index="group", columns="part", values="cpu_seconds_each")[list(PARTS)]
    print(f"{'':24}{'CPU s a network':>24}{'times faster than the loop':>36}")
    for part in PARTS:
        each, ratio = wide[part], wide[PARTS[0]] / wide[part]
        print(
            f"{part:24}{each.median():10.2f} ({each.min():.2f}-{each.max():.2f})"
            f"{ratio.median():22.2f} ({ratio.min():.2f}-{ratio.max():.2f})"
        )
    print(
        f"median (lowest-highest) of {len(wide)} groups; shared beginnings save "
        f"{table.macs_saved.mean():.0%} of the MACs; counts differ by at most {table.largest_difference.max():.0f} "
        f"images from the plain loop's, by none from the folded one's; the process needed at most "
        f"{table.peak_memory_mb.max():.0f} MB"
    )
    print("run again with: python benchmarks/sampling_speed.py")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--networks", type=int, default=4)
    options = parser.parse_args()
    if not options.show:
        table = run(options.groups, options.networks)
        write_table(RESULT, table, f"one thread, {this_machine()['cpu']}")
    print_results([RESULT], show)


if __name__ == "__main__":
    run_telling(main)
