"""The Python API: a written list of names, loaded when asked for, and every example of the documents runs."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import typing
from functools import cache
from pathlib import Path
from typing import Any

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
    for module, names in ofa_deploy._MODULES.items():
        for name in names:
            public = getattr(ofa_deploy, name)
            assert (public.__name__, public.__module__) == (name, f"ofa_deploy.{module}"), "the name is the defined one"
            assert public.__doc__
            assert re.search(rf"`{name}\b", text), f"{name} is not in docs/api.md"
    placed = {name for names in ofa_deploy._MODULES.values() for name in names}
    assert placed == set(ofa_deploy.__all__) <= set(dir(ofa_deploy))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ofa_deploy.nothing  # noqa: B018


def test_the_page_describes_these_names_and_no_others() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    items = re.findall(r"^- (`.*?)(?=^- |^$)", text, re.MULTILINE | re.DOTALL)
    heads = [head for item in items for head in re.findall(r"(?:^|[.;] )((?:`[^`]+`(?:, )?)+):", item, re.DOTALL)]
    described = {name for head in heads for name in re.findall(r"`(\w+)", head)}
    assert described == set(ofa_deploy.__all__)
    imported = re.findall(r"from ofa_deploy import (?:\(([^)]*)\)|(.*))", text)
    assert {n for names in imported for n in re.findall(r"\w+", "".join(names))} <= described


def test_from_the_third_argument_on_public_functions_take_keywords() -> None:
    for name in ofa_deploy.__all__:
        if inspect.isfunction(public := getattr(ofa_deploy, name)):
            parameters = inspect.signature(public).parameters.values()
            positional = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
            assert len(positional) <= 2, f"{name}: {', '.join(positional)}"


def test_what_public_names_take_and_return_is_public() -> None:
    """Classes of the package that functions have as arguments or results, and classes as attributes."""
    for name in ofa_deploy.__all__:
        for needed in classes_needed(getattr(ofa_deploy, name)):
            assert getattr(ofa_deploy, needed.__name__, None) is needed, f"{name} needs {needed.__qualname__}"


def classes_needed(public: Any) -> set[type]:
    """The package's classes in the annotations of a function, or of a class's attributes and of what makes it."""
    if not inspect.isclass(public):
        return classes_annotated(public.__module__, public.__annotations__)
    classes = set()
    for base in public.__mro__:
        if base.__module__.startswith("ofa_deploy."):
            fields = vars(base).get("__annotations__", {})
            classes |= classes_annotated(base.__module__, {k: v for k, v in fields.items() if k[0] != "_"})
            for name, value in vars(base).items():
                getter = getattr(value, "fget", None) or getattr(value, "func", None)
                function = value if name == "__init__" else getter if name[0] != "_" else None
                if getattr(function, "__module__", None) == base.__module__:
                    classes |= classes_annotated(base.__module__, function.__annotations__)
    return classes


def classes_annotated(module: str, annotations: dict[str, Any]) -> set[type]:
    """The package's classes that the text of annotations names."""
    nodes = [node for text in annotations.values() for node in ast.walk(ast.parse(str(text), mode="eval"))]
    values = [names_of(module).get(node.id) for node in nodes if isinstance(node, ast.Name)]
    return {named for value in values for named in classes_in(value)}


def classes_in(value: Any) -> set[type]:
    """The package's classes in a class, or in an alias of several."""
    if inspect.isclass(value):
        return {value} if value.__module__.startswith("ofa_deploy.") else set()
    parts = value if isinstance(value, (list, tuple)) else typing.get_args(value)
    return {named for part in parts for named in classes_in(part)}


@cache
def names_of(module: str) -> dict[str, Any]:
    """What annotations of a module may name: its globals, and what is imported for type checks alone."""
    loaded = importlib.import_module(module)
    names = dict(vars(loaded))
    for node in ast.walk(ast.parse(Path(str(loaded.__file__)).read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ofa_deploy."):
            source = importlib.import_module(str(node.module))
            names |= {i.asname or i.name: getattr(source, i.name) for i in node.names if hasattr(source, i.name)}
    return names


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
    job = ofa_deploy.TableJob(space, np.array([16, 20]), plan=ofa_deploy.MeasurePlan(threads=np.int64(1)))
    assert json.loads(json.dumps(job.description))["resolutions"] == [16, 20]
    made_up_table(space).save(str(tmp_path / "t.csv"))
    table = ofa_deploy.LatencyTable.load(str(tmp_path / "t.csv"), space)
    settings = ofa_deploy.SearchSettings(population=np.int16(8), restarts=0, recombinations=0, seed=np.int64(3))
    stopping = ofa_deploy.Stopping(generations=np.int16(2), seconds=np.float32(60))
    problem = ofa_deploy.Problem(space, [ofa_deploy.latency_limit(table, "50%")])
    result = ofa_deploy.find_network(problem, settings, stopping=stopping)
    ofa_deploy.write_results([result], str(tmp_path / "r.json"))
    assert ofa_deploy.load_result(str(tmp_path / "r.json")).settings == settings
    assert ofa_deploy.load_result(str(tmp_path / "r.json")).stopping == stopping
    with pytest.raises(TypeError):
        ofa_deploy.SearchSettings(seed=3.5)  # type: ignore[arg-type]


def test_importing_it_loads_nothing_but_the_version() -> None:
    code = "import sys, ofa_deploy; print([n for n in sys.modules if n.startswith(('ofa_deploy.', 'numpy', 'torch'))])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "['ofa_deploy.version']"


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile("\n".join(blocks), str(page), "exec"), {})
