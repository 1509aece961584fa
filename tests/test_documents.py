"""The documents: lines that a terminal shows whole, pictures that are there, figures with their commands."""

import re
import tomllib
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "lut", "predictors", "supernets")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
COLUMNS = 100


def prose(text: str) -> list[str]:
    """Lines outside of code blocks and tables, without addresses, which cannot be broken."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    return [re.sub(r"https?://\S+", "", line) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_end_at_100_columns(page: Path) -> None:
    assert [line for line in prose(page.read_text()) if len(line) > COLUMNS] == []


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    """Both are made by `make pictures`."""
    pictures = [ROOT / name for name in re.findall(r'<img src="([^"]+)"', (ROOT / "README.md").read_text())]
    assert [picture.suffix for picture in pictures] == [".svg", ".png"]
    front, page = pictures
    assert xml.etree.ElementTree.parse(front).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert page.read_bytes().startswith(b"\x89PNG")
    assert all(picture.stat().st_size < 200_000 for picture in pictures)


def test_every_figure_has_a_command_that_repeats_it() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    rows = [row for row in (ROOT / "docs" / "benchmarks.md").read_text().splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        command = re.search(r"`(make|ofa-deploy) ([a-z-]+)[^`]*` \|$", row)
        assert command is not None, row
        assert command[1] == "ofa-deploy" or command[2] in targets, row


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 66


def test_files_that_documents_name_are_there() -> None:
    for page in PAGES:
        for name in re.findall(r"`([\w/]+/[\w.]+\.(?:py|css|js))`", page.read_text()):
            assert any((folder / name).is_file() for folder in (ROOT, ROOT / "ofa_deploy")), f"{page.name}: {name}"


def test_every_package_and_noun_has_its_place() -> None:
    """In docs/design.md, in the order of the layers."""
    text = (ROOT / "docs" / "design.md").read_text()
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    modules = [layer.removeprefix("ofa_deploy.") for layer in reversed(layers) if ":" not in layer]
    packages = [name for name in modules if (ROOT / "ofa_deploy" / name).is_dir()]
    assert re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE) == packages
