"""What exported files keep of a network: accuracy, size, and how int8's latency compares with fp32's.

Networks of the shipped supernet, each in every format that a runtime runs, and as torch computes it: correct ones of
all test images, bytes, and latency in the shares of the same runtime's fp32 file, all files interleaved in one run
(smallest and typical of the rounds' medians). `tflite, 7x7 as one` is an fp32 file whose windows of 7x7 are not written
as three small ones. Takes about five minutes. Writes benchmarks/results/export-quality_fmnist_PROCESSOR.csv.

    python benchmarks/export_quality.py [--rounds 16] [--show]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from common import (
    RESULTS,
    logger,
    machine_head,
    make_parser,
    print_results,
    processor,
    result_path,
    run_telling,
    shipped_supernet,
    write_table,
)

from ofa_deploy.data.loading import load_data
from ofa_deploy.device.devices import DEVICES, Device
from ofa_deploy.export.formats import FORMATS
from ofa_deploy.export.subject import Subject
from ofa_deploy.graphs import tflite
from ofa_deploy.graphs.formats import format_of
from ofa_deploy.graphs.tflite_graph import Arrays, Graph
from ofa_deploy.latency.comparison import ComparisonPlan, side_by_side
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet.evaluation import count_correct_by_session, specialise

BENCHMARK = "export-quality", "fmnist"
TIMED = ("onnx", "onnx-int8", "tflite", "tflite-int8")
WHOLE = "tflite, 7x7 as one"


class Whole(Graph):
    """A graph with depthwise windows as they are."""

    def conv(self, x: int, name: str, arrays: Arrays, *, act: str, op: Op | None = None) -> int:
        return self.act(self.window(x, name, arrays, act=act, op=op), act)


def middle(space: SearchSpace, resolutions: Sequence[int] | None = None) -> Arch:
    """The median of 200 random networks by MACs."""
    drawn = space.archs(space.sample(np.random.default_rng(0), 200, resolutions))
    return sorted(drawn, key=lambda arch: int(space.macs(space.genes([arch]))[0]))[100]


def networks(space: SearchSpace) -> dict[str, Arch]:
    """The smallest, the middle one, the largest, and the largest with no window above 5x5."""
    largest = space.extreme(largest=True)
    fives = Arch.parse(str(largest).replace("k7", "k5"))
    return {"small": space.extreme(largest=False), "middle": middle(space), "large": largest, "large, 5x5": fives}


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
    contents = {name: FORMATS[name].write(subject) for name in TIMED}
    contents[WHOLE] = tflite.emit(net.space.walk(net.arch), subject.weights, forms=Whole)
    devices = {form: DEVICES["cpu" if form.startswith("onnx") else "tflite"] for form in contents}
    x = np.random.default_rng(0).standard_normal((1, 1, net.arch.resolution, net.arch.resolution)).astype(np.float32)
    sessions = {}
    for form, content in contents.items():
        sessions[form] = devices[form].session(content, 1), format_of(devices[form]).native(x)
    times = side_by_side(sessions, 1, plan=ComparisonPlan(rounds=rounds))
    macs = int(net.space.macs(net.space.genes([net.arch]))[0])
    network = {"network": name, "arch": str(net.arch), "macs": macs}
    reference = correct(subject, None)
    rows: list[dict[str, object]] = [{**network, "format": "torch", "correct": reference, "drop_points": 0.0}]
    for form, content in contents.items():
        fp32 = times[devices[form].file_format]
        number = correct(subject, content, devices[form])
        rows.append(
            {
                **network,
                "format": form,
                "correct": number,
                "drop_points": round(100 * (reference - number) / len(subject.data.test or ()), 2),
                "bytes": len(content),
                "latency_ratio": round(times[form]["latency_ms"] / fp32["latency_ms"], 3),
                "typical_ratio": round(times[form]["typical_ms"] / fp32["typical_ms"], 3),
            }
        )
    return rows


def subjects() -> Iterator[tuple[str, Subject]]:
    """The networks, cut out of the shipped supernet and recalibrated, smallest first."""
    space = get_space("fmnist")
    net = shipped_supernet(space)
    images = load_data(None, space)
    for name, arch in networks(space).items():
        yield name, Subject(specialise(net, arch, data=images), images)


def run(rounds: int) -> pd.DataFrame:
    torch.set_num_threads(1)
    rows = []
    for name, subject in subjects():
        rows += measured(name, subject, rounds)
        logger.info(f"{name}: done")
    return pd.DataFrame(rows)


def show(table: pd.DataFrame) -> None:
    head = f"{'network':12}{'MACs':>10}  {'format':24}{'correct':>9}{'drop':>8}{'MB':>7}"
    print(f"{head}{'latency / fp32':>16}{'typical':>9}")
    for row in table.itertuples():
        timed = (
            "" if np.isnan(row.bytes) else f"{row.bytes / 1e6:7.2f}{row.latency_ratio:16.2f}{row.typical_ratio:9.2f}"
        )
        print(f"{row.network:12}{row.macs / 1e6:8.2f} M  {row.format:24}{row.correct:9}{row.drop_points:8.2f}{timed}")
    print()


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    options = parser.parse_args()
    if not options.show:
        head = machine_head(("onnxruntime", "ai-edge-litert", "torch"))
        write_table(result_path(*BENCHMARK, processor()), run(options.rounds), head)
    print_results(sorted(RESULTS.glob(result_path(*BENCHMARK, "*").name)), show)
    print("correct: of 10,000 test images; drop: points of top-1 below torch")
    print("run again with: python benchmarks/export_quality.py")


if __name__ == "__main__":
    run_telling(main)
