"""CSV text: rows to the content of files and back, without pandas, so that commands start soon."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArtifactError


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A header and rows as CSV text; None is an empty cell.

    Args:
        columns: names, for the header.
        rows: of values in the order of the columns.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def records_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV text; the keys of the first one are the columns, and what another lacks is an empty cell."""
    columns = list(records[0])
    return csv_text(columns, ([record.get(column) for column in columns] for record in records))


def read_records(content: bytes, path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file's content, each by the columns of its header.

    Raises:
        ArtifactError: it is not CSV text in UTF-8.
    """
    try:
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path} is not a CSV file: {error}") from error
