"""Architectures, spaces and costs."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import ArchError, OfaDeployError
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import CHUNK, SmoothMaximum
from ofa_deploy.spaces.families import SPACES, get_space
from ofa_deploy.spaces.official import from_ofa, to_ofa
from ofa_deploy.spaces.ops import Op, make_divisible
from ofa_deploy.spaces.parts import Stage
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import SHARED

ALL = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def drawn(space: SearchSpace, n: int, seed: int = 0) -> list[Arch]:
    return space.archs(space.sample(np.random.default_rng(seed), n))


def test_one_architecture_is_no_list(space: SearchSpace) -> None:
    with pytest.raises(ArchError, match="genes are of a list of architectures"):
        space.genes(str(space.extreme(largest=True)))


@ALL
def test_text_genes_and_official_form_round_trip(space: SearchSpace) -> None:
    for arch in [*drawn(space, 200), space.extreme(largest=True), space.extreme(largest=False)]:
        assert Arch.parse(str(arch)) == arch
        assert space.archs(space.genes([arch])) == [arch]
        assert from_ofa(space, to_ofa(space, arch)) == arch


@given(st.text(max_size=40))
def test_parse_refuses_or_round_trips(text: str) -> None:
    try:
        arch = Arch.parse(text)
    except ArchError as error:
        assert "architecture" in str(error)
    else:
        assert Arch.parse(str(arch)) == arch


def test_inactive_blocks_do_not_make_networks_differ() -> None:
    space = get_space("mbv3-w1.0")
    config = to_ofa(space, drawn(space, 1)[0]) | {"d": [2, 2, 2, 2, 2]}
    other = dict(config)
    other["ks"] = [k if i % 4 < 2 else 7 for i, k in enumerate(config["ks"])]
    assert from_ofa(space, config) == from_ofa(space, other)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"ks": [3], "e": [3], "d": [2], "r": [224]}, "20 entries"),
        ({"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5}, "resolution r"),
        ({"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 100}, "resolution 100"),
        ({"ks": [3] * 20, "e": [3] * 20, "d": [5] * 5, "r": 224}, "5 blocks"),
        ({"ks": [9] * 20, "e": [3] * 20, "d": [2] * 5, "r": 224}, "k9e3"),
        ({"ks": [3] * 20, "e": [3] * 20, "d": [-1] * 5, "r": 224}, "lists of numbers"),
        ({"ks": [3] * 20, "e": [float("nan")] * 20, "d": [2] * 5, "r": 224}, "lists of numbers"),
        ({"ks": [3.5] * 20, "e": [3] * 20, "d": [2] * 5, "r": 224}, "lists of numbers"),
        ({"ks": [3] * 20, "e": [3] * 20, "d": [float("inf")] * 5, "r": 224}, "lists of numbers"),
    ],
)
def test_official_form_is_checked(config: dict[str, object], word: str) -> None:
    with pytest.raises(ArchError, match=word):
        from_ofa(get_space("mbv3-w1.0"), config)


def test_official_resnet_form() -> None:
    space = get_space("resnet50d")
    config = {"d": [2, 0, 1, 2, 1], "e": [0.2] * 9 + [0.35] * 9, "w": [0, 1, 2, 0, 1, 2], "r": [224]}
    arch = from_ofa(space, config)
    assert arch.widths == (24, 48, 256, 336, 816, 2048)
    assert [len(stage) for stage in arch.stages] == [1, 2, 3, 6, 3]
    assert (arch.stages[1][0], arch.stages[4][2]) == ((3, 0.2), (3, 0.35))
    assert space.ops(from_ofa(space, config | {"w": [1, 1, 2, 0, 1, 2]})) == space.ops(arch)  # both are 24 channels
    assert from_ofa(space, config | {"d": [0, 0, 1, 2, 1]}).stages[0] == ()
    for wrong, word in (({"w": [3] * 6}, "width index"), ({"d": [7, 0, 0, 0, 0]}, "stem"), ({"e": [0.3] * 18}, "e0.3")):
        with pytest.raises(ArchError, match=word):
            from_ofa(space, config | wrong)
    proxyless = get_space("proxyless-w1.3")
    config = {"ks": [3] * 21, "e": [3] * 21, "d": [2, 2, 2, 2, 2, 4], "r": 224}
    assert len(from_ofa(proxyless, config).stages[-1]) == 1


def test_published_costs() -> None:
    wide, narrow, small = (get_space(name) for name in ("mbv3-w1.2", "mbv3-w1.0", "fmnist"))
    largest, smallest = wide.extreme(largest=True), Arch(224, wide.extreme(largest=False).stages)
    assert wide.macs(wide.genes([largest, smallest])) / 1e6 == pytest.approx([843.1, 193.1], abs=0.05)
    assert small.macs(small.genes([small.extreme(largest=True)]))[0] <= 12e6
    config = {
        "ks": [5, 7, 5, 5, 3, 3, 3, 7, 5, 5, 3, 7, 7, 3, 3, 3, 5, 5, 5, 5],
        "e": [4, 3, 4, 4, 4, 6, 3, 4, 4, 3, 4, 3, 3, 6, 6, 6, 4, 3, 4, 4],
        "d": [2, 3, 2, 4, 3],
        "r": 224,
    }
    genes = narrow.genes([from_ofa(narrow, config)])
    assert (narrow.macs(genes)[0], narrow.params(genes)[0]) == (255_502_624, 5_029_656)


@pytest.mark.skipif(not SHARED.exists(), reason="the published measurements are not beside this checkout")
def test_costs_equal_the_peer_s_in_every_row() -> None:
    space = get_space("mbv3-w1.0")
    with open(SHARED / "imagenet_mbv3-w1.0_top1_r224.csv") as file:
        rows = list(csv.DictReader(file))
    archs = [from_ofa(space, {key: json.loads(row[key]) for key in ("ks", "e", "d", "r")}) for row in rows]
    genes = space.genes(archs)
    assert space.macs(genes).tolist() == [int(row["macs_peer"]) for row in rows]
    assert space.params(genes).tolist() == [int(row["params_peer"]) for row in rows]


def test_costs_of_operators_by_hand() -> None:
    conv = Op("conv", 10, 3, 8, kernel=3, stride=2)
    assert (conv.out_size, conv.macs, conv.params) == (5, 25 * 3 * 8 * 9, 3 * 8 * 9 + 16)
    block = Op("mbconv", 6, 8, 16, 24, 5, 2, se=8)
    assert block.macs == 36 * 8 * 24 + 9 * 24 * 25 + 9 * 24 * 16 + 2 * 24 * 8
    assert block.params == 8 * 24 + 24 * 25 + 24 * 16 + 2 * (24 + 24 + 16) + 2 * 24 * 8 + 24 + 8
    assert Op("linear", 1, 16, 10, bias=True).params == 170


@ALL
def test_vectorised_cost_is_the_sum_over_the_walk(space: SearchSpace) -> None:
    archs = drawn(space, 50)
    genes = space.genes(archs)
    assert space.macs(genes).tolist() == [sum(op.macs for op in space.ops(arch)) for arch in archs]
    assert space.params(genes).tolist() == [sum(op.params for op in space.ops(arch)) for arch in archs]


@ALL
@pytest.mark.parametrize("smooth", [False, True])
def test_costs_after_changes_are_those_of_the_changed_networks(space: SearchSpace, smooth: bool) -> None:
    cost = SmoothMaximum((space.macs.scaled(1e-6), space.params.scaled(1e-5)), 3.0) if smooth else space.macs
    genes = space.sample(np.random.default_rng(2), 5)
    columns, values = space.changes
    assert len({*zip(columns.tolist(), values.tolist(), strict=True)}) == len(columns)
    changed = np.repeat(genes[:, None], len(columns), axis=1)
    changed[:, np.arange(len(columns)), columns] = values
    assert (
        space.sample(np.random.default_rng(3), 2000).max(axis=0)
        == [max(values[columns == c]) for c in set(columns.tolist())]
    ).all()
    expected = cost(changed.reshape(-1, space.columns)).reshape(changed.shape[:2])
    assert cost.changed(genes, columns, values) == pytest.approx(expected, rel=1e-12)


@ALL
def test_many_costs_are_looked_up_in_parts(space: SearchSpace) -> None:
    genes = space.sample(np.random.default_rng(2), 2 * CHUNK + 1)
    assert space.macs(genes)[[0, CHUNK, -1]].tolist() == space.macs(genes[[0, CHUNK, -1]]).tolist()


@ALL
def test_all_ops_are_what_networks_contain(space: SearchSpace) -> None:
    found = {op for arch in drawn(space, 300) for op in space.ops(arch)}
    assert found <= set(space.all_ops())
    assert len(space.all_ops()) == len(set(space.all_ops()))


def test_samples_are_uniform_and_seeded(space: SearchSpace) -> None:
    genes = space.sample(np.random.default_rng(1), 6000)
    assert (genes == space.sample(np.random.default_rng(1), 6000)).all()
    assert np.bincount(genes[:, 0]) == pytest.approx(1500, abs=150)
    depths = (genes[:, space.stage_columns[2]] > 0).sum(axis=1)
    assert np.bincount(depths)[2:] == pytest.approx(2000, abs=200)
    assert np.bincount(genes[:, 1])[1:] == pytest.approx(6000 / 9, abs=120)


def test_sample_covers_a_small_space(tiny: SearchSpace) -> None:
    assert len(set(drawn(tiny, 20_000))) == 2 * 20 * 20


def test_depth_follows_the_slots(space: SearchSpace) -> None:
    for row in space.sample(np.random.default_rng(2), 200):
        for stage, columns in zip(space.stages, space.stage_columns, strict=True):
            active = (row[columns] > 0).tolist()
            assert active == sorted(active, reverse=True)
            assert sum(active) in stage.depths


@ALL
def test_largest_choices_are_a_part_of_the_space(space: SearchSpace) -> None:
    part = space.largest_choices(2, 2, 2, 2)
    archs = drawn(part, 200)
    assert all(space.check(arch) for arch in archs)
    assert part.extreme(largest=True) == space.extreme(largest=True)
    assert space.largest_choices(1, 1, 1, 1).extreme(largest=False).stages == space.extreme(largest=True).stages
    smallest = part.extreme(largest=False)
    assert len(smallest.stages[-1]) == space.stages[-1].depths[-2:][0]
    assert smallest.stages[-1][0] == (space.stages[-1].kernels[-2:][0], space.stages[-1].expands[-2])
    assert smallest.widths == tuple(choices[-2] for choices in space.widths)


def test_make_divisible_keeps_nine_tenths() -> None:
    for value, divisor in itertools.product(range(1, 400), (4, 8)):
        rounded = make_divisible(value, divisor)
        assert rounded % divisor == 0
        assert rounded >= 0.9 * value
    assert [make_divisible(v) for v in (36, 11, 12, 18)] == [40, 16, 16, 24]


@pytest.mark.parametrize("depths", [(), (-1, 2), (3, 2), (2, 2)])
def test_stage_checks_its_depths(depths: tuple[int, ...]) -> None:
    with pytest.raises(ArchError, match="depths"):
        Stage(8, 1, "relu", False, depths)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"depths": (0, 1)}, "left out"),
        ({"expands": (1, 3)}, "larger than 1"),
        ({"kernels": (5, 3)}, "kernels"),
        ({"expands": ()}, "expands"),
        ({"width": (16, 8)}, "widths"),
        ({"width": -1}, "negative"),
        ({"kind": "pool"}, "kind"),
        ({"act": "gelu"}, "relu6"),
    ],
)
def test_stage_checks_the_rest(wrong: dict[str, object], word: str) -> None:
    with pytest.raises(ArchError, match=word):
        Stage(**{"width": 8, "stride": 1, "act": "relu", **wrong})  # type: ignore[arg-type]


def test_space_by_name_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_space().name == "fmnist"
    monkeypatch.setenv("OFA_DEPLOY_SPACE", "mbv3-w1.2")
    assert get_space().name == "mbv3-w1.2"
    assert get_space("fmnist-7classes").classes == 7
    with pytest.raises(OfaDeployError, match="mbv3-w1.0"):
        get_space("mobilenet")


def test_walk_refuses_what_is_not_of_the_space(space: SearchSpace) -> None:
    with pytest.raises(ArchError, match="resolution 224"):
        space.walk(get_space("mbv3-w1.0").extreme(largest=True))
