"""Pages of the documentation site that are made from other files: the README, and a reference of the public names."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import ofa_deploy

ROOT = Path(__file__).parents[2]
COPIES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Page, and the file of the repository's root that it shows."""


def on_config(config: MkDocsConfig) -> None:
    """Put the pages of the reference where the navigation says so."""
    for section in config.nav or []:
        pages = next(iter(section.values())) if isinstance(section, dict) else []
        if "REFERENCE" in pages:
            pages[pages.index("REFERENCE")] = {"Reference": [f"reference/{package}.md" for package in packages()]}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are no files of docs/."""
    for page, source in COPIES.items():
        text = re.sub(r'(\]\(|src=")docs/', r"\1", (ROOT / source).read_text())
        files.append(File.generated(config, page, content=text))
    for package, names in packages().items():
        entries = "".join(f"::: ofa_deploy.{module}.{name}\n\n" for module, name in names)
        files.append(
            File.generated(config, f"reference/{package}.md", content=f"# {package.capitalize()}\n\n{entries}")
        )


def packages() -> dict[str, list[tuple[str, str]]]:
    """Module and name of each public name, by package."""
    packages: dict[str, list[tuple[str, str]]] = {}
    for module, names in ofa_deploy._MODULES.items():
        packages.setdefault(module.split(".")[0], []).extend((module, name) for name in names)
    return packages
