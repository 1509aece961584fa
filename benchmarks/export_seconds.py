"""Where the seconds of an export go: recalibration, writing a file of each format, and checking it.

The median of 200 networks of mbv3-w1.0 by MACs, with random weights and random images of its own size, as many as an
export takes: 2,000 training images, 256 of which int8 is calibrated on, and 2,000 held-out ones. CPU seconds of one
thread, imports left out. Takes about three minutes. Writes benchmarks/results/export-seconds_mbv3-w1.0.csv.

    python benchmarks/export_seconds.py [--resolution 224] [--show]
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import torch
from common import logger, machine_head, make_parser, print_results, result_path, run_telling, timed, write_table
from export_quality import middle

from ofa_deploy.data.dataset import RECALIBRATION, Dataset, Images
from ofa_deploy.export.checks import DROP_IMAGES
from ofa_deploy.export.formats import FORMATS
from ofa_deploy.export.run import check_content
from ofa_deploy.export.subject import Subject
from ofa_deploy.spaces.families import get_space
from ofa_deploy.supernet.evaluation import specialise
from ofa_deploy.supernet.network import Supernet

RESULT = result_path("export-seconds", "mbv3-w1.0")
WRITTEN = [name for name in FORMATS if name != "pte"]
"""`pte` needs a package that is no dependency."""


def noise(number: int, resolution: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 1000, number)
    return Images(rng.integers(0, 256, (number, 3, resolution, resolution), np.uint8), labels)


def made_up(train_images: int, heldout_images: int, resolution: int) -> Dataset:
    """So many images to train on and for checks, of noise."""
    train, heldout = noise(train_images, resolution, 0), noise(heldout_images, resolution, 1)
    classes = tuple(map(str, range(1000)))
    return Dataset(
        "noise", train, heldout, None, classes, (0.5,) * 3, (0.25,) * 3, complete=True, source="", licence=""
    )


def run(resolution: int) -> pd.DataFrame:
    torch.set_num_threads(1)
    space = get_space("mbv3-w1.0")
    arch = middle(space, [resolution])
    supernet = Supernet(space).initialise(0)
    few = made_up(40, 40, resolution)
    warm = Subject(specialise(supernet, arch, data=few), few)
    for name in WRITTEN:
        FORMATS[name].write(warm)  # so that imports are not counted
    data = made_up(RECALIBRATION, DROP_IMAGES, resolution)
    net, write = timed(lambda: specialise(supernet, arch, data=data))
    subject = Subject(net, data)
    rows = [("recalibration", write, timed(lambda: subject.logits(DROP_IMAGES))[1])]
    for name in WRITTEN:
        content, write = timed(partial(FORMATS[name].write, subject))
        rows.append((name, write, timed(partial(check_content, name, content, subject=subject, max_drop=np.inf))[1]))
        logger.info(f"{name}: done")
    frame = pd.DataFrame(rows, columns=["step", "write", "check"]).round(2)
    frame.insert(0, "arch", str(arch))
    frame.insert(1, "macs", int(space.macs(space.genes([arch]))[0]))
    return frame


def show(table: pd.DataFrame) -> None:
    size, macs = table.arch[0].split("_")[0], table.macs[0] / 1e6
    print(f"mbv3-w1.0, {size}, {macs:.0f} M MACs: CPU seconds to write a file, and to check it")
    print(f"{'':14}{'write':>8}{'check':>8}")
    files = table[table.step != "recalibration"]
    for row in table.itertuples():
        print(f"{row.step:14}{row.write:8.2f}{row.check:8.2f}")
    print(f"{'all files':14}{files.write.sum():8.2f}{files.check.sum():8.2f}")
    print("recalibration: on 2,000 images; its check: PyTorch's own answers for 2,000, which all checks share")
    print("run again with: python benchmarks/export_seconds.py")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--resolution", type=int, default=224, help="in pixels")
    options = parser.parse_args()
    if not options.show:
        write_table(RESULT, run(options.resolution), machine_head(("onnxruntime", "ai-edge-litert", "torch")))
    print_results([RESULT], show)


if __name__ == "__main__":
    run_telling(main)
