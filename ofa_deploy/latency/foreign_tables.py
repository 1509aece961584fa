"""Latency tables of others: the official once-for-all tables, and those of nsganetv2, both YAML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.device.conditions import conditions_elsewhere
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.latency.machine_state import Estimate
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import check_replaces
from ofa_deploy.latency.table_rows import LARGEST_MS
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace

KeyOf = Callable[[Op], str | None]
"""From an operator to its entry in a file; None where the format leaves it out and counts nothing for it."""


def _shapes(op: Op) -> str:
    return f"input:{op.size}x{op.size}x{op.c_in}-output:{op.out_size}x{op.out_size}x{op.c_out}"


def _official(op: Op) -> str | None:
    """Keys of the once-for-all tables, e.g. of the Samsung Note10; `expand` is the number of middle channels."""
    if op.kind == "mbconv":
        flags = f"idskip:{int(op.shortcut)}-se:{int(op.se > 0)}-hs:{int(op.act == 'hswish')}"
        return f"expanded_conv-{_shapes(op)}-expand:{op.c_mid}-kernel:{op.kernel}-stride:{op.stride}-{flags}"
    if op.kind == "linear":
        return f"Logits-input:1x1x{op.c_in}-output:{op.c_out}" if op.bias else f"Conv_2-{_shapes(op)}"
    return {"conv": "Conv" if op.kernel > 1 else "Conv_1", "pool": "AvgPool2D"}[op.kind] + f"-{_shapes(op)}"


def _nsganet(op: Op) -> str | None:
    """Keys of the nsganetv2 tables; `expand` is the expansion ratio, and global pooling has no entry."""
    if op.kind == "mbconv":
        ratio = round(op.c_mid / op.c_in)
        flags = f"idskip:{int(op.shortcut)}-se:{int(op.se > 0)}"
        return f"MBConv-{_shapes(op)}-expand:{ratio}-kernel:{op.kernel}-stride:{op.stride}-{flags}"
    if op.kind == "pool":
        return None
    if op.kind == "linear":
        return f"classifier-input:{op.c_in}-output:{op.c_out}" if op.bias else f"feature_mix_layer-{_shapes(op)}"
    return ("first_conv" if op.kernel > 1 else "final_expand_layer") + f"-{_shapes(op)}"


FORMATS: dict[str, tuple[str, KeyOf]] = {
    "once-for-all": ("expanded_conv-", _official),
    "nsganetv2": ("MBConv-", _nsganet),
}
"""For each format, how its blocks' keys begin, and the key of an operator."""


def import_tables(files: Sequence[Path], space: SearchSpace, *, device: str, out: Path) -> LatencyTable:
    """Convert tables of others, one file a resolution or one for all, and save the result.

    Args:
        files: YAML, latencies in ms.
        space: whose geometry they must have.
        device: what to call the device.
        out: CSV file to write.

    Returns:
        a table of the resolutions for which every operator of the space has an entry. Its error is not known.

    Raises:
        ArtifactError: a file is unreadable or of another form, or no resolution is complete: the geometry differs.
    """
    outputs.check_output(out, ".csv")
    if space.widths or any(stage.kind != "mbconv" for stage in space.stages):
        raise ArtifactError(f"such tables are of MobileNet spaces, not of {space.name}; choose with --space")
    entries: dict[str, Mapping[str, Any]] = {}
    for file in files:
        entries |= _entries(file)
    name, key_of = _format(entries, files)
    lacking: dict[int, list[str]] = {}
    for resolution in space.resolutions:
        keys = {key_of(op) for op in space.all_ops([resolution])} - {None}
        lacking[resolution] = sorted(str(key) for key in keys if key not in entries)
    complete = [resolution for resolution, keys in lacking.items() if not keys]
    if not complete:
        nearest = min(lacking, key=lambda r: len(lacking[r]))
        raise ArtifactError(
            f"{files[0]} does not have the geometry of {space.name}: at {nearest} pixels it lacks "
            f"{len(lacking[nearest])} operators, first {lacking[nearest][0]}; choose the space with --space"
        )
    check_replaces(out, complete)
    rows = {op: _row(entries, key_of(op), files[0]) for op in space.all_ops(complete)}
    conditions = conditions_elsewhere(device, f"table of {name}", version="(imported)")
    table = LatencyTable(space, rows, tuple(complete), conditions)
    sources = [{"file": file.name, "sha256": atomic.sha256(file)} for file in files]
    table.save(out, {"format": name, "sources": sources})
    return table


def _entries(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """The entries of a YAML file, by their keys.

    Raises:
        ArtifactError: it is no YAML, or not of such entries.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise ValueError("it merges parts of itself")  # few lines of which can mean more than memory holds

    try:
        content = Loader(atomic.read(file).decode()).get_single_data()
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{file} is not YAML: {(str(error).splitlines() or ['it is damaged'])[0]}") from error
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise ArtifactError(f"{file} is no latency table: it must map operators to their mean latency in ms")
    return content


def _format(entries: Mapping[str, Any], files: Sequence[Path]) -> tuple[str, KeyOf]:
    """The name of the format that some entries are in, and the key of an operator there."""
    for name, (beginning, key_of) in FORMATS.items():
        if any(str(key).startswith(beginning) for key in entries):
            return name, key_of
    beginnings = " or ".join(f"{beginning}... ({name})" for name, (beginning, _) in FORMATS.items())
    raise ArtifactError(f"{files[0]} is of no known format: blocks are called {beginnings}")


def _row(entries: Mapping[str, Mapping[str, Any]], key: str | None, file: Path) -> Estimate:
    if key is None:
        return Estimate(0.0, 0.0, 0.0, 0)
    try:
        entry = entries[key]
        mean, count = float(entry["mean"]), int(entry.get("count", 0))
        deviation = float(entry["std"]) if "std" in entry else math.sqrt(float(entry.get("var", 0)))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{file}: {key} has no mean latency") from error
    if not (0 < mean < LARGEST_MS and 0 <= deviation < LARGEST_MS):
        raise ArtifactError(f"{file}: {key} has a latency of {mean} ms")
    return Estimate(mean, mean, 100 * deviation / mean, count)
