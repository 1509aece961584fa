"""What exported files keep of a network: accuracy, size, and how int8's latency compares with fp32's.

Networks of the shipped supernet, each in every format that a runtime runs, and as torch computes it: correct ones of
all test images, bytes, and latency in the shares of the same runtime's fp32 file, all files interleaved in one run
(smallest and typical of the rounds' medians). `tflite, 7x7 as one` is an fp32 file whose windows of 7x7 are not written
as three small ones. Takes about five minutes. Writes benchmarks/results/export-quality_fmnist_PROCESSOR.csv.

    python benchmarks/export_quality.py [--rounds 16] [--show]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from ofa_deploy.data.loading import load_data
from ofa_deploy.device.devices import DEVICES, Device
from ofa_deploy.export.formats import FORMATS
from ofa_deploy.export.subject import Subject
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.files.machine import installed_version, this_machine
from ofa_deploy.graphs import tflite
from ofa_deploy.graphs.formats import format_of
from ofa_deploy.latency.comparison import side_by_side
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.evaluation import count_correct_by_session, specialise

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"
PREFIX = "export-quality_fmnist_"
TIMED = ("onnx", "onnx-int8", "tflite", "tflite-int8")
WHOLE = "tflite, 7x7 as one"


class Whole(tflite.Graph):
    """A graph with depthwise windows as they are."""

    def conv(self, x: int, name: str, weight: np.ndarray, bias: np.ndarray, act: str, op: Op | None) -> int:
        return self.act(self.window(x, name, weight, bias, act, op), act)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What some work gives, and its CPU seconds."""
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def middle(space: SearchSpace, resolutions: Sequence[int] | None = None) -> Arch:
    """The median of 200 random networks by MACs."""
    drawn = space.archs(space.sample(np.random.default_rng(0), 200, resolutions))
    return sorted(drawn, key=lambda arch: int(space.macs(space.genes([arch]))[0]))[100]


def networks(space: SearchSpace) -> dict[str, Arch]:
    """The smallest, the middle one, the largest, and the largest with no window above 5x5."""
    largest = space.extreme(True)
    fives = Arch.parse(str(largest).replace("k7", "k5"))
    return {"small": space.extreme(False), "middle": middle(space), "large": largest, "large, 5x5": fives}


def correct(subject: Subject, content: bytes | None, device: Device = DEVICES["cpu"]) -> int:
    """Test images that a file, or torch where there is none, classifies correctly."""
    images, size = subject.data.test, subject.net.arch.resolution
    assert images is not None
    if content is not None:
        run = format_of(device).taking_nchw(device.session(content, 1))
        return count_correct_by_session(run, subject.data, images=images, resolution=size, batch=1)
    with torch.inference_mode():
        return count_correct_by_session(
            lambda x: subject.net(torch.from_numpy(x)).numpy(),
            subject.data,
            images=images,
            resolution=size,
            batch=100,
        )


def measured(name: str, subject: Subject, rounds: int) -> list[dict[str, object]]:
    """A row for each format of a network."""
    net = subject.net
    contents = {one: FORMATS[one].write(subject) for one in TIMED}
    contents[WHOLE] = tflite.emit(net.space.walk(net.arch), subject.weights, forms=Whole)
    devices = {form: DEVICES["cpu" if form.startswith("onnx") else "tflite"] for form in contents}
    x = np.random.default_rng(0).standard_normal((1, 1, net.arch.resolution, net.arch.resolution)).astype(np.float32)
    sessions = {}
    for one, content in contents.items():
        sessions[one] = devices[one].session(content, 1), format_of(devices[one]).native(x)
    times = side_by_side(sessions, 1, rounds)
    macs = int(net.space.macs(net.space.genes([net.arch]))[0])
    about = {"network": name, "arch": str(net.arch), "macs": macs}
    reference = correct(subject, None)
    rows: list[dict[str, object]] = [{**about, "format": "torch", "correct": reference, "drop_points": 0.0}]
    for one, content in contents.items():
        fp32 = times[devices[one].file_format]
        found = correct(subject, content, devices[one])
        rows.append(
            {
                **about,
                "format": one,
                "correct": found,
                "drop_points": round(100 * (reference - found) / len(subject.data.test or ()), 2),
                "bytes": len(content),
                "latency_ratio": round(times[one]["latency_ms"] / fp32["latency_ms"], 3),
                "typical_ratio": round(times[one]["typical_ms"] / fp32["typical_ms"], 3),
            }
        )
    return rows


def subjects() -> Iterator[tuple[str, Subject]]:
    """The networks, cut out of the shipped supernet and recalibrated, smallest first."""
    space = get_space("fmnist")
    net = checkpoint.load_supernet(artifacts.shipped("supernets") / checkpoint.file_name(space), space)
    images = load_data(None, space)
    for name, arch in networks(space).items():
        yield name, Subject(specialise(net, arch, data=images), images)


def header(packages: Sequence[str]) -> str:
    """The line above results: what they were measured on."""
    versions = ", ".join(f"{name} {installed_version(name)}" for name in packages)
    return f"# one thread, {this_machine()['cpu']}, a shared machine; {versions}\n"


def run(rounds: int) -> pd.DataFrame:
    torch.set_num_threads(1)
    rows = []
    for name, subject in subjects():
        rows += measured(name, subject, rounds)
        print(f"{name}: done", flush=True)
    return pd.DataFrame(rows)


def show(path: Path) -> None:
    table = pd.read_csv(path, comment="#")
    print(path.read_text().splitlines()[0])
    head = f"{'network':12}{'MACs':>10}  {'format':24}{'correct':>9}{'drop':>8}{'MB':>7}"
    print(f"{head}{'latency / fp32':>16}{'typical':>9}")
    for row in table.itertuples():
        timed = (
            "" if np.isnan(row.bytes) else f"{row.bytes / 1e6:7.2f}{row.latency_ratio:16.2f}{row.typical_ratio:9.2f}"
        )
        print(f"{row.network:12}{row.macs / 1e6:8.2f} M  {row.format:24}{row.correct:9}{row.drop_points:8.2f}{timed}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--show", action="store_true", help="only print the committed results")
    options = parser.parse_args()
    if not options.show:
        processor = artifacts.slug(this_machine()["cpu"])
        head = header(("onnxruntime", "ai-edge-litert", "torch"))
        atomic.write(RESULTS / f"{PREFIX}{processor}.csv", head + run(options.rounds).to_csv(index=False))
    found = sorted(RESULTS.glob(f"{PREFIX}*.csv"))
    for path in found:
        show(path)
    print("correct: of 10,000 test images; drop: points of top-1 below torch")
    print("run again with" if found else "no results yet; run", end="")
    print(": python benchmarks/export_quality.py")


if __name__ == "__main__":
    main()
