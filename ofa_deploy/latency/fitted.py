"""Tables from the latencies of whole networks, where operators cannot be timed one by one.

A network's latency is modelled as the sum over its operators of a term that grows with their work and a term for each
call, plus a constant; all are non-negative. The work is what tables of other devices say of the operator, or its
multiply-accumulates. Few measured networks determine how those tables are combined, many also what is particular to
the shape of an operator: its two terms are drawn to the common ones by a penalty that cross-validation chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import KFold

from ofa_deploy import arch_lists, artifacts
from ofa_deploy.arch import Arch
from ofa_deploy.costs import Floats
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.latency.device.conditions import elsewhere
from ofa_deploy.latency.device.rounds import Estimate
from ofa_deploy.latency.table import LatencyTable, errors
from ofa_deploy.ops import Op
from ofa_deploy.space import SearchSpace

FEWEST = 5
"""Networks that a table can be fitted to."""
FOLDS = 5
PENALTIES = (1e2, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Weights of the penalty that cross-validation chooses from, for each measured network."""
OUTLIER = 0.01
"""Relative errors above this count less than squared: by iteratively reweighted least squares (pseudo-Huber loss)."""
ROUNDS = 8
TINY = 1e-3
"""The least share of a latency that one kind of term is taken to have before shapes are looked at."""


def fit_table(
    space: SearchSpace, archs: Sequence[Arch], latency_ms: Floats, measured: Mapping[str, Any],
    others: Sequence[LatencyTable] = (), seed: int = 0, resolutions: tuple[int, ...] | None = None,
) -> LatencyTable:  # fmt: skip
    """A table fitted to whole networks.

    Args:
        space: of the networks.
        archs: which were measured.
        latency_ms: of each, shape (n,).
        measured: the conditions, see `device.conditions`.
        others: tables of other devices whose rows tell the work of operators; without any, their MACs do.
        seed: of the folds.
        resolutions: that the table is to cover, beside those measured; None for those that all `others` have, and
            without any for those between the smallest and the largest measured.

    Returns:
        a table. Its error is that of five-fold cross-validation: of networks that the fit had not seen. From few
        networks it is somewhat too low, since the penalty is chosen by it.

    Raises:
        MeasureError: fewer than `FEWEST` networks, a latency that is none, or networks at resolutions that `others`
            lack.
    """
    if len(archs) < FEWEST:
        raise MeasureError(f"a table cannot be fitted to {len(archs)} networks; measure at least {FEWEST}")
    if not (np.isfinite(latency_ms).all() and (latency_ms > 0).all()):
        raise MeasureError("a measured latency is not a positive number")
    sizes = sorted({arch.resolution for arch in archs})
    check_cover([*sizes, *(resolutions or ())], others)
    if resolutions is None:
        inside = [r for r in space.resolutions if sizes[0] <= r <= sizes[-1]]
        resolutions = covered(space, others) if others else tuple(inside)
    resolutions = tuple(sorted({*resolutions, *sizes}))
    ops = space.all_ops(resolutions)
    for table in others:
        _ = table.cost  # complains where rows are missing
    work = np.array([[_latency(table, op) for op in ops] for table in others] or [[op.macs for op in ops]], float)
    shapes = sorted({_shape(op) for op in ops})
    place = {shape: i for i, shape in enumerate(shapes)}
    shape_of = np.array([place[_shape(op)] for op in ops])
    index = {op: i for i, op in enumerate(ops)}
    counts = np.zeros((len(archs), len(ops)))
    for row, arch in zip(counts, archs, strict=True):
        for op in space.ops(arch):
            row[index[op]] += 1
    model = _Model(counts, work, np.eye(len(shapes))[shape_of], np.asarray(latency_ms, float))

    parts = list(KFold(min(FOLDS, len(archs)), shuffle=True, random_state=seed).split(counts))
    unseen = np.zeros((len(PENALTIES), len(archs)))
    for fitted, held in parts:
        for row, penalty in zip(unseen, PENALTIES, strict=True):
            row[held] = model.predict(model.fit(fitted, penalty), held)
    relative = np.abs(unseen / latency_ms - 1).mean(axis=1)
    best = int(np.argmin(relative))
    terms = model.fit(np.arange(len(archs)), PENALTIES[best])
    each = terms.work + terms.call
    last = {op for op in ops if op.kind == "linear" and op.bias}  # every network has one classifier
    constant = np.array([terms.constant if op in last else 0.0 for op in ops])
    rows = {op: _estimate(ms) for op, ms in zip(ops, (each + constant).tolist(), strict=True)}
    networks = tuple(
        {"arch": str(a), "use": "cross-validation", "measured_ms": round(m, 5), "predicted_ms": round(p, 5)}
        for a, m, p in zip(archs, np.asarray(latency_ms).tolist(), unseen[best].tolist(), strict=True)
    )
    error = errors(unseen[best], latency_ms)
    return LatencyTable(space, rows, resolutions, measured, error=error, networks=networks)


def covered(space: SearchSpace, others: Sequence[LatencyTable]) -> tuple[int, ...]:
    """The resolutions that all of some tables have."""
    return tuple(r for r in space.resolutions if all(r in table.resolutions for table in others))


def check_cover(resolutions: Sequence[int], others: Sequence[LatencyTable]) -> None:
    """Make sure that tables of other devices have the resolutions of the networks.

    Raises:
        MeasureError: naming what they lack.
    """
    lacking = sorted(r for r in resolutions if any(r not in table.resolutions for table in others))
    if lacking:
        raise MeasureError(f"a table of --from lacks the resolution {lacking[0]}; leave it out, or take another table")


def fit_file(
    space: SearchSpace, path: Path, column: str, device: str, batch: int, others: Sequence[Path], out: Path, seed: int
) -> LatencyTable:
    """Fit a table to the measured networks of a file, and save it.

    Args:
        space: theirs.
        path: see `arch_lists.read`; with a column of latencies in ms.
        column: its name.
        device: what to call the device.
        batch: images that a latency is about.
        others: files of tables of other devices.
        out: CSV file to write.
        seed: of the folds.

    Raises:
        ArtifactError: a file is missing, damaged or of another space, or a row has no latency; it is named.
        MeasureError: see `fit_table`.
    """
    artifacts.check_output(out, ".csv")
    written = {out.resolve(), out.with_suffix(".json").resolve()}
    if clash := [p for p in (path, *others) if p.resolve() in written]:
        raise ArtifactError(f"the table would overwrite {clash[0]}, which it is made from; choose another --out")
    archs, rows = arch_lists.read(path, space)
    latencies = []
    for number, row in enumerate(rows, 1):
        try:
            latencies.append(float(row[column]))
            if not (math.isfinite(latencies[-1]) and latencies[-1] > 0):
                raise ValueError(row[column])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path}, row {number}: no positive latency in the column {column!r}; name the one with --column"
            ) from error
    tables = [LatencyTable.load(other, space) for other in others]
    conditions = elsewhere(device, "table fitted to whole networks", "(none)", batch)
    table = fit_table(space, archs, np.array(latencies), conditions, tables, seed)
    sources = [{"file": p.name, "sha256": artifacts.sha256(p)} for p in (path, *others)]
    table.save(out, {"column": column, "sources": sources})
    return table


@dataclass(frozen=True)
class _Terms:
    """Milliseconds of each operator's work and of its call, and of a network as such."""

    work: Floats
    call: Floats
    constant: float


@dataclass(frozen=True)
class _Model:
    """Networks as sums: `counts` (networks, operators), `work` (sources, operators), `shapes` (operators, shapes)."""

    counts: Floats
    work: Floats
    shapes: Floats
    latency_ms: Floats

    def fit(self, rows: Any, penalty: float) -> _Terms:
        """Terms from some of the networks."""
        counts, latency = self.counts[rows], self.latency_ms[rows]
        calls, ones = counts.sum(axis=1), np.ones(len(counts))
        common = np.stack([*(counts @ self.work.T).T, calls, ones], axis=1)
        size = common.mean(axis=0)
        found = _least_squares(common / size, latency, None, None) / size
        work = found[:-2] @ self.work  # of each operator
        least = TINY * latency.mean()
        call, constant = max(found[-2], least / calls.mean()), max(found[-1], least)
        columns = np.concatenate(
            [(counts * work) @ self.shapes, call * (counts @ self.shapes), constant * ones[:, None]], axis=1
        )
        number = self.shapes.shape[1]
        wanted = np.ones(2 * number + 1)
        wanted[number:-1], wanted[-1] = found[-2] / call, found[-1] / constant
        pull = math.sqrt(penalty * len(counts))
        factors = _least_squares(columns, latency, pull * np.eye(len(wanted)), pull * wanted)
        return _Terms(
            work * (self.shapes @ factors[:number]), call * (self.shapes @ factors[number:-1]), constant * factors[-1]
        )

    def predict(self, terms: _Terms, rows: Any) -> Floats:
        """Latency of some of the networks."""
        predicted: Floats = self.counts[rows] @ (terms.work + terms.call) + terms.constant
        return predicted


def _least_squares(columns: Floats, latency: Floats, more: Floats | None, target: Floats | None) -> Floats:
    """Non-negative coefficients with the least relative errors, outliers damped; `more` rows aim at `target`."""
    from scipy.optimize import nnls

    weight = np.ones(len(latency))
    found = np.zeros(columns.shape[1])
    for _ in range(ROUNDS):
        left, right = columns * (weight / latency)[:, None], weight
        if more is not None and target is not None:
            left, right = np.concatenate([left, more]), np.concatenate([right, target])
        try:
            found, _ = nnls(left, right, maxiter=50 * columns.shape[1])
        except RuntimeError as error:
            raise MeasureError("these latencies cannot be fitted: the least squares do not converge") from error
        weight = (1 + ((columns @ found / latency - 1) / OUTLIER) ** 2) ** -0.25
    return found


def _shape(op: Op) -> Op:
    """An operator at any size."""
    return replace(op, size=1)


def _latency(table: LatencyTable, op: Op) -> float:
    """What a table says of an operator, in ms."""
    return max(0.0, table.in_network_ms(op))


def _estimate(latency_ms: float) -> Estimate:
    return Estimate(latency_ms, latency_ms, 0.0, 0)
