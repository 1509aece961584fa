"""Measuring some resolutions and interpolating the others, where a check says that this is exact enough.

The smallest, the middle and the largest resolution are measured. In the middle of each gap between measured ones a few
operators are measured too: where interpolated figures are further from them than the tolerance, that resolution is
measured whole, and the two gaps that it makes are looked at likewise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ofa_deploy.device.rounds import Key
from ofa_deploy.device.timing import Visit
from ofa_deploy.errors import MeasureError
from ofa_deploy.latency.machine_state import Estimate, estimates
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace

logger = logging.getLogger(__name__)

CHECKED = 8
"""Operators that are measured in the middle of a gap."""

Visits = Mapping[Key, Visit]


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
        tolerance_percent: see `fill`.
    """

    rows: Mapping[Op, Estimate]
    measured: tuple[int, ...]
    checks: tuple[Check, ...]
    tolerance_percent: float

    @property
    def details(self) -> dict[str, Any]:
        """For a table's JSON."""
        checks = [
            {
                "resolution": c.resolution,
                "entries": c.entries,
                "error_percent": round(c.error_percent, 3),
                "interpolated": c.interpolated,
            }
            for c in self.checks
        ]
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
    asked: dict[str, None] = {}
    while True:
        whole = space.all_ops(measured)
        probes = {m: _probe(space, m, whole, seed) for _, m, _ in gaps}
        asked |= dict.fromkeys(names[op] for ops in (whole, *probes.values()) for op in ops)
        visits = visit(list(asked))
        found = estimates(visits, asked.__contains__)
        if not gaps:
            break
        known = {op: found[names[op]] for op in whole}
        bad: list[int] = []
        left: list[tuple[int, int, int]] = []
        for low, middle, high in gaps:
            exact = np.array([found[names[op]].latency_ms for op in probes[middle]])
            guessed = np.array([interpolated(op, known) for op in probes[middle]])
            error = float(100 * np.abs(guessed - exact).sum() / exact.sum()) if len(exact) else 0.0
            checks.append(Check(middle, len(exact), error, error <= tolerance_percent))
            logger.info(
                f"{middle} pixels: {len(exact)} operators interpolated from {low} and {high} are off by {error:.2g} %, "
                + ("so what lies between is interpolated" if error <= tolerance_percent else "so it is measured")
            )
            if error > tolerance_percent:
                bad.append(middle)
                left += _gaps(sizes, [low, middle, high])
        if not bad:
            break
        measured, gaps = sorted([*measured, *bad]), left
    known = {op: found[name] for op, name in names.items() if name in found}
    rows = {op: _guess(op, known) for op in space.all_ops(sizes) if op not in known}
    return visits, Filled(rows, tuple(measured), tuple(checks), tolerance_percent)


def interpolated(op: Op, known: Mapping[Op, Estimate]) -> float:
    """Latency of an operator in ms, on the line between the two nearest sizes of its shape; along its work."""
    shape = op.shape
    pairs = sorted((_work(other), row.latency_ms) for other, row in known.items() if other.shape == shape)
    work, latency = np.array(pairs).T
    return float(np.interp(_work(op), work, latency))


def _gaps(sizes: Sequence[int], measured: Sequence[int]) -> list[tuple[int, int, int]]:
    """Below, in the middle of, and above each gap between measured resolutions."""
    found = []
    for low, high in pairwise(measured):
        between = [size for size in sizes if low < size < high]
        if between:
            found.append((low, between[len(between) // 2], high))
    return found


def _probe(space: SearchSpace, resolution: int, known: Sequence[Op], seed: int) -> list[Op]:
    """A few operators of a resolution that are not known yet."""
    fresh = sorted(set(space.all_ops([resolution])) - set(known))
    chosen = np.random.default_rng([seed, resolution]).permutation(len(fresh))[:CHECKED]
    return [fresh[i] for i in sorted(chosen.tolist())]


def _work(op: Op) -> int:
    """What grows linearly with the area of an operator's maps."""
    return op.macs or op.size**2


def _guess(op: Op, known: Mapping[Op, Estimate]) -> Estimate:
    latency_ms = interpolated(op, known)
    return Estimate(latency_ms, latency_ms, 0.0, 0)
