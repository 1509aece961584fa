"""The command line: each command parses, calls one library function, and prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa_deploy import __version__, artifacts
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.families import get_space

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

Space = Annotated[str | None, typer.Option(help="Search space; default: $OFA_DEPLOY_SPACE, else fmnist.")]
Data = Annotated[str | None, typer.Option(help="fmnist (the default), a folder of images by class, or an .npz file.")]
Weights = Annotated[Path | None, typer.Option(help="Supernet; default: supernets/SPACE.safetensors, here or shipped.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)]
Threads = Annotated[int, typer.Option(help="Processor threads.", min=1)]
Device = Annotated[str, typer.Option(help="What is measured: cpu.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Objective = Annotated[str, typer.Option(help="What is maximised: accuracy, or macs (needs no predictor).")]
Margin = Annotated[
    float | None,
    typer.Option(help="Percent by which predictions are raised; default: the table's own error for 95 % of networks."),
]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Search, specialise and deploy once-for-all networks: one trained network, the best subnetwork for each device."""
    if version:
        print(f"ofa-deploy {__version__}")
        raise typer.Exit


@app.command()
def download_data(
    out: Annotated[Path, typer.Option(help="Folder for the four files.")] = Path("fashion-mnist"),
) -> None:
    """Download Fashion-MNIST, checking each file."""
    from ofa_deploy.data import download

    download(out, _say)
    print(out)


@app.command()
def pack_data(
    data: Data = None,
    space: Space = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: supernets/SPACE-images.npz.")] = None,
) -> None:
    """Pack what measuring and exporting need: held-out and test images and 2,000 training images."""
    from ofa_deploy.data import load, pack, pack_name

    chosen = get_space(space)
    path = out or Path("supernets") / pack_name(chosen)
    pack(load(data, chosen, training=True), path, chosen.name)
    print(path)


@app.command()
def train(
    space: Space = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Weight file; default: supernets/SPACE.safetensors.")] = None,
    recipe: Annotated[str, typer.Option(help="short (for small images), or imagenet (the paper's).")] = "short",
    epochs: Annotated[int | None, typer.Option(help="Epochs in all, about; default: the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step, over all processes.")] = None,
    lr_factor: Annotated[float, typer.Option(help="Multiplies the recipe's learning rates.")] = 1.0,
    sandwich: Annotated[
        bool, typer.Option("--sandwich", help="Also train the largest and smallest each step.")
    ] = False,
    precision: Annotated[str, typer.Option(help="float32, bf16, or auto: bf16 on GPUs that have it.")] = "auto",
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Train a supernet by progressive shrinking. Killed at any moment, it goes on from its last finished epoch.

    Several GPUs or machines: torchrun --nproc-per-node N -m ofa_deploy train ...
    """
    import torch

    from ofa_deploy.data import load
    from ofa_deploy.supernet.checkpoint import file_name
    from ofa_deploy.supernet.processes import together
    from ofa_deploy.supernet.recipes import get_recipe
    from ofa_deploy.supernet.train import train as run

    torch.set_num_threads(threads)
    chosen, plan = get_space(space), get_recipe(recipe).scaled(epochs, lr_factor)
    plan = replace(
        plan, batch=plan.batch if batch is None else batch, sandwich=sandwich, precision=precision, seed=seed
    )
    path = out or Path("supernets") / file_name(chosen)
    with together() as processes:
        images = load(data, chosen, training=True)
        run(chosen, images, plan, path, _say, processes=processes)
        if processes.first:
            print(path)


@app.command()
def import_weights(
    file: Annotated[Path, typer.Argument(help="Official once-for-all weights, as torch.save wrote them.")],
    space: Annotated[str | None, typer.Option(help="Search space; default: the one that fits.")] = None,
    out: Annotated[Path | None, typer.Option(help="Weight file; default: supernets/SPACE.safetensors.")] = None,
) -> None:
    """Convert official weights (.pth) to safetensors, without running anything that is in the file."""
    from ofa_deploy.supernet.pretrained import convert

    print(convert(file, get_space(space) if space else None, out))


@app.command()
def weights(
    space: Annotated[str | None, typer.Argument(help="Whose weights to download; without it they are listed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Weight file; default: supernets/SPACE.safetensors.")] = None,
) -> None:
    """List the official once-for-all weights, or download and convert those of a space. Resumes when cut off."""
    from ofa_deploy.downloads import download
    from ofa_deploy.supernet.pretrained import FILES, convert, file_of, output

    if space is None:
        print("\n".join(f"{name:15} {address}" for name, address in FILES.items()))
        return
    address = file_of(space)
    file = output(get_space(space), out).parent / address.rpartition("/")[2]
    download(address, file, _say, f"fetch it elsewhere and run: ofa-deploy import-weights {file.name}")
    print(convert(file, get_space(space), out, address))
    file.unlink()


@app.command()
def sample(
    space: Space = None,
    data: Data = None,
    weights: Weights = None,
    number: Annotated[int, typer.Option(help="Distinct subnetworks to measure.")] = 1000,
    design: Annotated[str, typer.Option(help="uniform, or trie: several times cheaper each.")] = "uniform",
    out: Annotated[Path | None, typer.Option(help="CSV file; default: predictors/SPACE_samples.csv.")] = None,
    seed: Seed = 0,
    jobs: Annotated[int, typer.Option(help="Processes, each of one thread.", min=1)] = 2,
) -> None:
    """Measure the accuracy of random subnetworks on the held-out images. Killed, it goes on where it was."""
    from ofa_deploy.accuracy.measure import sample as run
    from ofa_deploy.accuracy.samples import file_name

    chosen = get_space(space)
    path = out or Path("predictors") / file_name(chosen)
    measured = run(_weights(weights, chosen), chosen, data, number, seed, jobs, path, _say, design)
    percent = measured.top1_percent
    _say(f"{len(measured)} subnetworks, top-1 {percent.min():.2f} to {percent.max():.2f} %")
    print(path)


@app.command()
def fit_predictor(
    space: Space = None,
    samples: Annotated[Path | None, typer.Option(help="CSV of samples; default: predictors/SPACE_samples.csv.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: predictors/SPACE.safetensors.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fit the accuracy predictor on measured subnetworks, and report its error on a fifth of them held out."""
    from ofa_deploy.accuracy.predictors import file_name
    from ofa_deploy.accuracy.predictors.mlp import Settings, fit_file

    chosen = get_space(space)
    path = out or Path("predictors") / file_name(chosen)
    report = fit_file(chosen, samples, path, Settings(seed=seed), _say)
    if as_json:
        print(json.dumps({"file": str(path), **report}))
        return
    _say(
        f"fitted on {report['fitted']:.0f} subnetworks, checked on {report['held_out']:.0f} others: RMSE "
        f"{report['rmse_points']:.3f} points, Kendall's tau {report['kendall_tau']:.3f}; then refitted on all"
    )
    print(path)


@app.command()
def build_lut(
    device: Device = "cpu",
    space: Space = None,
    resolutions: Annotated[str | None, typer.Option(help="Comma-separated, in pixels; default: all.")] = None,
    threads: Threads = 1,
    rounds: Annotated[int | None, typer.Option(help="Shuffled passes over everything.", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; default: lut/SPACE_DEVICE_MACHINE.csv.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Build this machine's latency table. Killed at any moment, it goes on where it was."""
    from ofa_deploy.deploy import describe
    from ofa_deploy.latency import table as tables
    from ofa_deploy.latency.build import Plan, build

    chosen = get_space(space)
    sizes = _numbers(resolutions) if resolutions else list(chosen.resolutions)
    conditions = tables.conditions(device, threads)
    path = out or Path("lut") / tables.file_name(chosen, conditions)
    plan = Plan(threads=threads, seed=seed, rounds=rounds or Plan.rounds)
    table = build(chosen, device, sizes, plan, path, _say)
    if as_json:
        print(json.dumps({"file": str(path), "operators": len(table.rows), "error": dict(table.error)}))
        return
    _say(f"{len(table.rows)} operators; {describe(table)}")
    print(path)


@app.command()
def search(
    latency: Annotated[str, typer.Option(help="Budget with its unit: 30ms, 0.03s, or a share such as 25%.")],
    space: Space = None,
    device: Device = "cpu",
    threads: Threads = 1,
    lut: Annotated[Path | None, typer.Option(help="Latency table; default: this machine's in lut/.")] = None,
    predictor: Annotated[Path | None, typer.Option(help="Default: predictors/SPACE.safetensors.")] = None,
    objective: Objective = "accuracy",
    margin: Margin = None,
    generations: Annotated[int, typer.Option(help="At most.")] = 120,
    population: Annotated[int, typer.Option(help="Architectures a generation.")] = 128,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the result as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the most accurate network within a latency budget."""
    from ofa_deploy.search.evolve import Settings
    from ofa_deploy.search.run import search_files

    settings = Settings(population=population, generations=generations, seed=seed)
    result = search_files(get_space(space), latency, device, threads, lut, predictor, objective, settings, margin, _say)
    if out is not None:
        artifacts.write(out, result.to_json())
    if as_json:
        print(result.to_json(), end="")
        return
    if result.score_std is not None:
        print(f"predicted top-1   {result.score:.2f} % (standard deviation {result.score_std:.2f})")
    print(f"predicted latency {result.latency_ms:.4g} ms of {result.budget_ms:.4g} ms "
          f"(kept {result.margin_percent:.2g} % below for the table's error)")  # fmt: skip
    print(f"cost              {result.macs / 1e6:.2f} million MACs, {result.params / 1e6:.3f} million parameters")
    print(f"searched          {result.evaluations} architectures in {len(result.history)} generations")
    print(f"architecture      {result.arch}")


@app.command()
def export(
    arch: Annotated[str | None, typer.Option(help="Architecture in text form.")] = None,
    result: Annotated[Path | None, typer.Option(help="Search result (search --out FILE).")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: SPACE.onnx.")] = None,
    space: Space = None,
    data: Data = None,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Write an architecture as an ONNX model, checked against torch, with a card beside it."""
    from ofa_deploy.export.run import export_files

    chosen = get_space(space)
    path = out or Path(f"{chosen.name}.onnx")
    card = export_files(chosen, arch, result, data, _weights(weights, chosen), path)
    if as_json:
        print(artifacts.dumps(card), end="")
        return
    checked = card["agreement_with_torch"]
    _say(f"{card['bytes'] / 1e6:.2f} MB; logits differ from torch by {checked['max_difference']:.1g} at most, "
         f"classes agree on {checked['agreement_percent']:.4g} % of {checked['images']} held-out images")  # fmt: skip
    print(path)


@app.command()
def deploy(
    latency: Annotated[list[str], typer.Option(help="Budget with its unit; may be given several times.")],
    space: Space = None,
    data: Data = None,
    device: Device = "cpu",
    weights: Weights = None,
    threads: Threads = 1,
    margin: Margin = None,
    out: Annotated[Path, typer.Option(help="Folder for the models and their cards.")] = Path("models"),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Deliver the best model for this machine: table, search, export, and measuring what was exported."""
    from ofa_deploy.deploy import deploy as run
    from ofa_deploy.latency.build import Plan
    from ofa_deploy.search.evolve import Settings

    chosen = get_space(space)
    plan, settings = Plan(threads=threads, seed=seed), Settings(seed=seed)
    found = run(chosen, data, latency, device, _weights(weights, chosen), out, settings, plan, margin, _say)
    rows = [one.row() for one in found]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(_deployed(rows))
    if not all(row["within_budget"] for row in rows):
        margins = max(one.result.margin_percent for one in found)
        print(f"\nNO: over the budget; a --margin larger than {margins:.2g} keeps further below it.")
    print("\nTop-1 in percent. Accuracy is predicted for the held-out images; a delivered model is measured on them")
    print(f"and on the test images (95 % interval ±{max(r['interval95_points'] for r in rows):.2f} points).")
    print(f"Latency in ms of one image, {threads} thread{'s' * (threads > 1)}. Models and cards: {out}/")


def _deployed(rows: Sequence[dict[str, Any]]) -> str:
    """The table that `deploy` ends with."""

    def cells(row: dict[str, Any]) -> list[str]:
        test = row["test_top1_percent"]
        return [
            f"{row['budget_ms']:.3f} ms", f"{row['predicted_ms']:.3f} ms", f"{row['measured_ms']:.3f} ms",
            "yes" if row["within_budget"] else "NO", f"{row['predicted_top1_percent']:.2f}",
            f"{row['heldout_top1_percent']:.2f}", "-" if test is None else f"{test:.2f}",
            f"{row['macs'] / 1e6:.2f} M", f"{row['bytes'] / 1e6:.2f} MB", Path(row["file"]).name,
        ]  # fmt: skip

    head = ["budget", "predicted", "measured", "kept", "predicted", "held-out", "test", "MACs", "size", "file"]
    return "\n".join(["             latency                      top-1", _aligned([head, *map(cells, rows)])])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)


def _weights(path: Path | None, space: Any) -> Path:
    from ofa_deploy.supernet.checkpoint import file_name

    hint = f"train one with: ofa-deploy train --space {space.name}, or name it with --weights"
    return path or artifacts.find("supernets", file_name(space), hint)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise OfaDeployError(f"--resolutions wants whole numbers such as 128,160, not {text!r}") from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        app()
    except (OfaDeployError, OSError) as error:
        print(f"ofa-deploy: {error}", file=sys.stderr)
        sys.exit(2)
