"""The TFLite files that ofa-deploy emits beside those that litert-torch converts from the same PyTorch networks.

For networks of the shipped supernet: the largest difference of their outputs on 256 held-out images, operators, parts
that XNNPACK takes (one is best), bytes, CPU seconds to make the file, and latency, both interleaved in one run. Needs
Google's litert-torch, which is not a dependency (pip install litert-torch, best in an environment of its own). Takes
about two minutes. Writes benchmarks/results/converters_fmnist.csv.

    python benchmarks/converters.py [--rounds 16] [--show]
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import machine_head, make_parser, print_results, result_path, run_telling, timed, write_table
from export_quality import subjects

from ofa_deploy.device.tflite import interpreter_class, start
from ofa_deploy.export.checks import PARITY_IMAGES
from ofa_deploy.export.subject import Subject
from ofa_deploy.graphs import tflite
from ofa_deploy.latency.comparison import ComparisonPlan, side_by_side
from ofa_deploy.supernet.network import Subnet

RESULT = result_path("converters", "fmnist")
OURS, THEIRS = "ofa-deploy", "litert-torch"


def converted(net: Subnet) -> bytes:
    """What litert-torch makes of a network; it takes images channels first, as PyTorch does."""
    import litert_torch

    size = net.arch.resolution
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        litert_torch.convert(net.eval(), (torch.zeros(1, net.space.in_channels, size, size),)).export(str(file))
        return file.read_bytes()


def operators(content: bytes, *, delegated: bool) -> Counter[str]:
    """Operators of a file by kind, before or after XNNPACK has taken its own."""
    from ai_edge_litert.interpreter import OpResolverType

    kind = OpResolverType.AUTO if delegated else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = interpreter_class()(model_content=content, num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    return Counter(op["op_name"] for op in interpreter._get_ops_details())


def measured(name: str, subject: Subject, rounds: int) -> list[dict[str, object]]:
    """A row for each maker of a network's file."""
    net, contents, seconds = subject.net, {}, {}
    makers = {
        OURS: lambda: tflite.emit(net.space.walk(net.arch), subject.weights, notes=subject.notes),
        THEIRS: lambda: converted(net),
    }
    for maker, make in makers.items():
        contents[maker], seconds[maker] = timed(make)
    images = subject.data.tensor(subject.data.heldout.pixels[:PARITY_IMAGES], net.arch.resolution).numpy()
    layouts = {OURS: np.ascontiguousarray(images.transpose(0, 2, 3, 1)), THEIRS: images}
    sessions = {maker: (start(contents[maker], 1), layouts[maker][:1]) for maker in contents}
    outputs = {
        maker: np.concatenate([run(image[None]) for image in layouts[maker]]) for maker, (run, _) in sessions.items()
    }
    times = side_by_side(sessions, 1, plan=ComparisonPlan(rounds=rounds))
    rows: list[dict[str, object]] = []
    for maker, content in contents.items():
        rows.append(
            {
                "network": name,
                "arch": str(net.arch),
                "maker": maker,
                "operators": operators(content, delegated=False).total(),
                "parts": operators(content, delegated=True)["DELEGATE"],
                "left": operators(content, delegated=True).total(),
                "bytes": len(content),
                "cpu_seconds": round(seconds[maker], 3),
                "latency_ms": times[maker]["latency_ms"],
                "typical_ms": times[maker]["typical_ms"],
                "max_difference": float(np.abs(outputs[OURS] - outputs[THEIRS]).max()),
            }
        )
    return rows


def run(rounds: int) -> pd.DataFrame:
    torch.set_num_threads(1)
    measured(*next(subjects()), 1)  # so that imports are not counted
    return pd.DataFrame([row for name, subject in subjects() for row in measured(name, subject, rounds)])


def show(table: pd.DataFrame) -> None:
    print(
        f"{'network':12} {'made by':14}{'operators':>10}{'parts':>7}{'MB':>7}{'CPU s':>8}{'ms':>9}  outputs differ by"
    )
    for row in table.itertuples():
        print(
            f"{row.network:12} {row.maker:14}{row.operators:10}{row.parts:7}{row.bytes / 1e6:7.2f}"
            f"{row.cpu_seconds:8.3f}{row.latency_ms:9.4f}  {row.max_difference:.1g}"
        )
    print("parts: that XNNPACK takes; run again with: python benchmarks/converters.py (needs litert-torch)")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    options = parser.parse_args()
    if not options.show:
        write_table(RESULT, run(options.rounds), machine_head(("litert-torch", "ai-edge-litert", "torch")))
    print_results([RESULT], show)


if __name__ == "__main__":
    run_telling(main)
