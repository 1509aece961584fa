"""What a contributor meets first: workflows, forms, hooks, citation and documentation agree with the code."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import ofa_deploy

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_workflow_tests_every_python_that_the_package_names_and_the_oldest_versions() -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    named = [line.rsplit(" ", 1)[1] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert jobs["test"]["strategy"]["matrix"]["python-version"] == [line.split(" :: ")[-1] for line in named]
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = {shlex.split(command)[1] for command in commands}
    assert called == {"test", "test-oldest", "docs"} <= TARGETS


def test_every_dependency_has_a_lower_bound() -> None:
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    lists = [project["dependencies"], *project["optional-dependencies"].values(), *groups.values()]
    for requirement in (entry for entries in lists for entry in entries if isinstance(entry, str)):
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\d.]+", requirement), requirement


def test_torch_of_the_makefile_is_the_oldest_that_is_allowed() -> None:
    (pinned,) = re.findall(r"^TORCH \?= torch==([\d.]+)$", MAKEFILE, re.MULTILINE)
    (bound,) = (name.removeprefix("torch>=") for name in PROJECT["project"]["dependencies"] if "torch>=" in name)
    assert pinned.startswith(bound)


@pytest.mark.parametrize("form", ["bug", "latency", "idea"])
def test_issue_forms_ask_for_what_doctor_says(form: str) -> None:
    content = read(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert content["name"]
    assert content["description"]
    labels = {field["id"]: field["attributes"]["label"] for field in content["body"]}
    assert "ofa-deploy doctor --json" in labels["doctor"]


def test_hooks_run_what_lint_runs() -> None:
    (local,) = read(".pre-commit-config.yaml")["repos"]
    programs = {shlex.split(hook["entry"])[0].removeprefix(".venv/bin/") for hook in local["hooks"]}
    lint = MAKEFILE[MAKEFILE.index("\nlint:") :].split("\n\n")[0]
    assert programs <= set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))


def test_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == ofa_deploy.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert "1908.09791" in citation["references"][0]["url"]


def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for needed in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(
            needed, reason="the documentation site needs pip install --group docs", exc_type=ImportError
        )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [page.read_text() for page in (tmp_path / "reference").glob("*.html")]
    for name in ofa_deploy.__all__:
        assert any(re.search(rf'id="ofa_deploy\.[\w.]+\.{name}"', page) for page in pages), name
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"', "".join(pages))
    assert loaded == []
