"""Commands that write networks as models: `export`, and `deploy`, which also measures them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa_deploy.cli.options import (
    NOT_KEPT,
    AsJson,
    Data,
    Device,
    Margin,
    Precision,
    Seed,
    Space,
    Threads,
    Weights,
    aligned,
    weights_of,
)
from ofa_deploy.device.devices import with_precision
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.formats import FORMATS
from ofa_deploy.spaces.families import get_space

logger = logging.getLogger(__name__)


def export(
    *,
    arch: Annotated[str | None, typer.Option(help="Architecture in text form.")] = None,
    result: Annotated[Path | None, typer.Option(help="Search result (search --out FILE).")] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON of the official code: ks, e, d, r; or a net.config with --resolution.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Of a net.config, in pixels.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, or with several formats what their names begin with.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"Of {', '.join(FORMATS)}; several with commas.",
        ),
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Points of top-1 that int8 may lose.")] = 1.0,
    family: Annotated[
        Path | None,
        typer.Option(
            help="Search result of several networks, or of a front: all into the folder --out, with an index."
        ),
    ] = None,
    number: Annotated[int, typer.Option(help="Networks that --family takes of a front.")] = 5,
    finetune_epochs: Annotated[
        int, typer.Option(help="Train the network further by itself, taught by the largest; needs all images.", min=0)
    ] = 0,
    seed: Seed = 0,
    recalibration: Annotated[
        int, typer.Option(help="Training images that batch norms are recalibrated on; fewer are quicker.")
    ] = 2000,
    space: Space = None,
    data: Data = None,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Write an architecture as a model, with a card beside it. What it computes is checked against torch.

    The format is what --out ends in (.onnx, .tflite, .pt2, .pte, .safetensors), else ONNX. With --format, files are
    named SPACE_FORMAT. With --json the card is printed; with several formats, a list of them.

    Example: ofa-deploy export --result result.json --format onnx,tflite
    """
    from ofa_deploy.export.family import export_family
    from ofa_deploy.export.run import ExportSettings, NetworkSource, export_files
    from ofa_deploy.search.result import load_results

    _check_source(arch, result, config, family)
    if family is not None and resolution is not None:
        raise OfaDeployError("--resolution goes with --config; networks of a family have their own")
    if family is not None and finetune_epochs:
        raise OfaDeployError("--finetune-epochs is for one network; export those of a family one by one")
    source = result or family
    searched = get_space(space or (load_results(source)[0].space if source else None))
    weight_file = weights_of(weights, searched)
    settings = ExportSettings(max_drop, recalibration, finetune_epochs, seed)
    if family is not None:
        cards = export_family(
            searched,
            family,
            number=number,
            data=data,
            weights=weight_file,
            folder=out or Path("models"),
            formats=format_,
            settings=settings,
        )
    else:
        network = NetworkSource(arch, result, config, resolution)
        cards = export_files(
            searched, network, data=data, weights=weight_file, out=out, formats=format_, settings=settings
        )
    if as_json:
        print(json.dumps(list(cards.values()) if len(cards) > 1 else next(iter(cards.values())), indent=1))
    else:
        for path, card in cards.items():
            logger.info(_exported(card))
            print(path)


def _check_source(*sources: str | Path | None) -> None:
    """Refuse none of the options that name what is exported, and several of them."""
    if len(sources) - sources.count(None) != 1:
        raise OfaDeployError("export needs just one of --arch TEXT, --result FILE, --config FILE and --family FILE")


def _exported(card: dict[str, Any]) -> str:
    """What `export` says of a file."""
    agreement, drop = card["agreement_with_torch"], card.get("accuracy")
    latency = card["measured"].get("latency")
    words = [f"{card['format']}: {card['bytes'] / 1e6:.2f} MB"]
    if latency:
        words.append(f"{latency['latency_ms']:.3g} ms")
    words.append(
        f"logits differ from torch by {agreement['max_difference']:.1g} at most, classes agree on "
        f"{agreement['agreement_percent']:.4g} % of {agreement['images']} held-out images"
    )
    if drop:
        interval = f"(±{drop['interval95_points']:.2f})"
        words.append(f"top-1 {drop['drop_points']:.2f} points {interval} lower on {drop['images']}")
    return "; ".join(words)


def deploy(
    *,
    latency: Annotated[list[str], typer.Option(help="Budget with its unit; may be given several times.")],
    space: Space = None,
    data: Data = None,
    device: Device = "cpu",
    weights: Weights = None,
    threads: Threads = 1,
    precision: Precision = None,
    margin: Margin = None,
    out: Annotated[Path, typer.Option(help="Folder for the models and their cards.")] = Path("models"),
    page: Annotated[Path | None, typer.Option("--report", help="HTML page about the results to write as well.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Deliver the best models for this machine, measured. In one: table, search, export, and measuring the files.

    Exit code 3 says that a delivered model is over its budget.

    Example: ofa-deploy deploy --latency 10% --latency 0.4ms --report page.html
    """
    from ofa_deploy.delivery.deploy import deploy_models
    from ofa_deploy.delivery.deploy_job import DeployJob
    from ofa_deploy.device.rounds import MeasurePlan
    from ofa_deploy.report.page import check_page, write_report
    from ofa_deploy.search.settings import SearchSettings

    searched = get_space(space)
    if page is not None:
        check_page(page)
    job = DeployJob(
        searched,
        tuple(latency),
        weights_of(weights, searched),
        data=data,
        device=with_precision(device, precision),
        out=out,
        settings=SearchSettings(seed=seed),
        plan=MeasurePlan(threads=threads, seed=seed),
        margin_percent=margin,
    )
    models = deploy_models(job)
    if page is not None:
        write_report([job.results_file], page, seed)
        logger.info(f"report: {page}")
    rows = [model.row() for model in models]
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print("\n".join(_deployed(rows)))
        print(f"Latency in ms of one image, {threads} thread{'s' * (threads > 1)}. Models and cards: {out}/")
    if not all(row["within_budget"] for row in rows):
        raise typer.Exit(NOT_KEPT)


def _deployed(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What `deploy` ends with, a line each: the figures of the models, and what they mean."""
    head = ["budget", "predicted", "measured", "kept", "predicted", "held-out", "test", "MACs", "size", "file"]
    yield "             latency                      top-1"
    yield aligned([head, *map(_model_cells, rows)])
    over = [row for row in rows if not row["within_budget"]]
    if over:
        margin = max(100 * (row["measured_ms"] / row["predicted_ms"] - 1) for row in over)
        slower = max(row["machine_slower_percent"] for row in rows)
        why = f" when the machine ran {slower:.0f} % slower than its table was measured" if slower > 1 else ""
        hint = f"try --margin {margin + 0.5:.1f}" if margin < 99 else "the table is far off"
        yield f"\nNO: over the budget{why}; {hint}."
    yield "\nTop-1 in percent. It is predicted for the held-out images, and delivered models are measured on them"
    yield f"{_intervals(rows)}."


def _model_cells(row: dict[str, Any]) -> list[str]:
    """A delivered model's row of the table that `deploy` prints."""
    test = row["test_top1_percent"]
    return [
        f"{row['budget_ms']:.4g} ms",
        f"{row['predicted_ms']:.4g} ms",
        f"{row['measured_ms']:.4g} ms",
        "yes" if row["within_budget"] else "NO",
        f"{row['predicted_top1_percent']:.2f}",
        f"{row['heldout_top1_percent']:.2f}",
        "-" if test is None else f"{test:.2f}",
        f"{row['macs'] / 1e6:.2f} M",
        f"{row['bytes'] / 1e6:.2f} MB",
        Path(row["file"]).name,
    ]


def _intervals(rows: Sequence[dict[str, Any]]) -> str:
    """How sure measured accuracies are."""
    heldout = f"(95 % interval ±{max(row['heldout_interval95_points'] for row in rows):.2f} points)"
    tests = [points for row in rows if (points := row["test_interval95_points"]) is not None]
    return f"{heldout}, and on the test images (±{max(tests):.2f} points)" if tests else heldout
