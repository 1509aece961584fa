"""Commands that show what there is: results as a page, this machine, all artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli.options import Seed


def report(
    results: Annotated[list[Path], typer.Argument(help="What search --out wrote; several are drawn together.")],
    out: Annotated[Path, typer.Option(help="File to write, .html.")] = Path("report.html"),
    seed: Seed = 0,
) -> None:
    """Write one HTML page about search results that needs no network: fronts, blocks, errors, what was run.

    Example: ofa-deploy report result.json --out report.html
    """
    from ofa_deploy.report.page import write_report

    write_report(results, out, seed)
    print(out)
