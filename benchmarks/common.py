"""What benchmarks share: where results lie, how they are written and read, the command line, and what ships."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from ofa_deploy.files import artifacts, atomic
from ofa_deploy.files.machine import installed_version, this_machine
from ofa_deploy.progress import telling
from ofa_deploy.spaces.space import SearchSpace

if TYPE_CHECKING:
    from ofa_deploy.accuracy.predictors.predictor import Predictor
    from ofa_deploy.supernet.network import Supernet

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"
logger = logging.getLogger("ofa_deploy.benchmarks")
"""Progress of benchmarks: printed beside what the package logs."""


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark, described by its docstring: `--show` runs nothing."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="only print the committed results")
    return parser


def run_telling(main: Callable[[], None]) -> None:
    """Run a benchmark; what it and the package log is printed to standard error."""
    with telling():
        main()


def result_path(benchmark: str, *conditions: str, folder: Path = RESULTS) -> Path:
    """Where results lie: `BENCHMARK_CONDITION_....csv`."""
    return folder / f"{'_'.join([benchmark, *conditions])}.csv"


def processor() -> str:
    """This machine's processor, as a condition in names of files."""
    return artifacts.slug(this_machine()["cpu"])


def machine_head(packages: Sequence[str]) -> str:
    """What results were measured on, with versions of packages, for the line above them."""
    versions = ", ".join(f"{name} {installed_version(name)}" for name in packages)
    return f"one thread, {this_machine()['cpu']}, a shared machine; {versions}"


def write_table(path: Path, table: pd.DataFrame, head: str = "") -> None:
    """Write a table as CSV, below a comment that says what it was measured on."""
    atomic.write(path, (f"# {head}\n" if head else "") + table.to_csv(index=False))


def head_of(path: Path) -> str:
    """The comment above results."""
    return path.read_text().splitlines()[0].removeprefix("# ")


def read_table(path: Path) -> pd.DataFrame:
    """The table that `write_table` wrote."""
    return pd.read_csv(path, comment="#")


def print_results(paths: Sequence[Path], show: Callable[[pd.DataFrame], None]) -> None:
    """Print results, each below its comment.

    Args:
        paths: of the results.
        show: prints a table.

    Raises:
        SystemExit: there are no results.
    """
    check_results(paths)
    for path in paths:
        print(f"# {head_of(path)}")
        show(read_table(path))


def check_results(paths: Sequence[Path]) -> None:
    """Refuse to go on where there are no results."""
    if not any(path.exists() for path in paths):
        raise SystemExit("no results are here yet; run this without --show")


def timed(work: Callable[[], T], clock: Callable[[], float] = time.process_time) -> tuple[T, float]:
    """What some work gives, and its seconds by a clock: CPU seconds of the process by default."""
    start = clock()
    result = work()
    return result, clock() - start


def shipped_predictor(space: SearchSpace) -> Predictor:
    """The predictor of a space that ships."""
    from ofa_deploy.accuracy.predictors import file_name
    from ofa_deploy.accuracy.predictors.predictor import Predictor

    return Predictor.load(artifacts.shipped("predictors") / file_name(space), space)


def shipped_weights(space: SearchSpace) -> Path:
    """The weight file of a space's supernet that ships."""
    from ofa_deploy.supernet.checkpoint import file_name

    return artifacts.shipped("supernets") / file_name(space)


def shipped_supernet(space: SearchSpace) -> Supernet:
    """The supernet of a space that ships."""
    from ofa_deploy.supernet.checkpoint import load_supernet

    return load_supernet(shipped_weights(space), space)
