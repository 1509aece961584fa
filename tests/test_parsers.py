"""Whatever users type or hand over: it is read, or refused with an error of one line; never anything else."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_deploy.cli.options import resolutions_of
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import json_text
from ofa_deploy.search.budget import UNITS, parse_range
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import SPACES, get_space
from ofa_deploy.spaces.net_configs import from_net_config
from ofa_deploy.spaces.official import from_ofa, to_ofa
from ofa_deploy.spaces.space import SearchSpace

SPACE = get_space("mbv3-w1.0")
SCALARS = st.none() | st.booleans() | st.integers(-10, 300) | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
ALMOST = st.lists(st.sampled_from([2, 3, 4, 5, 6, 7, 3.0]) | SCALARS, min_size=20, max_size=20)
"""As long as what is wanted, and right for the most part."""
CONFIGS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("ks", "e"), ALMOST | JSON)
    | {
        "d": st.lists(st.integers(1, 5), min_size=5, max_size=5),
        "r": st.sampled_from([128, 224, [160]]) | JSON,
        "w": JSON,
    },
)
LAYERS = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from([16, 24, 40, 80, 112, 160, 3, 5, 1, 2]) | SCALARS
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "mid_channels", "expand_ratio", "use_se")
    },
)
AMOUNTS = st.tuples(
    st.from_regex(r"[0-9]{0,4}\.?[0-9]{0,400}", fullmatch=True),
    st.sampled_from([*(unit for quantity in UNITS.values() for unit in quantity.factors), "%", " ms", "x"]),
).map("".join)


def one_line(error: OfaDeployError) -> None:
    assert len(str(error).splitlines()) == 1, str(error)
    assert len(str(error)) < 1000


@given(st.sampled_from(sorted(UNITS)), st.text(max_size=12) | AMOUNTS | st.tuples(AMOUNTS, AMOUNTS).map("..".join))
def test_budgets(what: str, text: str) -> None:
    try:
        low, high = parse_range(what, text, 2.0, 10.0)
    except OfaDeployError as error:
        one_line(error)
    else:
        assert low <= high
        assert -math.inf <= low < math.inf
        assert high > 0
        assert math.isfinite(high) or text.rstrip().endswith(".."), "no end that was written is infinite"


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@given(seed=st.integers(0, 2**32 - 1))
def test_architectures_round_trip(space: SearchSpace, seed: int) -> None:
    (arch,) = space.archs(space.sample(np.random.default_rng(seed), 1))
    assert Arch.parse(str(arch)) == arch
    config = json.loads(json.dumps(to_ofa(space, arch)))
    assert from_ofa(space, config) == arch


@given(CONFIGS | st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_official_configurations(config: dict[str, Any]) -> None:
    try:
        arch = from_ofa(SPACE, config)
    except OfaDeployError as error:
        one_line(error)
    else:
        assert from_ofa(SPACE, to_ofa(SPACE, arch)) == arch


@given(st.fixed_dictionaries({"blocks": st.lists(st.fixed_dictionaries({"mobile_inverted_conv": LAYERS}))}) | JSON)
def test_descriptions_of_networks(config: Any) -> None:
    try:
        arch = from_net_config(SPACE, config, 224)
    except OfaDeployError as error:
        one_line(error)
    else:
        assert SPACE.check(arch) == arch


@settings(max_examples=300)
@given(
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(CONFIGS, max_size=3).map(lambda value: json.dumps(value).encode())
    | st.lists(st.sampled_from(["arch", "ks", "e", "d", "r", ",", "\n", '"', "[3, 3]", "r224", "k3e4", "\0"])).map(
        lambda parts: "".join(parts).encode()
    ),
    st.sampled_from(["list.csv", "list.json"]),
)
def test_lists_of_architectures(content: bytes, name: str) -> None:
    try:
        archs, rows = arch_lists.parse(content, Path(name), SPACE)
    except OfaDeployError as error:
        one_line(error)
        assert name in str(error)
    else:
        assert len(archs) == len(rows)
        assert all(SPACE.check(arch) == arch for arch in archs)


@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_descriptions(content: bytes) -> None:
    try:
        found = json_text.loads(content, Path("about.json"))
    except OfaDeployError as error:
        one_line(error)
    else:
        assert isinstance(found, dict)


@given(st.text(max_size=8) | st.lists(st.integers(-5, 500).map(str)).map(",".join))
def test_resolutions(text: str) -> None:
    try:
        sizes = resolutions_of(text)
    except OfaDeployError as error:
        one_line(error)
    else:
        assert all(isinstance(number, int) for number in sizes)
