"""Variation, local search and the archive."""

import numpy as np
import pytest

from ofa_deploy.search.archive import Archive
from ofa_deploy.search.front import front_of, hypervolume
from ofa_deploy.search.limits import cost_limit
from ofa_deploy.search.local_search import Changes
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.variation import Variation
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from tests.search.conftest import Rugged, everything, rugged


@pytest.mark.parametrize("name", ["fmnist", "proxyless-w1.3", "resnet50d"])
def test_children_are_of_the_space_and_of_their_parents(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(0)
    a, b = space.sample(rng, 200), space.sample(rng, 200)
    allowed = list(range(len(space.resolutions)))
    calm = Variation(space, allowed, 1e-9, rng).children(a, b)
    assert space.genes(space.archs(calm)).tolist() == calm.tolist()
    filled = (calm != 0) & ((a != 0) | (b != 0))
    assert (((calm == a) | (calm == b)) | ~filled).all(), "a gene that a parent has comes from a parent"
    assert (calm != a).any(axis=1).mean() > 0.9
    assert (calm != b).any(axis=1).mean() > 0.9
    wild = Variation(space, allowed[:2], 0.5, rng).children(a, b)
    assert space.genes(space.archs(wild)).tolist() == wild.tolist()
    assert ((wild != a) & (wild != b) & (wild != 0)).mean() > 0.1


def test_mutation_changes_kernel_and_expansion_apart_and_together(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    parents = np.repeat(space.genes([space.extreme(largest=True)]), 2000, axis=0)
    child = Variation(space, [0, 1, 2, 3], 0.1, rng).children(parents, parents)
    blocks = child[:, 1:][child[:, 1:] > 0] - 1
    largest = int(parents[0, 1]) - 1
    kernel = blocks // len(space.expands) != largest // len(space.expands)
    expand = blocks % len(space.expands) != largest % len(space.expands)
    for apart in (kernel & ~expand, expand & ~kernel, kernel & expand):
        assert 0.01 < apart.mean() < 0.2


def every_neighbour(space: SearchSpace, row: Genes, whole: Genes) -> set[bytes]:
    """By comparing with everything: one block, one width or the resolution differs, or a stage is a block longer."""
    return {other.tobytes() for other in whole if (other != row).sum() == 1}


def test_neighbours_are_all_that_differ_in_one_gene(tiny: SearchSpace, wide: SearchSpace) -> None:
    for space in (tiny, wide):
        whole = everything(space)
        for row in whole[:: len(whole) // 7]:
            changes = Changes.of(space, row, [0, 1])
            found = changes.applied(row, np.arange(len(changes.values)))
            other = (found != row).any(axis=1)
            assert {one.tobytes() for one in found[other]} == every_neighbour(space, row, whole)
            assert other.sum() == len(np.unique(found[other], axis=0))
            alone = found[~changes.apart.any(axis=1)]
            slots = slice(1, 1 + len(space.slots))
            assert (alone[:, slots] == row[slots]).all()


def test_the_front_of_an_archive_grows_with_it(tiny: SearchSpace) -> None:
    limits = [cost_limit(tiny, "macs", budget="50%"), cost_limit(tiny, "params", budget="70%")]
    archive = Archive(Problem(tiny, limits, Rugged(tiny)))
    rng = np.random.default_rng(0)
    fronts = set()
    for _ in range(8):
        archive.add(tiny.sample(rng, 20))
        assert archive.costs == pytest.approx(np.stack([limit.cost(archive.genes) for limit in limits], axis=1))
        within = np.flatnonzero(archive.excess == 0)
        expected = within[front_of(archive.scores[within], limits[0].cost(archive.genes[within]))]
        assert archive.front().tolist() == archive.front().tolist() == expected.tolist()
        fronts.add(tuple(expected.tolist()))
    assert len(fronts) > 3


def test_archive_evaluates_each_architecture_once(tiny: SearchSpace) -> None:
    seen: list[Genes] = []

    class Watched(Rugged):
        def score(self, genes: Genes) -> Floats:
            seen.append(genes.copy())
            return rugged(genes)

    archive = Archive(Problem(tiny, [cost_limit(tiny, "macs", budget="50%")], Watched(tiny)))
    rng = np.random.default_rng(0)
    for _ in range(30):
        archive.add(tiny.sample(rng, 100))
    rows = np.concatenate(seen)
    assert len(rows) == len(np.unique(rows, axis=0)) == archive.size <= 800
    assert (archive.genes == rows).all()
    assert archive.scores == pytest.approx(rugged(rows))
    assert (archive.genes[archive.add(rows[5:9])] == rows[5:9]).all()
    best = archive.best(archive.size)
    within = archive.excess[best] == 0
    assert within.any()
    assert not within.all()
    assert (np.diff(within.astype(int)) <= 0).all(), "those within the limit come first"
    assert (np.diff(archive.scores[best][within]) <= 0).all()
    assert (np.diff(archive.excess[best][~within]) >= 0).all()
    for number in (1, 10, int(within.sum()), int(within.sum()) + 3):
        assert archive.best(number) == best[:number]


def test_front_and_hypervolume() -> None:
    scores, costs = np.array([1.0, 3.0, 2.0, 2.0, 5.0]), np.array([1.0, 2.0, 2.0, 3.0, 9.0])
    assert front_of(scores, costs).tolist() == [0, 1, 4]
    assert hypervolume(scores, costs, 0, 10) == pytest.approx((2 - 1) * 1 + (9 - 2) * 3 + (10 - 9) * 5)
    assert hypervolume(scores, costs, 1, 8) == pytest.approx((8 - 2) * (3 - 1))
    assert hypervolume(scores, costs, 6, 10) == 0
