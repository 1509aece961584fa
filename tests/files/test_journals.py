"""Journals: what a killed computation has done already is taken, not done again."""

from pathlib import Path

import pytest

from ofa_deploy.errors import ArtifactError, InfeasibleError
from ofa_deploy.files.journals import journal


def steps(out: Path | None, names: str, made: list[str], about: int = 0) -> list[str]:
    """The outcomes of steps; `made` receives the names of those that were not there, and `x` ends like a kill."""

    def make(name: str) -> dict[str, str]:
        if name == "x":
            raise KeyboardInterrupt
        made.append(name)
        return {"outcome": name.upper()}

    with journal(out, {"about": about}) as kept:
        return [kept.step(["step", name], lambda name=name: make(name))["outcome"] for name in names]


def test_a_repeated_computation_takes_the_steps_that_are_there(tmp_path: Path) -> None:
    made: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path / "r.json", "abx", made)
    assert steps(tmp_path / "r.json", "abcd", made) == list("ABCD")
    assert made == list("abcd")
    assert list(tmp_path.iterdir()) == [], "done: nothing is left"


def test_a_step_that_was_torn_by_the_kill_is_made_again(tmp_path: Path) -> None:
    made: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path / "r.json", "abx", made)
    partial = tmp_path / "r.json.partial"
    partial.write_bytes(partial.read_bytes()[:-5])
    assert steps(tmp_path / "r.json", "ab", made) == ["A", "B"]
    assert made == ["a", "b", "b"]


def test_without_a_file_every_step_is_made() -> None:
    made: list[str] = []
    assert steps(None, "ab", made) == steps(None, "ab", made) == ["A", "B"]
    assert made == list("abab")


def test_what_ends_before_its_first_step_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path / "r.json", "x", [])
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_outlives_a_run_that_ends_before_its_first_step(tmp_path: Path) -> None:
    made: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path / "r.json", "abx", made)
    with pytest.raises(KeyboardInterrupt), journal(tmp_path / "r.json", {"about": 0}):
        raise KeyboardInterrupt
    assert steps(tmp_path / "r.json", "abc", made) == list("ABC")
    assert made == list("abc")


def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    out, partial = tmp_path / "r.json", tmp_path / "r.json.partial"
    with pytest.raises(KeyboardInterrupt):
        steps(out, "abx", [])
    there = partial.read_bytes()
    for names, about in (("ab", 1), ("ac", 0)):
        with pytest.raises(ArtifactError, match="of a run with other options or inputs"):
            steps(out, names, [], about)
        assert partial.read_bytes() == there
    partial.write_bytes(there.replace(b"A", b"Z"))
    with pytest.raises(ArtifactError, match="damaged; remove it to start anew"):
        steps(out, "abc", [])
    with journal(tmp_path / "s.json", {}), pytest.raises(ArtifactError, match="another run is writing"):
        steps(tmp_path / "s.json", "a", [])


def test_what_cannot_be_met_leaves_nothing_that_another_request_would_meet(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError), journal(tmp_path / "r.json", {}) as kept:
        kept.step("a", lambda: 1)
        raise InfeasibleError("no network")
    assert list(tmp_path.iterdir()) == []


def test_a_header_whose_line_was_not_ended_is_whole(tmp_path: Path) -> None:
    (tmp_path / "r.json.partial").write_text('{"about": 0}')
    made: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path / "r.json", "ax", made)
    assert steps(tmp_path / "r.json", "ab", made) == ["A", "B"]
    assert made == ["a", "b"]
