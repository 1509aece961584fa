"""Measuring subnetworks: the count is torch's, and sharing changes none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_deploy.accuracy import measure as measuring
from ofa_deploy.accuracy import prefixes
from ofa_deploy.accuracy.designs import DESIGNS, draw
from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.recalibration import recalibrate


def test_count_is_that_of_torch(weights: Path, space: SearchSpace, dataset: Dataset) -> None:
    net = checkpoint.load_supernet(weights, space)
    for arch in space.archs(space.sample(np.random.default_rng(0), 3)):
        plain = net.subnet(arch)
        recalibrate(plain, dataset.recalibration(arch.resolution))
        with torch.inference_mode():
            guess = plain(dataset.tensor(dataset.heldout.pixels, arch.resolution)).argmax(1).numpy()
        assert measuring.count_correct(net, [arch], data=dataset) == [int((guess == dataset.heldout.labels).sum())]


@pytest.mark.parametrize("design", ["uniform", "trie"])
def test_shared_beginnings_change_no_count(weights: Path, space: SearchSpace, dataset: Dataset, design: str) -> None:
    net, dataset = checkpoint.load_supernet(weights, space), replace(dataset, train=dataset.train[:90])
    with torch.no_grad():  # a classifier that does not answer the same to everything
        net.get_parameter("classifier.linear.bias").zero_()
    if design == "trie":
        archs = next(g for g in draw(space, "trie", number=200, seed=0) if len(g) >= 40)[:40]
    else:
        archs = space.archs(space.sample(np.random.default_rng(1), 25, [20]))
    first = prefixes.trie(space, archs)
    assert len(first) == 1
    together = measuring.count_correct(net, archs, data=dataset, batch=30)
    assert together == [measuring.count_correct(net, [arch], data=dataset, batch=30)[0] for arch in archs]
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
    groups = draw(space, design, number=500, seed=3)
    archs = [arch for group in groups for arch in group]
    assert len(set(archs)) == len(archs) == 500
    assert all(space.check(arch) for arch in archs)
    assert all(len({arch.resolution for arch in group}) == 1 for group in groups)
    assert groups == draw(space, design, number=500, seed=3)
    assert groups != draw(space, design, number=500, seed=4)


def test_later_draws_are_as_balanced_as_the_first(space: SearchSpace) -> None:
    first = [arch for group in draw(space, "uniform", number=250, seed=0) for arch in group]
    second = [arch for group in draw(space, "uniform", number=250, seed=(0, 1), without=first) for arch in group]
    assert len(set(first) | set(second)) == 500
    for archs in (first, second):
        counts = [sum(arch.resolution == r for arch in archs) for r in space.resolutions]
        assert min(counts) > 40, "62 of each are expected"
    some = get_space("mbv3-w1.0")
    sizes = {arch.resolution for group in draw(some, "trie", number=1000, seed=0) for arch in group}
    assert max(sizes) - min(sizes) > 40, "few tries are not those of the smallest resolutions"


def test_trie_design_is_balanced_and_shares(space: SearchSpace) -> None:
    groups = draw(space, "trie", number=8640, seed=0)
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
        draw(space, "random", number=5, seed=0)
    with pytest.raises(OfaDeployError, match="at least 1"):
        draw(space, "trie", number=0, seed=0)


def test_more_than_the_space_has(tiny: SearchSpace) -> None:
    with pytest.raises(OfaDeployError, match="fewer than 801"):
        draw(tiny, "uniform", number=801, seed=0)
    assert len({arch for group in draw(tiny, "uniform", number=800, seed=0) for arch in group}) == 800
