"""What the commands share: their common options, what these stand for, and how rows and tables are printed."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.device.devices import devices_in_words
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import artifacts
from ofa_deploy.latency.table import KIND, LatencyTable
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

logger = logging.getLogger(__name__)

Space = Annotated[str | None, typer.Option(help="Search space; default: $OFA_DEPLOY_SPACE, else fmnist.")]
Data = Annotated[str | None, typer.Option(help="fmnist (the default), a folder of images by class, or an .npz file.")]
Weights = Annotated[Path | None, typer.Option(help="Supernet; default: supernets/SPACE.safetensors, here or shipped.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)]
Threads = Annotated[int, typer.Option(help="Processor threads.", min=1)]
Batch = Annotated[int, typer.Option(help="Images a run; latencies are those of a batch.", min=1)]
Device = Annotated[str, typer.Option(help=f"What is measured: {devices_in_words()}.")]
Precision = Annotated[
    str | None,
    typer.Option(help="fp32, fp16 (gpu) or int8 (cpu, tflite); the same as --device gpu-fp16, cpu-int8, tflite-int8."),
]
Resolutions = Annotated[str | None, typer.Option(help="Comma-separated, in pixels; default: all.")]
Rounds = Annotated[int | None, typer.Option(help="Shuffled passes over everything.", min=1)]
Networks = Annotated[
    int | None,
    typer.Option(help="Measure that many whole networks instead of every operator, and fit the table to them.", min=5),
]
From = Annotated[
    list[Path] | None,
    typer.Option("--from", help="Table of another device that the fit begins with; may be given several times."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Objective = Annotated[str, typer.Option(help="What is maximised: accuracy, or macs (needs no predictor).")]
Margin = Annotated[
    float | None,
    typer.Option(help="Percent by which predictions are raised; default: the table's own error for 95 % of networks."),
]

NOT_KEPT = 3
"""Exit code where what was measured is over its budget."""


def space_of(name: str | None, lut: Path | None) -> SearchSpace:
    """The space that was named; else that of a latency table that was named; else the default one."""
    return get_space(name or (artifacts.describe(lut, KIND)["space"] if lut else None))


def weights_of(path: Path | None, space: SearchSpace) -> Path:
    """The weight file that was named, or the space's own."""
    from ofa_deploy.supernet.checkpoint import file_name
    from ofa_deploy.supernet.pretrained import FILES

    get, verb = ("get the official one", "weights") if space.name in FILES else ("train one", "train --space")
    hint = f"{get} with: ofa-deploy {verb} {space.name}, or name it with --weights"
    return path or artifacts.find_artifact("supernets", file_name(space), hint=hint)


def predictor_of(path: Path | None, space: SearchSpace) -> Path:
    """The predictor that was named, or the space's own."""
    from ofa_deploy.accuracy.predictors import file_name

    return path or artifacts.find_artifact(
        "predictors", file_name(space), hint=f"run ofa-deploy fit-predictor --space {space.name}"
    )


def tables_of(paths: Sequence[Path] | None, space: SearchSpace) -> list[LatencyTable]:
    """The latency tables that were named."""
    return [LatencyTable.load(path, space) for path in paths or []]


def resolutions_of(text: str) -> list[int]:
    """The resolutions that were named: whole numbers separated by commas."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise OfaDeployError(f"--resolutions wants whole numbers such as 128,160, not {text!r}") from error


def plan_of(*, threads: int, seed: int, rounds: int | None, networks: int | None) -> MeasurePlan:
    """How a table is measured, with the plan's own numbers in place of those that were not named."""
    return MeasurePlan(
        threads=threads, seed=seed, rounds=rounds or MeasurePlan.rounds, networks=networks or MeasurePlan.networks
    )


def print_table(table: LatencyTable, path: Path, *, as_json: bool, origin: str = "") -> None:
    """What a command that has written a latency table ends with.

    Args:
        table: the table.
        path: its file.
        as_json: print JSON instead of text.
        origin: words about where the table comes from.
    """
    if as_json:
        print(json.dumps({"file": str(path), "operators": len(table.rows), "error": dict(table.error)}))
        return
    logger.info(
        f"{' '.join([str(len(table.rows)), 'operators', *([origin] if origin else [])])}; {table.error_in_words}"
    )
    if table.doubt:
        logger.warning(table.doubt)
    print(path)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text with straight columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)


def listed(sizes: Sequence[int]) -> str:
    """Resolutions in words."""
    return f"{sizes[0]} to {sizes[-1]} ({len(sizes)})" if len(sizes) > 5 else ", ".join(map(str, sizes))
