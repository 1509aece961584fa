"""What a release ships and writes, kept for ever: every later release must read it and find the same.

`python -m tests.release 0.1.0` makes the files of a release in tests/data/releases/0.1.0, once, when it is published:
copies of what it ships, and what its commands write. `expected.json` holds what that release read in them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.cli import main as command_line
from ofa_deploy.data.loading import load_data
from ofa_deploy.files import artifacts, atomic, json_text
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.result import load_results
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint

DATA = Path(__file__).parent / "data" / "releases"
Archs = dict[str, list[str]]
NUMBER = 4
"""Architectures of each space, of which predictions and latencies are kept."""


def found_in(folder: Path, archs: Archs) -> dict[str, Any]:
    """What the files of a release say, by name."""
    out: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".csv", ".safetensors", ".npz") or path.parent.name == "results":
            out[name] = READERS[path.relative_to(folder).parts[0]](path, archs)
    return out


def space_of(path: Path) -> SearchSpace:
    """Of the file, by the JSON beside it."""
    return get_space(json.loads(path.with_suffix(".json").read_text())["space"])


def genes(path: Path, archs: Archs) -> Any:
    space = space_of(path)
    return space.genes(list(map(Arch.parse, archs[space.name])))


def table(path: Path, archs: Archs) -> Any:
    found = LatencyTable.load(path, space_of(path))
    return [found.latency_ms(genes(path, archs)).tolist(), dict(found.conditions), dict(found.error)]


def samples(path: Path, archs: Archs) -> Any:
    found = Samples.load(path, space_of(path))
    return [len(found), str(found.space.archs(found.genes[:1])[0]), float(found.top1_percent.sum())]


def predictor(path: Path, archs: Archs) -> Any:
    mean, std = Predictor.load(path, space_of(path)).predict(genes(path, archs), return_std=True)
    return [mean.tolist(), std.tolist()]


def predictor_or_samples(path: Path, archs: Archs) -> Any:
    return (samples if path.suffix == ".csv" else predictor)(path, archs)


def supernet_or_log(path: Path, archs: Archs) -> Any:
    if path.suffix == ".csv":  # of the training: for people
        return len(path.read_text().splitlines())
    space = space_of(path)
    net = checkpoint.load_supernet(path, space).eval()
    arch = space.extreme(largest=True, resolution=space.resolutions[0])
    return logits(net.subnet(arch).eval(), space, arch.resolution)


def subnetwork(path: Path, archs: Archs) -> Any:
    net = checkpoint.load_subnet(path)
    return logits(net, net.space, net.arch.resolution)


def logits(net: torch.nn.Module, space: SearchSpace, size: int) -> Any:
    x = torch.linspace(-1, 1, space.in_channels * size**2).reshape(1, space.in_channels, size, size)
    with torch.inference_mode():
        return net(x)[0].tolist()


def images(path: Path, archs: Archs) -> Any:
    found = load_data(str(path), get_space("fmnist"))
    return [found.sha256(), list(found.mean), list(found.std), len(found.heldout), list(found.classes)]


def results(path: Path, archs: Archs) -> Any:
    return [[str(one.arch), one.score, one.limits[0].predicted, len(one.front)] for one in load_results(path)]


READERS = {
    "lut": table,
    "predictors": predictor_or_samples,
    "supernets": supernet_or_log,
    "models": subnetwork,
    "images": images,
    "results": results,
}
"""What reads the files of each folder."""


def make(folder: Path) -> None:
    """Write the files of this release."""
    for kind in ("lut", "predictors", "supernets"):
        (folder / kind).mkdir(parents=True)
        for path in artifacts.shipped(kind).iterdir():
            if path.suffix in (".csv", ".json", ".safetensors") and "images" not in path.name:
                shutil.copy(path, folder / kind)
    os.chdir(folder)
    rng = np.random.default_rng(0)
    np.savez("own.npz", images=rng.integers(0, 256, (420, 28, 28), np.uint8), labels=np.arange(420) % 10)
    say("pack-data", "--data", "own.npz", "--out", "images/fmnist-images.npz")
    Path("own.npz").unlink()
    lut = next(Path("lut").glob("fmnist_cpu_1t_*.csv"))
    say("search", "--lut", lut, "--latency", "30%", "--out", "results/fmnist.json")
    say("search", "--lut", lut, "--latency", "30%", "--front", "--generations", 5, "--out", "results/front.json")
    say("export", "--result", "results/fmnist.json", "--out", "models/fmnist_subnet.safetensors")
    archs: Archs = {}
    for name in ("fmnist", "mbv3-w1.0"):
        space = get_space(name)
        archs[name] = list(map(str, space.archs(space.sample(rng, NUMBER))))
    atomic.write(folder / "expected.json", json_text.dumps({"archs": archs, "found": found_in(folder, archs)}))


def say(*arguments: object) -> None:
    """Run `ofa-deploy` in this process."""
    sys.argv = ["ofa-deploy", *map(str, arguments)]
    try:
        command_line()
    except SystemExit as end:
        assert not end.code, arguments


if __name__ == "__main__":
    make(DATA / sys.argv[1])
