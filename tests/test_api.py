"""The Python API: a written list of names, loaded when asked for, and every example of the documents runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ofa_deploy

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if "```python" in path.read_text())


def test_every_name_is_there_and_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    assert sorted(ofa_deploy.__all__) == ofa_deploy.__all__
    for name in ofa_deploy.__all__:
        assert getattr(ofa_deploy, name).__doc__
        assert re.search(rf"`{name}\b", text), f"{name} is not in docs/api.md"
    placed = {name for names in ofa_deploy._PLACES.values() for name in names}
    assert placed == set(ofa_deploy.__all__) <= set(dir(ofa_deploy))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ofa_deploy.nothing  # noqa: B018


def test_importing_it_loads_nothing_else() -> None:
    code = "import sys, ofa_deploy; print([n for n in sys.modules if n.startswith(('ofa_deploy.', 'numpy', 'torch'))])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile("\n".join(blocks), str(page), "exec"), {})
