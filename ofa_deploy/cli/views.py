"""Commands that show what there is: results as a page, this machine, all artifacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa_deploy.cli.options import AsJson, Seed, aligned, listed
from ofa_deploy.formatting import figure, mapping
from ofa_deploy.views.inventory import Item, error_of, items


def report(
    *,
    results: Annotated[list[Path], typer.Argument(help="What search --out wrote; several are drawn together.")],
    out: Annotated[Path, typer.Option(help="File to write, .html.")] = Path("report.html"),
    seed: Seed = 0,
) -> None:
    """Write one HTML page about search results. It needs no network: fronts, blocks, errors, what was run.

    Example: ofa-deploy report result.json --out report.html
    """
    from ofa_deploy.report.page import write_report

    write_report(results, out, seed)
    print(out)


def list_(*, as_json: AsJson = False) -> None:
    """List what there is, and how wrong it is. Spaces, supernets, samples, predictors, tables; here and shipped.

    Example: ofa-deploy list
    """
    from ofa_deploy.views.inventory import inventory, spaces

    if as_json:
        print(json.dumps(inventory(), indent=1))
        return
    rows = [["space", "input", "resolutions", "networks a resolution"]]
    for space in spaces():
        colours = "grey" if space["input_channels"] == 1 else "RGB"
        rows.append([space["space"], colours, listed(space["resolutions"]), f"{space['networks']:.2g}"])
    print(aligned(rows))
    for kind in COLUMNS:
        print(f"\n{artifact_rows(kind)}")


def doctor(*, as_json: AsJson = False) -> None:
    """Say what this machine can do. Runtimes, processor, the noise of its clock, which tables are its own.

    Example: ofa-deploy doctor
    """
    from ofa_deploy.views.doctor import examine

    findings = examine()
    print(json.dumps(findings, indent=1) if as_json else "\n".join(_examined(findings)))


def _table_cells(item: Item) -> list[str]:
    """Device, resolutions and error of a latency table."""
    error = figure(error_of(item).get("mape_percent"), "%", 2) if error_of(item) else "not known"
    sizes = item.record.get("resolutions")
    return [str(item.record.get("device")), listed(sizes if isinstance(sizes, list) else []), error]


def _predictor_cells(item: Item) -> list[str]:
    """Model and errors of an accuracy predictor."""
    error = error_of(item)
    return [
        str(item.record.get("model")),
        figure(error.get("rmse_points"), places=3),
        figure(error.get("kendall_tau"), places=3),
    ]


def _sample_cells(item: Item) -> list[str]:
    """Number of samples, their range, and the noise of the measured accuracies."""
    top1, noise = mapping(item.record.get("top1_percent")), mapping(item.record.get("label_noise"))
    ends = f"{figure(top1.get('lowest'), places=2)} to {figure(top1.get('highest'), places=2)}"
    return [figure(item.record.get("number"), digits=9), ends, figure(noise.get("heldout_points"), places=2)]


def _supernet_cells(item: Item) -> list[str]:
    """Images of a supernet, and the size of its file."""
    return [str(item.record.get("dataset", "-")), figure(item.path.stat().st_size / 1e6, "MB", 3)]


COLUMNS = {
    "supernets": (["images", "size"], _supernet_cells),
    "samples": (["networks", "top-1, %", "noise, points"], _sample_cells),
    "predictors": (["model", "RMSE, points", "Kendall's tau"], _predictor_cells),
    "tables": (["device", "resolutions", "error"], _table_cells),
}
"""Heading of each kind's columns, and what an artifact has in them."""


def artifact_rows(kind: str) -> str:
    """A table of the artifacts of a kind."""
    head, cells = COLUMNS[kind]
    rows = [["space", *head, "from", kind]]
    for item in items(kind):
        shown = [item.problem.partition(";")[0], *[""] * (len(head) - 1)] if item.problem else cells(item)
        rows.append([item.space, *shown, item.origin, str(item.path)])
    return aligned(rows)


def _examined(findings: dict[str, Any]) -> list[str]:
    """What `doctor` prints, a line each."""
    packages = [f"{name} {version or 'MISSING'}" for name, version in findings["packages"].items()]
    lines = [*_machine_lines(findings), *_clock_lines(findings["clock"])]
    lines += [(name, _runtime(runtime)) for name, runtime in findings["runtimes"].items()]
    lines += [(f"[{extra}]", _extra(extra, versions)) for extra, versions in findings["extras"].items()]
    lines.append(("packages", ", ".join(packages)))
    lines += zip(["tables", *[""] * len(findings["tables"])], _whose(findings["tables"]), strict=False)
    return [f"{name:12} {words}" for name, words in lines]


def _machine_lines(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines of `doctor` about interpreter and processor, each with its heading."""
    python, machine = findings["python"], findings["machine"]
    cores = f"{machine['cores']} cores, {machine['usable_cores']} usable"
    cores += f", {machine['quota_cores']:g} by quota" if machine["quota_cores"] else ""
    interpreter = f"{python['version']} ({python['implementation']}, {python['bits']} bits)"
    return [
        ("python", f"{interpreter}, {machine['system']} {machine['architecture']}"),
        ("processor", f"{machine['cpu']}; {cores}; memory {figure(machine['memory_gb'], 'GB')}"),
        ("governor", ", ".join(machine["governors"] or ["cannot be read"])),
        ("load", figure(findings["load"])),
    ]


def _clock_lines(clock: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines of `doctor` about how evenly the machine runs, each with its heading."""
    spreads = (
        f"CPU time spreads by {clock['cpu_spread_percent']:.1f} %, wall time by {clock['wall_spread_percent']:.1f} %"
    )
    preempted = f"{clock['preempted_percent']:.0f} % of {clock['samples']} samples preempted"
    return [("clock", f"{spreads}; {preempted}"), ("", clock["verdict"])]


def _extra(name: str, versions: dict[str, str | None]) -> str:
    """The packages of an optional extra, or how to install them."""
    if None in versions.values():
        return f"not installed: pip install 'ofa-deploy[{name}]'"
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def _whose(tables: Sequence[dict[str, Any]]) -> list[str]:
    """Of each table here, and of those that ship and are of this machine, whose it is; the others are counted."""
    shown, others = [], 0
    for table in tables:
        if table["of_this_machine"]:
            shown.append(f"{table['path']}: of this machine")
        elif table["origin"] == "here":
            shown.append(f"{table['path']}: not of this machine ({', '.join(table['differs'])})")
        else:
            others += 1
    return [*shown, *([f"{others} that ship are of another machine: ofa-deploy lut show"] if others else [])]


def _runtime(runtime: dict[str, Any]) -> str:
    """Version and devices of a runtime, or why it does not run."""
    if runtime["version"] is None:
        return f"NO: {runtime['problem']}"
    gpus = [f"GPU: {', '.join(runtime['gpus']) or 'none'}"] if "gpus" in runtime else []
    return ", ".join([runtime["version"], *runtime.get("providers", []), *gpus])
