"""The example notebook: stored without outputs, and every cell runs."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "python-api.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs() -> None:
    assert len(CODE) >= 5
    assert [cell["outputs"] for cell in CODE] == [[]] * len(CODE)
    assert {cell["execution_count"] for cell in CODE} == {None}
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names: dict[str, Any] = {}
    for cell in CODE:
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, {cell['id']}", "exec"), names)
    (axes,) = plt.gcf().axes
    plt.close("all")
    assert len(axes.lines[0].get_xdata()) == len(names["front"]) > 1
    assert len(names["frame"]) == len(names["samples"])
    assert list(tmp_path.iterdir()) == []
