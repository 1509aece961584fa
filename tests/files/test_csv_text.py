"""CSV text: what is written is read, and what is no CSV is refused."""

from pathlib import Path

import pytest

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files.csv_text import csv_text, read_records, records_csv


def test_cells_are_quoted_where_they_must_be_and_none_is_empty() -> None:
    assert csv_text(["a", "b"], [[1, "x,y"], [None, 0.1]]) == 'a,b\n1,"x,y"\n,0.1\n'
    assert records_csv([{"a": 1, "b": None}, {"b": 2.5}]) == "a,b\n1,\n,2.5\n"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    text = records_csv([{"a": "x,y", "b": "\N{GREEK SMALL LETTER MU}"}, {"a": "", "b": "2"}])
    rows = [{"a": "x,y", "b": "\N{GREEK SMALL LETTER MU}"}, {"a": "", "b": "2"}]
    assert read_records(text.encode(), tmp_path) == rows
    assert read_records(b"\xef\xbb\xbf" + text.encode(), tmp_path) == rows, "as spreadsheets begin a file"


@pytest.mark.parametrize("content", [b"a\n\xff\n", b'a\n"torn'])
def test_what_is_no_csv_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"t\.csv is not a CSV file"):
        read_records(content, Path("t.csv"))
