"""Commands for latency tables that are there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli.options import (
    AsJson,
    Batch,
    Device,
    From,
    Networks,
    Precision,
    Resolutions,
    Rounds,
    Seed,
    Space,
    Threads,
    listed,
    numbers,
    say,
    space_of,
    tables_of,
)
from ofa_deploy.cli.views import artifact_rows
from ofa_deploy.device.conditions import precision_of, runtime_of, with_precision
from ofa_deploy.files import artifacts
from ofa_deploy.latency.table import KIND, LatencyTable, path_elsewhere
from ofa_deploy.spaces.families import get_space
from ofa_deploy.views.inventory import items

app = typer.Typer(no_args_is_help=True, help="Latency tables: show, import, fit, or carry them.")


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="A table (.csv); without one, all are listed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a latency table, and how wrong it is. Without one, those of this folder and those that ship are listed.

    Example: ofa-deploy lut show lut/mine.csv
    """
    if file is None:
        found = [item.to_json() for item in items("tables")] if as_json else []
        print(json.dumps(found, indent=1) if as_json else artifact_rows("tables"))
        return
    table, about = _load(file), artifacts.describe(file, KIND)
    if as_json:
        print(json.dumps(about))
        return
    spread = sorted(row.spread_percent for row in table.rows.values() if row.runs) or [0.0]
    filled, slower = about.get("interpolated"), about.get("slower_percent")
    print(f"space        {table.space.name}, resolutions {listed(table.resolutions)}")
    print(f"measured on  {table.label}, batch {table.conditions['batch']}, {table.conditions['precision']}")
    print(f"operators    {len(table.rows)}, spread over their visits {spread[len(spread) // 2]:.1f} % (median)")
    if filled and filled["entries"]:
        checks = ", ".join(f"{c['error_percent']:.2g} % at {c['resolution']}" for c in filled["checks"])
        between = listed(filled["measured_resolutions"])
        print(f"             {filled['entries']} of them interpolated between those of {between} pixels;")
        print(f"             where that was checked it was off by {checks};")
        print(f"             what was off by more than {filled['tolerance_percent']:g} % was measured")
    if slower:
        print(
            f"             the machine was slower than in its fast state by {slower['median']:.0f} % (median of the "
            f"visits), by {slower['worst_tenth']:.0f} % and more for a tenth of them"
        )
    terms = [
        (1e3 * table.per_op_ms, "each of them"),
        (1e3 * table.per_million_ms, "each million parameters"),
        (1e3 * table.constant_ms, "each network"),
    ]
    words = [f"{value:+.3g} µs for {of}" for value, of in terms if abs(value) >= 0.001]
    print(" ".join([f"a network    {table.scale:.4g} times the sum of its operators", *words]))
    if table.corrections:
        size = sum(map(abs, table.corrections.values())) / sum(row.latency_ms for row in table.rows.values())
        print(f"             each of them corrected by what it is, by {100 * size:.1f} % on average")
    if table.power:
        print(f"             or the time for launching its operators, where that is longer (power {table.power:.3g})")
    print(f"error        {table.error_in_words}")
    if "spearman" in table.error:
        e = table.error
        print(
            f"             95 % of them within {e['p95_percent']:.2g} %, {e['within_5_percent']:.0f} % within 5 %, "
            f"bias {e['bias_percent']:+.2g} %, Spearman {e['spearman']:.4f}"
        )


@app.command("import")
def import_(
    files: Annotated[
        list[Path], typer.Argument(help="YAML of once-for-all or nsganetv2; one file, or one a resolution.")
    ],
    device: Annotated[str, typer.Option(help="What to call the device, e.g. note10.")],
    space: Space = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; default: lut/SPACE_DEVICE.csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Convert latency tables of others. They must have the geometry of the space, which is checked.

    Example: ofa-deploy lut import 160_lookup_table.yaml --device note10 --space mbv3-w1.2
    """
    from ofa_deploy.latency.foreign_tables import import_tables

    chosen = get_space(space)
    path = out or path_elsewhere(chosen, device)
    table = import_tables(files, chosen, device, path)
    _made(table, path, f"at {listed(table.resolutions)} pixels", as_json)


@app.command()
def bundle(
    device: Device = "cpu",
    space: Space = None,
    resolutions: Resolutions = None,
    threads: Threads = 1,
    batch: Batch = 1,
    precision: Precision = None,
    rounds: Rounds = None,
    networks: Networks = None,
    runner: Annotated[
        str, typer.Option(help="How it measures: python, there; or adb, an Android phone on the computer that runs it.")
    ] = "python",
    out: Annotated[Path | None, typer.Option(help="Zip file; default: SPACE_DEVICE.zip, or with _2t, _b8.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write one zip that measures a device elsewhere. There, `python FILE.zip` needs only numpy and the runtime.

    Example: ofa-deploy lut bundle --device tflite
    """
    from ofa_deploy.device.rounds import MeasurePlan
    from ofa_deploy.latency import bundle as bundles
    from ofa_deploy.latency.build import TableJob

    chosen, device = get_space(space), with_precision(device, precision)
    sizes = tuple(numbers(resolutions) if resolutions else chosen.resolutions)
    plan = MeasurePlan(
        threads=threads, seed=seed, rounds=rounds or MeasurePlan.rounds, networks=networks or MeasurePlan.networks
    )
    job = TableJob(chosen, sizes, plan, blocks=networks is None, batch=batch)
    several = f"_{threads}t" * (threads != 1) + f"_b{batch}" * (batch != 1)
    path = out or Path(f"{chosen.name}_{device}{several}.zip")
    bundles.bundle(job, device, path, runner)
    needed, options = bundles.needs(device, runner)
    if as_json:
        print(json.dumps({"file": str(path), "graphs": len(job.entries), "command": f"python3 {path.name}{options}"}))
        return
    say(f"{len(job.entries)} graphs. {needed}, type:")
    say(f"    python3 {path.name}{options}")
    say(f"and here, with the {path.stem}.results that it writes:")
    say(f"    ofa-deploy lut collect {path} {path.stem}.results")
    print(path)


@app.command()
def collect(
    bundle: Annotated[Path, typer.Argument(help="The zip that ran on the device.")],
    results: Annotated[Path, typer.Argument(help="The file that it wrote there.")],
    from_: From = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; default: lut/SPACE_DEVICE_MACHINE.csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the table of what a bundle has measured.

    Example: ofa-deploy lut collect fmnist_tflite.zip fmnist_tflite.results
    """
    from ofa_deploy.latency.bundle import collect as run
    from ofa_deploy.latency.bundle import space_of

    table, path = run(bundle, results, out, tables_of(from_, space_of(bundle)))
    _made(table, path, f"of {table.label}", as_json)


@app.command()
def fit(
    file: Annotated[Path, typer.Argument(help="CSV: arch (or once-for-all's ks, e, d, r), and a latency in ms.")],
    device: Annotated[str, typer.Option(help="What to call the device, e.g. v100.")],
    space: Space = None,
    column: Annotated[str, typer.Option(help="Of the latencies.")] = "latency_ms",
    batch: Batch = 1,
    precision: Annotated[str, typer.Option(help="That they were measured in: fp32, fp16, int8.")] = "fp32",
    from_: From = None,
    additive: Annotated[
        bool, typer.Option("--additive", help="A sum over operators, within which a search can be proved.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file; default: lut/SPACE_DEVICE.csv.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a table to whole networks that you measured. In your own way, on any device; rows left empty are skipped.

    Example: ofa-deploy lut fit mine.csv --device npu
    """
    from ofa_deploy.latency.regression import fit_file

    chosen = get_space(space)
    path = out or path_elsewhere(chosen, device)
    table = fit_file(chosen, file, column, device, batch, from_ or [], path, seed, additive, precision)
    _made(table, path, f"at {listed(table.resolutions)} pixels", as_json)


@app.command()
def networks(
    device: Device = "tflite",
    number: Annotated[int, typer.Option(help="Networks, drawn at random.")] = 300,
    space: Space = None,
    resolutions: Resolutions = None,
    batch: Batch = 1,
    precision: Precision = None,
    out: Annotated[Path, typer.Option(help="Folder for the models and their list.")] = Path("networks"),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write model files to measure in your own way. With the list that `lut fit` takes once you have filled it in.

    Example: ofa-deploy lut networks --device tflite --number 300
    """
    from ofa_deploy.device.rounds import MeasurePlan
    from ofa_deploy.latency.build import TableJob
    from ofa_deploy.latency.network_files import write_networks

    chosen, device = get_space(space), with_precision(device, precision)
    sizes = tuple(numbers(resolutions) if resolutions else chosen.resolutions)
    job = TableJob(chosen, sizes, MeasurePlan(seed=seed, networks=number), blocks=False, batch=batch)
    path = write_networks(job, device, out)
    if as_json:
        print(json.dumps({"file": str(path), "networks": len(job.networks)}))
        return
    say(f"{len(job.networks)} models with random weights; write what they take into the column latency_ms, then type:")
    more = f" --batch {batch}" * (batch != 1) + f" --precision {precision_of(runtime_of(device))}"
    say(f"    ofa-deploy lut fit {path} --space {chosen.name}{more} --device NAME")
    print(path)


def _made(table: LatencyTable, path: Path, about: str, as_json: bool) -> None:
    """Tell of a table that was made."""
    if as_json:
        print(json.dumps({"file": str(path), "operators": len(table.rows), "error": dict(table.error)}))
        return
    say(f"{len(table.rows)} operators {about}; {table.error_in_words}")
    if table.doubt:
        say(f"note: {table.doubt}")
    print(path)


def _load(path: Path) -> LatencyTable:
    return LatencyTable.load(path, space_of(None, path))
