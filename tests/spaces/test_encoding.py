"""The features of networks: one layout says what every column of them means."""

import numpy as np
import pytest

from ofa_deploy.spaces.encoding import FeatureLayout, changed_numbers, code_columns, features, layout_of, one_hot
from ofa_deploy.spaces.families import SPACES, get_space
from ofa_deploy.spaces.space import SearchSpace


def test_codes_have_one_entry_for_each_active_choice(space: SearchSpace) -> None:
    archs = space.archs(space.sample(np.random.default_rng(0), 40))
    codes, layout = one_hot(space, space.genes(archs)), layout_of(space)
    assert codes.shape == (40, 20 * 3 + 20 * 3)
    for arch, row in zip(archs, codes, strict=True):
        active = sum(map(len, arch.stages))
        assert (row[layout.kernels].sum(), row[layout.expands].sum()) == (active, active)
        kernel, expand = arch.stages[0][0]
        assert row[layout.kernels][:3].tolist() == [kernel == k for k in (3, 5, 7)]
        assert row[layout.expands][:3].tolist() == [expand == e for e in (3, 4, 6)]


def test_the_groups_of_the_layout_lie_side_by_side(space: SearchSpace) -> None:
    layout = layout_of(space)
    assert layout.sizes == (60, 60, 0, 2, 2)
    assert (layout.codes, layout.numbers, layout.columns) == (slice(0, 120), slice(120, 124), 124)
    numbers = FeatureLayout.of_numbers(7)
    assert (numbers.codes, numbers.numbers, numbers.costs) == (slice(0, 0), slice(0, 7), slice(7, 7))
    assert layout_of(get_space("resnet50d")).sizes[2] == 2 + 3 + 3 + 3 + 3 + 3


@pytest.mark.parametrize("name", SPACES)
def test_columns_of_values_are_those_of_the_codes(name: str) -> None:
    space = get_space(name)
    genes = space.sample(np.random.default_rng(1), 20)
    for row, codes in zip(genes, one_hot(space, genes), strict=True):
        columns = [column for gene, value in enumerate(row) for column in code_columns(space, gene)[value]]
        assert sorted(columns) == np.flatnonzero(codes).tolist()


@pytest.mark.parametrize("name", SPACES)
def test_numbers_after_changes_are_those_of_changed_networks(name: str) -> None:
    space = get_space(name)
    (row,) = genes = space.sample(np.random.default_rng(1), 1)
    columns, values = space.changes
    changed = np.repeat(genes, len(columns), axis=0)
    changed[np.arange(len(columns)), columns] = values
    possible = [i for i, (c, v) in enumerate(zip(columns, values, strict=True)) if c == 0 or (v > 0 and row[c] > 0)]
    expected = features(space, changed[possible])[:, layout_of(space).numbers]
    assert changed_numbers(space, genes)[0, possible] == pytest.approx(expected, rel=1e-5, abs=1e-6)
