"""Measuring subnetworks: the count is torch's, and a kill loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_deploy import artifacts
from ofa_deploy.accuracy import measure as measuring
from ofa_deploy.accuracy import prefixes
from ofa_deploy.accuracy.designs import DESIGNS, draw
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.data import Dataset
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.families import get_space
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import recalibrate


def silent(line: str) -> None:
    pass


def test_count_is_that_of_torch(weights: Path, space: SearchSpace, dataset: Dataset) -> None:
    net = checkpoint.load(weights, space)
    for arch in space.archs(space.sample(np.random.default_rng(0), 3)):
        plain = net.subnet(arch)
        recalibrate(plain, dataset.recalibration(arch.resolution))
        with torch.inference_mode():
            guess = plain(dataset.tensor(dataset.heldout.pixels, arch.resolution)).argmax(1).numpy()
        assert measuring.measure(net, [arch], dataset) == [int((guess == dataset.heldout.labels).sum())]


@pytest.mark.parametrize("design", ["uniform", "trie"])
def test_shared_beginnings_change_no_count(weights: Path, space: SearchSpace, dataset: Dataset, design: str) -> None:
    net = checkpoint.load(weights, space)
    with torch.no_grad():  # a classifier that does not answer the same to everything
        net.get_parameter("classifier.linear.bias").zero_()
    if design == "trie":
        archs = next(g for g in draw(space, "trie", 200, 0) if len(g) >= 60)[:60]
    else:
        archs = space.archs(space.sample(np.random.default_rng(1), 60, [20]))
    first = prefixes.trie(space, archs)
    assert len(first) == 1
    together = measuring.measure(net, archs, dataset, batch=30)
    assert together == [measuring.measure(net, [arch], dataset, batch=30)[0] for arch in archs]
    assert len(set(together)) > 5
    alone = sum(space.macs(space.genes(archs)))
    assert prefixes.macs(first) < (0.3 if design == "trie" else 0.95) * alone


def test_trie_has_a_node_for_each_distinct_beginning(space: SearchSpace) -> None:
    archs = space.archs(space.sample(np.random.default_rng(1), 40))
    first = prefixes.trie(space, archs)
    assert sorted(root.op.size for root in first) == [16, 20, 24, 28]
    beginnings = {space.walk(arch)[:n] for arch in archs for n in range(1, 1 + len(space.walk(arch)))}
    nodes = [node for root in first for node in root.nodes()]
    assert len(nodes) == len(beginnings)
    assert sorted(i for node in nodes for i in node.networks) == list(range(40))
    assert all(node.name == "classifier" for node in nodes if node.networks)
    assert prefixes.macs(first) == sum(walk[-1][1].macs for walk in beginnings)


@pytest.mark.parametrize("name", ["fmnist", "proxyless-w1.3", "resnet50d"])
@pytest.mark.parametrize("design", DESIGNS)
def test_designs_draw_distinct_networks_of_the_space(name: str, design: str) -> None:
    space = get_space(name)
    groups = draw(space, design, 500, 3)
    archs = [arch for group in groups for arch in group]
    assert len(set(archs)) == len(archs) == 500
    assert all(space.check(arch) for arch in archs)
    assert all(len({arch.resolution for arch in group}) == 1 for group in groups)
    assert groups == draw(space, design, 500, 3)
    assert groups != draw(space, design, 500, 4)


def test_trie_design_is_balanced_and_shares(space: SearchSpace) -> None:
    groups = draw(space, "trie", 8640, 0)
    archs = [arch for group in groups for arch in group]
    genes = space.genes(archs)
    assert np.bincount(genes[:, 0]) == pytest.approx(2160, abs=220)
    for columns in space.stage_columns:
        depths = (genes[:, columns] > 0).sum(1)
        assert np.bincount(depths)[2:] == pytest.approx(2880, rel=0.05)
        first = genes[:, columns.start]
        assert np.bincount(first, minlength=10)[1:] == pytest.approx(960, rel=0.15)
    roots = {(arch.resolution, arch.stages[0]) for arch in archs}
    assert len(roots) > 200
    shared = sum(prefixes.macs(prefixes.trie(space, group)) for group in groups)
    assert space.macs(genes).sum() / shared > 4.5


def test_design_must_be_known(space: SearchSpace) -> None:
    with pytest.raises(OfaDeployError, match="trie, uniform"):
        draw(space, "random", 5, 0)
    with pytest.raises(OfaDeployError, match="at least 1"):
        draw(space, "trie", 0, 0)


@pytest.fixture
def command(weights: Path, images: Path) -> list[str]:
    options = f"--number 12 --seed 4 --jobs 1 --data {images} --weights {weights}"
    return [sys.executable, "-m", "ofa_deploy", "sample", *options.split(), "--out"]


@pytest.mark.parametrize("design", DESIGNS)
def test_killed_run_resumes_to_the_same_file(command: list[str], tmp_path: Path, design: str) -> None:
    command = [word if word != "12" else "240" for word in command] if design == "trie" else command
    command = [*command[:-1], "--design", design, "--out"]
    process = subprocess.Popen([*command, "killed.csv"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    partial = tmp_path / "killed.partial"
    while not partial.exists() or partial.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with partial.open("a") as file:
        file.write("[3, [1, 2")  # a line torn by the kill
    again = subprocess.run([*command, "killed.csv"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming: " in again.stderr
    two = [word if word != "1" else "2" for word in command]  # two processes measure the same
    subprocess.run([*two, "whole.csv"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"killed.csv", "killed.json", "whole.csv", "whole.json"}


def test_flipped_byte_is_found(weights: Path, images: Path, space: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    arguments = (weights, space, str(images), 3, 0, 1, out, silent)
    original = measuring.Samples.save
    try:  # as if it were killed after the last group
        measuring.Samples.save = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            measuring.sample(*arguments)
    finally:
        measuring.Samples.save = original  # type: ignore[method-assign]
    partial = out.with_suffix(".partial")
    good = partial.read_text()
    line = good.splitlines()[1]
    digit = next(c for c in line.split("[")[2] if c.isdigit())
    partial.write_text(good.replace(line, line.replace(f"[{digit}", f"[{(int(digit) + 1) % 10}", 1)))
    with pytest.raises(ArtifactError, match=r"s\.partial is damaged"):
        measuring.sample(*arguments)
    partial.write_text(good)
    assert len(measuring.sample(*arguments)) == 3


def test_two_runs_on_one_output_refuse_each_other(
    weights: Path, images: Path, space: SearchSpace, tmp_path: Path
) -> None:
    out = tmp_path / "s.csv"
    with artifacts.locked(out):
        with pytest.raises(ArtifactError, match=r"another run is writing .*s\.csv"):
            measuring.sample(weights, space, str(images), 3, 0, 1, out, silent)
        assert not out.with_suffix(".partial").exists()
    assert len(measuring.sample(weights, space, str(images), 3, 0, 1, out, silent)) == 3


def test_what_lies_there_must_be_of_this_run(weights: Path, images: Path, space: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    out.with_suffix(".partial").write_text('{"another": "run"}\n')
    with pytest.raises(ArtifactError, match="other options"):
        measuring.sample(weights, space, str(images), 3, 0, 1, out, silent)
    with pytest.raises(OfaDeployError, match="at least 1"):
        measuring.sample(weights, space, str(images), 0, 0, 1, out, silent)


def test_more_than_the_space_has(tiny: SearchSpace) -> None:
    with pytest.raises(OfaDeployError, match="fewer than 801"):
        draw(tiny, "uniform", 801, 0)
    assert len({arch for group in draw(tiny, "uniform", 800, 0) for arch in group}) == 800


def test_samples_round_trip(space: SearchSpace, tmp_path: Path) -> None:
    genes = space.sample(np.random.default_rng(0), 5)
    Samples(space, genes, np.array([90.01, 91, 92.5, 10, 100.0])).save(tmp_path / "s.csv", {})
    again = Samples.load(tmp_path / "s.csv", space)
    assert (again.genes == genes).all()
    assert again.top1_percent.tolist() == [90.01, 91, 92.5, 10, 100.0]


@pytest.mark.parametrize("percent", [[101.0], [np.nan], [-1.0]])
def test_what_is_no_accuracy_is_refused(space: SearchSpace, tmp_path: Path, percent: list[float]) -> None:
    Samples(space, space.genes([space.extreme(True)]), np.array(percent)).save(tmp_path / "s.csv", {})
    with pytest.raises(ArtifactError, match="outside 0 to 100"):
        Samples.load(tmp_path / "s.csv", space)
