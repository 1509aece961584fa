"""Dataclasses as JSON values, and back."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ofa_deploy.errors import ArchError
from ofa_deploy.files import records
from ofa_deploy.files.records import stored
from ofa_deploy.spaces.arch import Arch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    arch: Arch
    share: float | None
    number: int | None = stored(key="round", optional=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    ready: bool
    inside: tuple[Inner, ...]
    costs: Mapping[str, float]
    anything: Mapping[str, Any]
    count: int = 3


ARCH = "r28_k3e3-k3e3_k5e4"
WHOLE = Outer(
    name="a",
    ready=True,
    inside=(Inner(arch=Arch.parse(ARCH), share=None), Inner(arch=Arch.parse(ARCH), share=0.5, number=2)),
    costs={"latency_ms": 1.5},
    anything={"deep": [1, {"a": None}]},
)
JSON = {
    "name": "a",
    "ready": True,
    "inside": [{"arch": ARCH, "share": None}, {"arch": ARCH, "share": 0.5, "round": 2}],
    "costs": {"latency_ms": 1.5},
    "anything": {"deep": [1, {"a": None}]},
    "count": 3,
}


def test_there_and_back() -> None:
    assert records.to_json(WHOLE) == JSON
    assert records.from_json(Outer, json.loads(json.dumps(JSON))) == WHOLE
    assert records.keys(Inner) == ["arch", "share", "round"]


def test_keys_that_are_no_fields_are_left_out_and_defaults_fill_in() -> None:
    without = {key: value for key, value in JSON.items() if key != "count"}
    assert records.from_json(Outer, {**without, "later": 1}) == WHOLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 1}, "'name' is 1, not a str"),
        ({"ready": 1}, "'ready' is 1, not a bool"),
        ({"count": True}, "'count' is True, not a whole number"),
        ({"count": 1.5}, "'count' is 1.5, not a int"),
        ({"costs": {"latency_ms": "x"}}, "'costs' is 'x', not a number"),
        ({"costs": []}, r"'costs' is \[\], not a dict"),
        ({"inside": [None]}, "None is no Inner"),
        ({"inside": [{"share": 1.0}]}, "'arch' of a Inner is missing"),
        ({"inside": [{"arch": 5, "share": 1.0}]}, "'arch' is 5, not a str"),
        ({"name": ["long"] * 90}, r"'name' is \['long', .{30,40}\.\.\., not a str"),
    ],
)
def test_what_is_not_of_its_type_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        records.from_json(Outer, {**JSON, **change})


def test_a_class_refuses_its_own_text_and_numbers_may_be_too_large() -> None:
    with pytest.raises(ArchError):
        records.from_json(Inner, {"arch": "r28", "share": None})
    with pytest.raises(OverflowError):
        records.from_json(Inner, {"arch": ARCH, "share": 10**400})
