"""Tables from the latencies of whole networks, where operators cannot be timed one by one.

A network's latency is modelled as the sum over its operators of a term that grows with their work and a term for each
call, plus a constant; all are non-negative. The work is what tables of other devices say of the operator, or its
multiply-accumulates. Few measured networks determine how those tables are combined, many also what is particular to
the shape of an operator: its two terms are drawn to the common ones by a penalty that cross-validation chooses. Many
also tell launching from computing, see `smooth`; that is taken where cross-validation finds it clearly better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.device.conditions import conditions_elsewhere
from ofa_deploy.device.rounds import FEWEST
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.latency import smooth_maximum
from ofa_deploy.latency.machine_state import Estimate
from ofa_deploy.latency.table import LatencyTable, check_replaces, compared, cross_validated, errors
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace

PENALTIES = (1e2, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Weights of the penalty that cross-validation chooses from, for each measured network."""
OUTLIER = 3e-3
"""Relative errors above this count less than squared: by iteratively reweighted least squares (pseudo-Huber loss)."""
ROUNDS = 8
MANY = 100
"""Networks from which each kind of operator has a term for its call of its own."""
GAIN = 0.95
"""A smooth maximum is taken where its error is below this share of a sum's: nothing can be proved about it."""
TINY = 1e-3
"""The least share of a latency that one kind of term is taken to have before shapes are looked at."""


def fit_table(
    space: SearchSpace,
    archs: Sequence[Arch],
    latency_ms: Floats,
    measured: Mapping[str, Any],
    others: Sequence[LatencyTable] = (),
    seed: int = 0,
    resolutions: tuple[int, ...] | None = None,
    additive: bool = False,
) -> LatencyTable:
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
        additive: the table is to be a sum over operators.

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
    work = np.array([column for table in others for column in _work(table, ops)] or [[op.macs for op in ops]], float)
    shapes = sorted({op.shape for op in ops})
    index = {op: i for i, op in enumerate(ops)}
    counts = np.zeros((len(archs), len(ops)))
    for row, arch in zip(counts, archs, strict=True):
        for op in space.ops(arch):
            row[index[op]] += 1
    one_hot, latency = _one_hot([op.shape for op in ops]), np.asarray(latency_ms, float)
    kinds = _one_hot([(shape.kind, shape.se > 0, shape.shortcut) for shape in shapes])
    ways = _ways(_Model(work, one_hot, kinds), len(archs), additive)
    unseen = np.array([_unseen(way, counts, latency, seed) for _, way in ways])
    relative = np.abs(unseen / latency - 1).mean(axis=1)
    best = int(np.argmin(relative * [handicap for handicap, _ in ways]))
    terms = ways[best][1](counts, latency)
    last = np.array([op.kind == "linear" and op.bias for op in ops])  # every network has one classifier
    computing = terms.computing + terms.computing_constant * last
    rows = {op: _estimate(ms) for op, ms in zip(ops, computing.tolist(), strict=True)}
    launch_ms, power = {}, 0.0
    if isinstance(terms, smooth_maximum.Terms):
        launching = terms.launching + terms.launching_constant * last
        launch_ms, power = dict(zip(ops, launching.tolist(), strict=True)), terms.power
    networks = compared(map(str, archs), unseen[best], latency)
    error = errors(unseen[best], latency)
    return LatencyTable(
        space, rows, resolutions, measured, error=error, networks=networks, launch_ms=launch_ms, power=power
    )


def _unseen(way: _Way, counts: Floats, latency: Floats, seed: int) -> Floats:
    """What fits of a way predict for networks that they had not seen, in ms, shape (networks,)."""
    return cross_validated(
        len(latency), seed, lambda fitted, held: way(counts[fitted], latency[fitted]).predict(counts[held])
    )


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
    space: SearchSpace,
    path: Path,
    column: str,
    device: str,
    batch: int,
    others: Sequence[Path],
    out: Path,
    seed: int,
    additive: bool = False,
    precision: str = "fp32",
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
        additive: see `fit_table`.
        precision: that the networks were measured in.

    Raises:
        ArtifactError: a file is missing, damaged or of another space, a row has no latency, or a table that says more
            would be overwritten; it is named.
        MeasureError: see `fit_table`.
    """
    outputs.check_output(out, ".csv")
    if path.resolve() in {out.resolve(), out.with_suffix(".json").resolve()}:
        raise ArtifactError(f"the table would overwrite {path}, which it is made from; choose another --out")
    archs, latencies = _measured(*arch_lists.read(path, space), path, column)
    tables = [LatencyTable.load(other, space) for other in others]
    conditions = conditions_elsewhere(
        device, "table fitted to whole networks", version="(none)", batch=batch, precision=precision
    )
    table = fit_table(space, archs, np.array(latencies), conditions, tables, seed, additive=additive)
    check_replaces(out, table.resolutions, tables)
    sources = [{"file": p.name, "sha256": atomic.sha256(p)} for p in (path, *others)]
    table.save(out, {"column": column, "sources": sources})
    return table


def _measured(
    archs: Sequence[Arch], rows: Sequence[Mapping[str, Any]], path: Path, column: str
) -> tuple[list[Arch], list[float]]:
    """The networks of a list that were measured, and their latencies in ms; rows that are not filled in are left out.

    Raises:
        ArtifactError: there is no such column, or a cell of it is no latency.
    """
    if column not in rows[0]:
        there = ", ".join(map(str, rows[0]))
        raise ArtifactError(f"{path} has no column {column!r} but {there}; name that of the latencies with --column")
    found = []
    for number, (arch, row) in enumerate(zip(archs, rows, strict=True), 1):
        if (cell := row.get(column)) in (None, ""):
            continue
        try:
            found.append((arch, float(cell)))
            if not (math.isfinite(found[-1][1]) and found[-1][1] > 0):
                raise ValueError(cell)
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{path}, row {number}: {cell!r} is no latency; write milliseconds: 12.3") from error
    if not found:
        raise ArtifactError(f"{path}: no row of the column {column!r} is filled in yet")
    return [arch for arch, _ in found], [latency for _, latency in found]


@dataclass(frozen=True)
class _Terms:
    """Milliseconds of each operator, and of a network as such."""

    computing: Floats
    computing_constant: float

    def predict(self, counts: Floats) -> Floats:
        """Latency of networks, from how often they have each operator."""
        predicted: Floats = counts @ self.computing + self.computing_constant
        return predicted


@dataclass(frozen=True)
class _Model:
    """Networks as sums: `work` (sources, operators), `shapes` (operators, shapes), `kinds` (shapes, kinds)."""

    work: Floats
    shapes: Floats
    kinds: Floats

    def fit(self, counts: Floats, latency: Floats, penalty: float) -> _Terms:
        """Terms from some networks: `counts` (networks, operators), `latency` in ms (networks,)."""
        ones, sources = np.ones(len(counts)), len(self.work)
        calls = counts @ self.shapes
        kinds = self.kinds if len(counts) >= MANY else np.ones((len(self.kinds), 1))
        common = np.concatenate([counts @ self.work.T, calls @ kinds, ones[:, None]], axis=1)
        size = common.mean(axis=0)
        found = _least_squares(common / size, latency, None, None) / size
        work = found[:sources] @ self.work  # of each operator
        least = TINY * latency.mean()
        wanted_call = kinds @ found[sources:-1]  # of each shape
        call = np.maximum(wanted_call, least / calls.sum(axis=1).mean())
        constant = max(found[-1], least)
        columns = np.concatenate([(counts * work) @ self.shapes, calls * call, constant * ones[:, None]], axis=1)
        number = len(call)
        wanted = np.concatenate([np.ones(number), wanted_call / call, [found[-1] / constant]])
        pull = math.sqrt(penalty * len(counts))
        factors = _least_squares(columns, latency, pull * np.eye(len(wanted)), pull * wanted)
        of_shape = self.shapes @ (call * factors[number:-1])
        return _Terms(work * (self.shapes @ factors[:number]) + of_shape, constant * factors[-1])


_Way = Callable[[Floats, Floats], _Terms | smooth_maximum.Terms]


def _ways(model: _Model, networks: int, additive: bool) -> list[tuple[float, _Way]]:
    """What to choose from by cross-validation: by how much its error counts, and how terms are fitted."""
    ways: list[tuple[float, _Way]] = [(GAIN, partial(model.fit, penalty=penalty)) for penalty in PENALTIES]
    if networks >= smooth_maximum.FEWEST and not additive:
        work = (model.work / model.work.mean(axis=1, keepdims=True)).mean(axis=0)
        of = smooth_maximum.Model(work, model.shapes, model.kinds)
        ways += [(1.0, partial(of.fit, pull=pull)) for pull in smooth_maximum.PULLS]
    return ways


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


def _one_hot(labels: Sequence[Any]) -> Floats:
    """Which label each has, shape (labels, distinct labels); these in ascending order."""
    place = {label: i for i, label in enumerate(sorted(set(labels)))}
    return np.eye(len(place))[[place[label] for label in labels]]


def _work(table: LatencyTable, ops: Sequence[Op]) -> list[list[float]]:
    """What a table says of operators, in ms; of a smooth maximum, computing and launching."""
    computing = [max(0.0, table.in_network_ms(op)) for op in ops]
    return [computing, [table.launch_ms[op] for op in ops]] if table.power else [computing]


def _estimate(latency_ms: float) -> Estimate:
    return Estimate(latency_ms, latency_ms, 0.0, 0)
