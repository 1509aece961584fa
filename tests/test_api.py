"""The Python API: a written list of names, loaded when asked for, and every example of the documents runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ofa_deploy
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if "```python" in path.read_text())


def test_every_name_is_there_and_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    assert sorted(ofa_deploy.__all__) == ofa_deploy.__all__
    for name in ofa_deploy.__all__:
        assert getattr(ofa_deploy, name).__doc__
        assert re.search(rf"`{name}\b", text), f"{name} is not in docs/api.md"
    placed = {name for names in ofa_deploy._MODULES.values() for name in names}
    assert placed == set(ofa_deploy.__all__) <= set(dir(ofa_deploy))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ofa_deploy.nothing  # noqa: B018


def test_the_page_describes_these_names_and_no_others() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    listed = {name for line in re.findall(r"^- (`.*?):", text, re.MULTILINE) for name in re.findall(r"`(\w+)", line)}
    assert listed == set(ofa_deploy.__all__)
    imported = re.findall(r"from ofa_deploy import (?:\(([^)]*)\)|(.*))", text)
    assert {n for names in imported for n in re.findall(r"\w+", "".join(names))} <= listed


def test_it_takes_texts_and_numbers_of_numpy(tmp_path: Path, space: SearchSpace) -> None:
    """What comes out of a data frame or an array goes in: names of files, architectures, whole numbers, columns."""
    genes = space.sample(np.random.default_rng(0), 25)
    frame = pd.DataFrame({"arch": list(map(str, space.archs(genes))), "top1": np.linspace(90, 91, 25)})
    frame = frame.sort_values("top1", ascending=False)
    samples = ofa_deploy.Samples(space, space.genes(frame["arch"]), frame["top1"])  # type: ignore[arg-type]
    samples.save(str(tmp_path / "s.csv"))
    again = ofa_deploy.Samples.load(str(tmp_path / "s.csv"), space)
    assert np.array_equal(again.genes, genes[::-1])
    assert again.top1_percent[0] == 91
    with pytest.raises(ofa_deploy.OfaDeployError, match="25 architectures do not go with 24 accuracies"):
        ofa_deploy.Samples(space, genes, samples.top1_percent[1:])
    job = ofa_deploy.TableJob(space, np.array([16, 20]), ofa_deploy.MeasurePlan(threads=np.int64(1)))
    assert json.loads(json.dumps(job.about))["resolutions"] == [16, 20]
    made_up_table(space).save(str(tmp_path / "t.csv"))
    table = ofa_deploy.LatencyTable.load(str(tmp_path / "t.csv"), space)
    settings = ofa_deploy.SearchSettings(population=np.int16(8), restarts=0, recombinations=0, seed=np.int64(3))
    stopping = ofa_deploy.Stopping(generations=np.int16(2), seconds=np.float32(60))
    problem = ofa_deploy.Problem(space, [ofa_deploy.latency_limit(table, "50%")])
    found = ofa_deploy.find_network(problem, settings, stopping=stopping)
    ofa_deploy.write_results([found], str(tmp_path / "r.json"))
    assert ofa_deploy.load_result(str(tmp_path / "r.json")).settings == settings
    assert ofa_deploy.load_result(str(tmp_path / "r.json")).stopping == stopping
    with pytest.raises(TypeError):
        ofa_deploy.SearchSettings(seed=3.5)  # type: ignore[arg-type]


def test_importing_it_loads_nothing_else() -> None:
    code = "import sys, ofa_deploy; print([n for n in sys.modules if n.startswith(('ofa_deploy.', 'numpy', 'torch'))])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile("\n".join(blocks), str(page), "exec"), {})
