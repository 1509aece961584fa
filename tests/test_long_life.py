"""Files of earlier releases are read for ever, and say what they said."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.release import DATA, found_in

RELEASES = sorted(DATA.iterdir())


def test_there_are_releases() -> None:
    assert [path.name for path in RELEASES][:1] == ["0.1.0"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_what_a_release_wrote_is_read(release: Path) -> None:
    expected = json.loads((release / "expected.json").read_text())
    found = json.loads(json.dumps(found_in(release, expected["archs"])))
    assert list(found) == list(expected["found"])
    for name, value in found.items():
        same(value, expected["found"][name], name)


def same(found: Any, expected: Any, name: str) -> None:
    if isinstance(expected, dict):
        assert set(expected) <= set(found), name
        for key, value in expected.items():
            same(found[key], value, f"{name}, {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for a, b in zip(found, expected, strict=True):
            same(a, b, name)
    else:
        assert found == (pytest.approx(expected, rel=1e-4, abs=1e-4) if isinstance(expected, float) else expected), name
