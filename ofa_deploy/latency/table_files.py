"""Files of latency tables: what they are called, which one is for a machine, and which one may be replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import artifacts
from ofa_deploy.files.json_text import Json
from ofa_deploy.latency.table import CONDITIONS, KIND, LatencyTable
from ofa_deploy.spaces.space import SearchSpace


def file_name(space: SearchSpace, conditions: Mapping[str, Any], *, blocks: bool = True) -> str:
    """Name of a table's file: space, device, threads, batch, processor; without `blocks`, that it is fitted."""
    machine = conditions["machine"]
    where = machine.get("gpu", f"{machine['cpu']} {machine['cores']} cores")
    kind, batch = "" if blocks else "_fitted", "" if conditions["batch"] == 1 else f"_b{conditions['batch']}"
    return f"{space.name}_{conditions['device']}_{conditions['threads']}t{batch}_{artifacts.slug(where)}{kind}.csv"


def path_elsewhere(space: SearchSpace, device: str) -> Path:
    """Where the table of a device that is elsewhere lies by default.

    Raises:
        MeasureError: the device's name cannot be a part of a file's name.
    """
    if not device or Path(device).name != device:
        raise MeasureError(f"{device!r} cannot be a part of a file's name; call the device by letters and digits")
    return Path("lut") / f"{space.name}_{device}.csv"


def build_command(space: SearchSpace, conditions: Mapping[str, Any]) -> str:
    """What a user types to build a table for these conditions."""
    threads = f" --threads {conditions['threads']}" if conditions["threads"] != 1 else ""
    batch = f" --batch {conditions['batch']}" if conditions["batch"] != 1 else ""
    return f"ofa-deploy build-lut --device {conditions['device']} --space {space.name}{threads}{batch}"


def select(space: SearchSpace, conditions: Mapping[str, Any]) -> tuple[LatencyTable, bool]:
    """The table for these conditions, else the reference table that ships.

    Args:
        space: of the table.
        conditions: for which it should be, as `device.conditions` gives them.

    Returns:
        a table, and whether it was measured under these very conditions on a machine of this kind.

    Raises:
        ArtifactError: there is neither.
    """
    descriptions: dict[Path, Json] = {}
    damaged: ArtifactError | None = None
    for beside in artifacts.candidates("lut", f"{space.name}_{conditions['device']}_*.json"):
        try:
            description = artifacts.describe(beside, KIND)
        except ArtifactError as error:  # another file there may be the right one
            damaged = error
            continue
        if description["space"] == space.name:
            descriptions[beside.with_suffix(".csv")] = description
    for path, description in descriptions.items():
        if not differing(description, conditions):
            return LatencyTable.load(path, space), True
    if damaged is not None:
        raise damaged
    ships = artifacts.shipped("lut").resolve()
    reference = [
        path
        for path, description in descriptions.items()
        if path.parent.resolve() == ships and description.get("batch") == conditions["batch"]
    ]
    if not reference:
        images = f", batches of {conditions['batch']}" if conditions["batch"] != 1 else ""
        raise ArtifactError(
            f"no latency table of {space.name} for {conditions['device']}{images}; "
            f"run: {build_command(space, conditions)}"
        )
    return LatencyTable.load(reference[0], space), False


def check_replaces(out: Path, resolutions: Sequence[int], *, others: Sequence[LatencyTable] = ()) -> None:
    """Refuse to write a table in the place of one that says more, or that it is made from.

    Args:
        out: the CSV file to write.
        resolutions: of the new table.
        others: that it is made from.

    Raises:
        ArtifactError: naming the file.
    """
    try:
        description = artifacts.describe(out, KIND)
    except ArtifactError:
        return
    if description.get("sha256") in {table.sha256 for table in others}:
        raise ArtifactError(f"the table would overwrite {out}, which it is made from; choose another --out")
    if lost := sorted(set(description.get("resolutions", [])) - set(resolutions)):
        raise ArtifactError(
            f"{out} has the resolutions {', '.join(map(str, lost))}, which the new table would lack; name another "
            "--out, or remove it"
        )


def differing(description: Mapping[str, Any], conditions: Mapping[str, Any]) -> list[str]:
    """Which conditions of a table, by its JSON, are not those of a machine."""
    return [key for key in CONDITIONS if description.get(key) != conditions[key]]
