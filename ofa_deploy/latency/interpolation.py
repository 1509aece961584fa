"""Measuring some resolutions and interpolating the others, where a check says that this is exact enough.

The smallest, the middle and the largest resolution are measured. In the middle of each gap between measured ones a few
operators are measured too: where interpolated figures are further from them than the tolerance, that resolution is
measured whole, and the two gaps that it makes are checked in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ofa_deploy.device.rounds import Key
from ofa_deploy.device.timing import Visit
from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.machine_state import Estimate, estimates
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace

logger = logging.getLogger(__name__)

CHECKED = 8
"""Operators that are measured in the middle of a gap."""

Visits = Mapping[Key, Visit]
"""By round and entry, in the order in which they were made."""


@dataclass(frozen=True)
class Gap:
    """Two measured resolutions in pixels, and the one in the middle of those between them."""

    low: int
    middle: int
    high: int


@dataclass(frozen=True)
class Check:
    """How far interpolated latencies were from measured ones at one resolution.

    Attributes:
        resolution: in pixels.
        entries: operators that were compared.
        error_percent: sum of the absolute differences, in percent of the sum of the measured latencies.
        interpolated: whether the gap was left to interpolation then; otherwise the resolution was measured.
    """

    resolution: int
    entries: int
    error_percent: float
    interpolated: bool


@dataclass(frozen=True)
class Filled:
    """What was not measured.

    Attributes:
        rows: interpolated latencies, by operator; of no runs.
        measured: the resolutions that were measured whole.
        checks: in the order in which they were made.
        tolerance_percent: the largest error of a check after which a gap was interpolated.
    """

    rows: Mapping[Op, Estimate]
    measured: tuple[int, ...]
    checks: tuple[Check, ...]
    tolerance_percent: float

    @property
    def details(self) -> dict[str, Any]:
        """What a table's JSON says about it."""
        checks = [asdict(check) | {"error_percent": round(check.error_percent, 3)} for check in self.checks]
        return {
            "entries": len(self.rows),
            "measured_resolutions": list(self.measured),
            "tolerance_percent": self.tolerance_percent,
            "checks": checks,
        }


def fill(
    space: SearchSpace,
    resolutions: Sequence[int],
    *,
    names: Mapping[Op, str],
    tolerance_percent: float,
    seed: int,
    visit: Callable[[Sequence[str]], Visits],
) -> tuple[Visits, Filled]:
    """Measure as many resolutions as it takes, and interpolate the entries of the others.

    Args:
        space: of the operators.
        resolutions: that the table is to cover.
        names: of the entries, by operator.
        tolerance_percent: the largest error of a check after which a gap is interpolated.
        seed: of the operators that are checked.
        visit: measures entries, beside those that it was asked for before, and gives all visits so far.

    Raises:
        MeasureError: the tolerance is not positive.
    """
    if not tolerance_percent > 0:
        raise MeasureError(f"the tolerance of --interpolate must be a positive percentage, not {tolerance_percent}")
    sizes = sorted(set(resolutions))
    measured = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})
    gaps = _gaps(sizes, measured)
    checks: list[Check] = []
    entries: dict[str, None] = {}
    while True:
        whole = space.all_ops(measured)
        probes = {gap: _probe(space, gap.middle, whole, seed) for gap in gaps}
        entries |= dict.fromkeys(names[op] for ops in (whole, *probes.values()) for op in ops)
        visits = visit(list(entries))
        estimated = estimates(visits, entries.__contains__)
        rows = {op: estimated[names[op]] for op in whole}
        latest = []
        for gap, ops in probes.items():
            exact_ms = np.array([estimated[names[op]].latency_ms for op in ops])
            interpolated_ms = np.array([interpolated(op, rows) for op in ops])
            latest.append(_checked(gap, exact_ms, interpolated_ms, tolerance_percent))
        checks += latest
        failed = [gap for gap, check in zip(gaps, latest, strict=True) if not check.interpolated]
        if not failed:
            break
        measured = sorted([*measured, *(gap.middle for gap in failed)])
        gaps = [half for gap in failed for half in _gaps(sizes, [gap.low, gap.middle, gap.high])]
    rows = {op: estimated[name] for op, name in names.items() if name in estimated}
    filled = {op: _estimate(op, rows) for op in space.all_ops(sizes) if op not in rows}
    return visits, Filled(filled, tuple(measured), tuple(checks), tolerance_percent)


def _checked(gap: Gap, exact_ms: Floats, interpolated_ms: Floats, tolerance_percent: float) -> Check:
    """How far interpolated latencies of the operators in the middle of a gap are from exact ones."""
    error_percent = float(100 * np.abs(interpolated_ms - exact_ms).sum() / exact_ms.sum()) if len(exact_ms) else 0.0
    check = Check(gap.middle, len(exact_ms), error_percent, error_percent <= tolerance_percent)
    logger.info(
        f"{gap.middle} pixels: {len(exact_ms)} operators interpolated from {gap.low} and {gap.high} are off by "
        f"{error_percent:.2g} %, so "
        + ("what lies between is interpolated" if check.interpolated else "it is measured")
    )
    return check


def interpolated(op: Op, rows: Mapping[Op, Estimate]) -> float:
    """Latency of an operator in ms, on the line between the two nearest sizes of its shape, along its work.

    Args:
        op: the operator.
        rows: measured ones, of which some have its shape.
    """
    shape = op.shape
    pairs = sorted((_work(other), row.latency_ms) for other, row in rows.items() if other.shape == shape)
    work, latency_ms = np.array(pairs).T
    return float(np.interp(_work(op), work, latency_ms))


def _gaps(sizes: Sequence[int], measured: Sequence[int]) -> list[Gap]:
    """The gaps between measured resolutions that have others inside."""
    gaps = []
    for low, high in pairwise(measured):
        between = [size for size in sizes if low < size < high]
        if between:
            gaps.append(Gap(low, between[len(between) // 2], high))
    return gaps


def _probe(space: SearchSpace, resolution: int, measured: Sequence[Op], seed: int) -> list[Op]:
    """A few operators of a resolution that are not among the measured ones."""
    fresh = sorted(set(space.all_ops([resolution])) - set(measured))
    places = np.random.default_rng([seed, resolution]).permutation(len(fresh))[:CHECKED]
    return [fresh[place] for place in sorted(places.tolist())]


def _work(op: Op) -> int:
    """What grows linearly with the area of an operator's maps."""
    return op.macs or op.size**2


def _estimate(op: Op, rows: Mapping[Op, Estimate]) -> Estimate:
    latency_ms = interpolated(op, rows)
    return Estimate(latency_ms, latency_ms, 0.0, 0)
