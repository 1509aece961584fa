"""Files: whole or not at all, checked when read."""

import json
import os
from pathlib import Path

import pytest

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import artifacts, atomic, outputs


def test_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "thing.csv"
    artifacts.save(path, b"a,b\n", kind="thing", space="fmnist", details={"number": 3})
    data, about = artifacts.load(path, "thing", space="fmnist")
    assert (data, about["number"]) == (b"a,b\n", 3)
    assert sorted(p.name for p in path.parent.iterdir()) == ["thing.csv", "thing.json"]


def test_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write(path, "old")
    with pytest.raises(ZeroDivisionError), atomic.writing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: p.write_bytes(b"a,c\n"), "checksum"),
        (lambda p: p.unlink(), "cannot read"),
        (lambda p: p.with_suffix(".json").unlink(), r"thing\.csv has no thing\.json beside it"),
        (lambda p: p.with_suffix(".json").write_text("{"), "not JSON"),
        (lambda p: p.with_suffix(".json").write_text("[1]"), "no JSON object"),
        (lambda p: p.with_suffix(".json").write_text("[" * 100_000), "not JSON"),
        (
            lambda p: p.with_suffix(".json").write_text('{"kind": "song", "space": "x"}'),
            r"another kind \(song\), not of",
        ),
        (lambda p: p.with_suffix(".json").write_text('{"kind": "thing", "space": "x", "schema": 99}'), "upgrade"),
    ],
)
def test_damage_is_named(tmp_path: Path, change: object, word: str) -> None:
    path = tmp_path / "thing.csv"
    artifacts.save(path, b"a,b\n", kind="thing", space="fmnist", details={})
    change(path)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=word):
        artifacts.load(path, "thing")


def test_other_space_is_refused(tmp_path: Path) -> None:
    artifacts.save(tmp_path / "thing.csv", b"", kind="thing", space="fmnist", details={})
    with pytest.raises(ArtifactError, match=r"of the space fmnist, not of mbv3-w1\.0"):
        artifacts.load(tmp_path / "thing.csv", "thing", space="mbv3-w1.0")


def test_unwritable_place_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="choose another place"):
        atomic.write(tmp_path / "file" / "below", "x")


def test_working_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = artifacts.find_artifact("supernets", "fmnist-images.npz", hint="")
    assert shipped.parent == artifacts.shipped("supernets")
    os.mkdir("supernets")
    Path("supernets/fmnist-images.npz").touch()
    assert artifacts.find_artifact("supernets", "fmnist-images.npz", hint="") == Path("supernets/fmnist-images.npz")
    with pytest.raises(ArtifactError, match="do this next"):
        artifacts.find_artifact("lut", "nothing.csv", hint="do this next")


def test_all_that_ships_is_whole_and_says_how_it_came_to_be() -> None:
    found = 0
    for folder in artifacts.FOLDERS:
        for beside in artifacts.shipped(folder).glob("*.json"):
            about = json.loads(beside.read_text())
            artifacts.load(beside.with_name(about["file"]), about["kind"], space=about["space"])
            assert about["made_with"]["packages"]["ofa-deploy"]
            found += 1
    assert found >= 5


def test_the_next_write_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic.writing(path) as alive:
        alive.write_text("being written")
        (tmp_path / ".file.abcd1234").touch()
        (tmp_path / ".file.lock").touch()
        atomic.write(path, "whole")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".file.lock", alive.name, "file"])
    assert path.read_text() == "being written"


def test_edited_descriptions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "thing.csv"
    artifacts.save(path, b"a,b\n", kind="thing", space="fmnist", details={"number": 3, "pair": (1, 2)})
    text = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(text.replace('"number": 3', '"number": 4'))
    with pytest.raises(ArtifactError, match="does not match its own checksum"):
        artifacts.load(path, "thing")
    path.with_suffix(".json").write_text(text)
    assert artifacts.load(path, "thing")[1]["number"] == 3


def test_an_error_is_one_line_whatever_a_file_put_into_it() -> None:
    assert str(ArtifactError("a\nb\x1b[31m")) == "a b [31m"


def test_what_is_no_artifact_does_not_replace_one(tmp_path: Path) -> None:
    artifacts.save(tmp_path / "thing.csv", b"a,b\n", kind="thing", space="x", details={})
    for name, words in (("thing.json", "describes thing.csv"), ("thing.csv", "is what .*thing.json describes")):
        with pytest.raises(ArtifactError, match=rf"{words} and would be overwritten"):
            outputs.check_plain(tmp_path / name, ".json", ".csv")
    outputs.check_plain(tmp_path / "another.csv", ".csv")
    (tmp_path / "mine.csv").write_text("")
    outputs.check_plain(tmp_path / "mine.csv", ".csv")
