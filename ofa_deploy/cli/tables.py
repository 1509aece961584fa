"""Commands for latency tables: `build-lut`, and those of `lut`, which show, import, fit and carry them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

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
    plan_of,
    print_table,
    resolutions_of,
    tables_of,
)
from ofa_deploy.cli.views import artifact_rows
from ofa_deploy.device.devices import get_device, with_precision
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import artifacts
from ofa_deploy.latency.table import KIND, LatencyTable
from ofa_deploy.latency.table_files import path_elsewhere
from ofa_deploy.spaces.families import get_space
from ofa_deploy.views.inventory import items

logger = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, help="Latency tables: show, import, fit, or carry them.")


FEW = 10
"""Networks that `build-lut --from` measures by default."""


def build_lut(
    *,
    device: Device = "cpu",
    space: Space = None,
    resolutions: Resolutions = None,
    threads: Threads = 1,
    batch: Batch = 1,
    precision: Precision = None,
    rounds: Rounds = None,
    networks: Networks = None,
    from_: From = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; default: lut/SPACE_DEVICE_MACHINE.csv.")] = None,
    interpolate: Annotated[
        float | None,
        typer.Option(help="Measure only some resolutions: percent that interpolated operators may be off, such as 1."),
    ] = None,
    ssh: Annotated[
        str | None, typer.Option(help="Measure there instead: user@host, as ssh takes it. Needs numpy and the runtime.")
    ] = None,
    python: Annotated[str, typer.Option(help="The interpreter there (3.9 or newer).")] = "python3",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Build the latency table of this machine, or over ssh. Killed at any moment, it goes on where it was.

    With --from or --networks, few whole networks are measured and a table is fitted to them: quicker and less exact.

    Example: ofa-deploy build-lut --device tflite --precision int8
    """
    from ofa_deploy.device.conditions import conditions
    from ofa_deploy.latency import table_files as tables
    from ofa_deploy.latency.build import TableJob, build_table
    from ofa_deploy.latency.regression import covered
    from ofa_deploy.latency.remote import build_over_ssh

    measured, device = get_space(space), with_precision(device, precision)
    others = tables_of(from_, measured)
    sizes = resolutions_of(resolutions) if resolutions else covered(measured, others)
    number = networks or (FEW if others else None)
    plan = plan_of(threads=threads, seed=seed, rounds=rounds, networks=number)
    job = TableJob(measured, tuple(sizes), plan=plan, blocks=number is None, batch=batch)
    if ssh is not None:
        if interpolate is not None:
            raise OfaDeployError("--interpolate needs to see what is measured; leave it out, or measure without --ssh")
        table, path = build_over_ssh(job, device, host=ssh, python=python, out=out, others=others)
    else:
        path = out or Path("lut") / tables.file_name(
            measured, conditions(device, threads, batch=batch), blocks=job.blocks
        )
        table = build_table(job, device, out=path, others=others, interpolate=interpolate)
    print_table(table, path, as_json=as_json)


@app.command()
def show(
    *,
    file: Annotated[Path | None, typer.Argument(help="A table (.csv); without one, all are listed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a latency table, and how wrong it is. Without one, those of this folder and those that ship are listed.

    Example: ofa-deploy lut show lut/mine.csv
    """
    if file is None:
        print(
            json.dumps([item.to_json() for item in items("tables")], indent=1) if as_json else artifact_rows("tables")
        )
        return
    table, record = LatencyTable.load(file), artifacts.describe(file, KIND)
    print(json.dumps(record) if as_json else "\n".join(_shown(table, record)))


def _shown(table: LatencyTable, record: Mapping[str, Any]) -> Iterator[str]:
    """What `lut show` says of a table, a line each."""
    spread = sorted(row.spread_percent for row in table.rows.values() if row.runs) or [0.0]
    yield f"space        {table.space.name}, resolutions {listed(table.resolutions)}"
    yield f"measured on  {table.label}, batch {table.conditions['batch']}, {table.conditions['precision']}"
    yield f"operators    {len(table.rows)}, spread over their visits {spread[len(spread) // 2]:.1f} % (median)"
    interpolation, slower = record.get("interpolated"), record.get("slower_percent")
    if interpolation and interpolation["entries"]:
        yield from _interpolated(interpolation)
    if slower:
        yield (
            f"             the machine was slower than in its fast state by {slower['median']:.0f} % (median of the "
            f"visits), by {slower['worst_tenth']:.0f} % and more for a tenth of them"
        )
    yield from _calibrated(table)
    yield f"error        {table.error_in_words}"
    if "spearman" in table.error:
        error = table.error
        yield (
            f"             95 % of them within {error['p95_percent']:.2g} %, {error['within_5_percent']:.0f} % within "
            f"5 %, bias {error['bias_percent']:+.2g} %, Spearman {error['spearman']:.4f}"
        )


def _interpolated(interpolation: Mapping[str, Any]) -> Iterator[str]:
    """Which operators of a table are interpolated, and how far off that is."""
    checks = ", ".join(f"{check['error_percent']:.2g} % at {check['resolution']}" for check in interpolation["checks"])
    between = listed(interpolation["measured_resolutions"])
    yield f"             {interpolation['entries']} of them interpolated between those of {between} pixels;"
    yield f"             where that was checked it was off by {checks};"
    yield f"             what was off by more than {interpolation['tolerance_percent']:g} % was measured"


def _calibrated(table: LatencyTable) -> Iterator[str]:
    """How the latency of a network follows from those of its operators."""
    terms_us = {
        "each of them": 1e3 * table.per_op_ms,
        "each million parameters": 1e3 * table.per_million_ms,
        "each network": 1e3 * table.constant_ms,
    }
    words = [f"{us:+.3g} µs for {term}" for term, us in terms_us.items() if abs(us) >= 0.001]
    yield " ".join([f"a network    {table.scale:.4g} times the sum of its operators", *words])
    if table.corrections:
        size = sum(map(abs, table.corrections.values())) / sum(row.latency_ms for row in table.rows.values())
        yield f"             each of them corrected by what it is, by {100 * size:.1f} % on average"
    if table.power:
        yield f"             or the time for launching its operators, where that is longer (power {table.power:.3g})"


@app.command("import")
def import_(
    *,
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

    imported = get_space(space)
    path = out or path_elsewhere(imported, device)
    table = import_tables(files, imported, device=device, out=path)
    print_table(table, path, as_json=as_json, origin=f"at {listed(table.resolutions)} pixels")


@app.command()
def bundle(
    *,
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
    from ofa_deploy.latency import bundle as bundles
    from ofa_deploy.latency.build import TableJob

    measured, device = get_space(space), with_precision(device, precision)
    sizes = tuple(resolutions_of(resolutions) if resolutions else measured.resolutions)
    plan = plan_of(threads=threads, seed=seed, rounds=rounds, networks=networks)
    job = TableJob(measured, sizes, plan=plan, blocks=networks is None, batch=batch)
    several = f"_{threads}t" * (threads != 1) + f"_b{batch}" * (batch != 1)
    path = out or Path(f"{measured.name}_{device}{several}.zip")
    bundles.write_bundle(job, device, out=path, runner=runner)
    needs, options = bundles.needs(device, runner)
    command = f"python3 {path.name}{options}"
    if as_json:
        print(json.dumps({"file": str(path), "graphs": len(job.entries), "command": command}))
        return
    logger.info(f"{len(job.entries)} graphs. {needs}, type:")
    logger.info(f"    {command}")
    logger.info(f"and here, with the {path.stem}.results that it writes:")
    logger.info(f"    ofa-deploy lut collect {path} {path.stem}.results")
    print(path)


@app.command()
def collect(
    *,
    bundle: Annotated[Path, typer.Argument(help="The zip that ran on the device.")],
    results: Annotated[Path, typer.Argument(help="The file that it wrote there.")],
    from_: From = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; default: lut/SPACE_DEVICE_MACHINE.csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the table of what a bundle has measured.

    Example: ofa-deploy lut collect fmnist_tflite.zip fmnist_tflite.results
    """
    from ofa_deploy.latency import bundle as bundles

    table, path = bundles.collect(bundle, results, out=out, others=tables_of(from_, bundles.space_of(bundle)))
    print_table(table, path, as_json=as_json, origin=f"of {table.label}")


@app.command()
def fit(
    *,
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
    from ofa_deploy.latency.regression import fit_file, fitted_conditions

    fitted = get_space(space)
    path = out or path_elsewhere(fitted, device)
    table = fit_file(
        fitted,
        file,
        column=column,
        conditions=fitted_conditions(device, batch=batch, precision=precision),
        out=path,
        others=from_ or [],
        seed=seed,
        additive=additive,
    )
    print_table(table, path, as_json=as_json, origin=f"at {listed(table.resolutions)} pixels")


@app.command()
def networks(
    *,
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

    sampled, device = get_space(space), with_precision(device, precision)
    sizes = tuple(resolutions_of(resolutions) if resolutions else sampled.resolutions)
    job = TableJob(sampled, sizes, plan=MeasurePlan(seed=seed, networks=number), blocks=False, batch=batch)
    path = write_networks(job, device, folder=out)
    if as_json:
        print(json.dumps({"file": str(path), "networks": len(job.networks)}))
        return
    logger.info(
        f"{len(job.networks)} models with random weights; write what they take into the column latency_ms, then type:"
    )
    options = f" --batch {batch}" * (batch != 1) + f" --precision {get_device(device).precision}"
    logger.info(f"    ofa-deploy lut fit {path} --space {sampled.name}{options} --device NAME")
    print(path)
