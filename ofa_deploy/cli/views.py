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


def list_(as_json: AsJson = False) -> None:
    """List what there is, and how wrong it is. Spaces, supernets, samples, predictors, tables; here and shipped.

    Example: ofa-deploy list
    """
    from ofa_deploy.views.inventory import inventory, spaces

    if as_json:
        print(json.dumps(inventory(), indent=1))
        return
    rows = [["space", "input", "resolutions", "networks a resolution"]]
    for one in spaces():
        colours = "grey" if one["input_channels"] == 1 else "RGB"
        rows.append([one["space"], colours, listed(one["resolutions"]), f"{one['networks']:.2g}"])
    print(aligned(rows))
    for kind in COLUMNS:
        print(f"\n{artifact_rows(kind)}")


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do. Runtimes, processor, the noise of its clock, which tables are its own.

    Example: ofa-deploy doctor
    """
    from ofa_deploy.views.doctor import examine

    found = examine()
    print(json.dumps(found, indent=1) if as_json else "\n".join(_examined(found)))


def _table_cells(item: Item) -> list[str]:
    """Device, resolutions and error of a latency table."""
    error = figure(error_of(item).get("mape_percent"), "%", 2) if error_of(item) else "not known"
    sizes = item.about.get("resolutions")
    return [str(item.about.get("device")), listed(sizes if isinstance(sizes, list) else []), error]


def _predictor_cells(item: Item) -> list[str]:
    error = error_of(item)
    return [
        str(item.about.get("model")),
        figure(error.get("rmse_points"), places=3),
        figure(error.get("kendall_tau"), places=3),
    ]


def _sample_cells(item: Item) -> list[str]:
    top1, noise = mapping(item.about.get("top1_percent")), mapping(item.about.get("label_noise"))
    ends = f"{figure(top1.get('lowest'), places=2)} to {figure(top1.get('highest'), places=2)}"
    return [figure(item.about.get("number"), digits=9), ends, figure(noise.get("heldout_points"), places=2)]


def _supernet_cells(item: Item) -> list[str]:
    return [str(item.about.get("dataset", "-")), figure(item.path.stat().st_size / 1e6, "MB", 3)]


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


def _examined(found: dict[str, Any]) -> list[str]:
    """What `doctor` prints, a line each."""
    python, machine, clock = found["python"], found["machine"], found["clock"]
    cores = f"{machine['cores']} cores, {machine['usable_cores']} usable"
    cores += f", {machine['quota_cores']:g} by quota" if machine["quota_cores"] else ""
    governor = ", ".join(machine["governors"] or ["cannot be read"])
    packages = [f"{name} {version or 'MISSING'}" for name, version in found["packages"].items()]
    lines = [
        (
            "python",
            f"{python['version']} ({python['implementation']}, {python['bits']} bits), {machine['system']} "
            f"{machine['architecture']}",
        ),
        ("processor", f"{machine['cpu']}; {cores}; memory {figure(machine['memory_gb'], 'GB')}"),
        ("governor", governor),
        ("load", figure(found["load"])),
        (
            "clock",
            f"CPU time spreads by {clock['cpu_spread_percent']:.1f} %, wall time by "
            f"{clock['wall_spread_percent']:.1f} %; {clock['preempted_percent']:.0f} % of {clock['samples']} "
            "samples preempted",
        ),
        ("", clock["verdict"]),
    ]
    lines += [(name, _runtime(about)) for name, about in found["runtimes"].items()]
    for extra, needed in found["extras"].items():
        missing = [package for package, version in needed.items() if version is None]
        have = ", ".join(f"{package} {version}" for package, version in needed.items())
        lines.append((f"[{extra}]", f"not installed: pip install 'ofa-deploy[{extra}]'" if missing else have))
    lines.append(("packages", ", ".join(packages)))
    lines += zip(["tables", *[""] * len(found["tables"])], _whose(found["tables"]), strict=False)
    return [f"{name:12} {words}" for name, words in lines]


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


def _runtime(about: dict[str, Any]) -> str:
    if about["version"] is None:
        return f"NO: {about['problem']}"
    gpus = [f"GPU: {', '.join(about['gpus']) or 'none'}"] if "gpus" in about else []
    return ", ".join([about["version"], *about.get("providers", []), *gpus])
