"""Tables from the latencies of whole networks, where operators cannot be timed one by one.

A network's latency is modelled as a sum over its operators (`sums`) of terms that grow with their work and terms for
their calls. The work is what tables of other devices say of an operator, or its multiply-accumulates. Many measured
networks also tell launching from computing (`smooth_maximum`); that is taken where cross-validation finds it clearly
better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.device.conditions import conditions_elsewhere
from ofa_deploy.device.rounds import FEWEST
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.latency import smooth_maximum, sums
from ofa_deploy.latency.cross_validation import compared, cross_validated, errors
from ofa_deploy.latency.machine_state import Estimate
from ofa_deploy.latency.operator_features import OperatorFeatures, operator_counts, operator_features
from ofa_deploy.latency.smooth_maximum import SmoothMaximumTerms, fit_smooth_maximum
from ofa_deploy.latency.sums import SumTerms, fit_sum
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import check_replaces
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.space import SearchSpace

GAIN = 0.95
"""A smooth maximum is taken where its error is below this share of a sum's: nothing can be proved about it."""
Terms = SumTerms | SmoothMaximumTerms
Method = Callable[[Floats, Floats], Terms]
"""From how often networks have each operator, and their latencies in ms, to fitted terms."""


def fit_table(
    space: SearchSpace,
    archs: Sequence[Arch],
    *,
    latency_ms: Floats,
    conditions: Mapping[str, Any],
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
        conditions: under which they were measured, as `device.conditions` gives them.
        others: tables of other devices whose rows tell the work of operators; without any, their MACs do.
        seed: of the folds.
        resolutions: that the table is to cover, beside those measured; None for those that all `others` have, and
            without any for those between the smallest and the largest measured.
        additive: whether the table must be a sum over operators.

    Returns:
        a table. Its error is that of five-fold cross-validation: of networks that the fit had not seen. From few
        networks it is somewhat too low, since the penalty is chosen by it.

    Raises:
        MeasureError: fewer than `FEWEST` networks, a latency that is not a positive number, or networks at resolutions
            that `others` lack.
    """
    if len(archs) < FEWEST:
        raise MeasureError(f"a table cannot be fitted to {len(archs)} networks; measure at least {FEWEST}")
    if not (np.isfinite(latency_ms).all() and (latency_ms > 0).all()):
        raise MeasureError("a measured latency is not a positive number")
    sizes = sorted({arch.resolution for arch in archs})
    check_cover([*sizes, *(resolutions or ())], others)
    if resolutions is None:
        between = tuple(r for r in space.resolutions if sizes[0] <= r <= sizes[-1])
        resolutions = covered(space, others) if others else between
    resolutions = tuple(sorted({*resolutions, *sizes}))
    ops, latency = space.all_ops(resolutions), np.asarray(latency_ms, float)
    features, counts = operator_features(ops, others), operator_counts(space, archs, ops)
    terms, unseen = _best_terms(_methods(features, len(archs), additive=additive), counts, latency, seed)
    last = np.array([op.kind == "linear" and op.bias for op in ops])  # every network has one classifier
    computing = terms.computing + terms.computing_constant * last
    launch_ms, power = {}, 0.0
    if isinstance(terms, SmoothMaximumTerms):
        launching = terms.launching + terms.launching_constant * last
        launch_ms, power = dict(zip(ops, launching.tolist(), strict=True)), terms.power
    return LatencyTable(
        space,
        {op: Estimate(ms, ms, 0.0, 0) for op, ms in zip(ops, computing.tolist(), strict=True)},
        resolutions,
        conditions,
        error=errors(unseen, latency),
        networks=compared(map(str, archs), unseen, latency),
        launch_ms=launch_ms,
        power=power,
    )


def _methods(features: OperatorFeatures, networks: int, *, additive: bool) -> list[tuple[float, Method]]:
    """What cross-validation chooses from: by what factor the error of a method counts, and the method."""
    methods: list[tuple[float, Method]] = [
        (GAIN, partial(fit_sum, features, penalty=penalty)) for penalty in sums.PENALTIES
    ]
    if networks >= smooth_maximum.FEWEST and not additive:
        methods += [
            (1.0, partial(fit_smooth_maximum, features, launch_penalty=penalty))
            for penalty in smooth_maximum.LAUNCH_PENALTIES
        ]
    return methods


def _best_terms(
    methods: Sequence[tuple[float, Method]], counts: Floats, latency_ms: Floats, seed: int
) -> tuple[Terms, Floats]:
    """The terms of the method with the least error in cross-validation, and what it predicts there, shape (networks,).

    Args:
        methods: the factor by which the error of each counts, and the method.
        counts: how often each network has each operator, shape (networks, operators).
        latency_ms: of the networks, shape (networks,).
        seed: of the folds.
    """
    unseen = [_unseen(method, counts, latency_ms, seed) for _, method in methods]
    relative = [np.abs(predicted / latency_ms - 1).mean() for predicted in unseen]
    best = int(np.argmin(np.multiply(relative, [factor for factor, _ in methods])))
    return methods[best][1](counts, latency_ms), unseen[best]


def _unseen(method: Method, counts: Floats, latency_ms: Floats, seed: int) -> Floats:
    """What fits of a method predict for networks that they had not seen, in ms, shape (networks,)."""
    return cross_validated(
        len(latency_ms),
        seed,
        lambda fitted, held: method(counts[fitted], latency_ms[fitted]).predict(counts[held]),
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
    *,
    column: str,
    conditions: Mapping[str, Any],
    out: Path,
    others: Sequence[Path] = (),
    seed: int = 0,
    additive: bool = False,
) -> LatencyTable:
    """Fit a table to the measured networks of a file, and save it.

    Args:
        space: of the networks.
        path: the list of networks, as `arch_lists.read` reads it, with a column of latencies in ms.
        column: its name.
        conditions: under which they were measured, as `fitted_conditions` gives them.
        out: CSV file to write.
        others: files of tables of other devices whose rows tell the work of operators.
        seed: of the folds.
        additive: whether the table must be a sum over operators.

    Raises:
        ArtifactError: a file is missing, damaged or of another space, a row has no latency, or a table that says more
            would be overwritten; it is named.
        MeasureError: there are too few networks, or `others` lack one of their resolutions.
    """
    outputs.check_output(out, ".csv")
    if path.resolve() in {out.resolve(), out.with_suffix(".json").resolve()}:
        raise ArtifactError(f"the table would overwrite {path}, which it is made from; choose another --out")
    archs, latency_ms = _measured(*arch_lists.read(path, space), path, column)
    tables = [LatencyTable.load(other, space) for other in others]
    table = fit_table(
        space, archs, latency_ms=latency_ms, conditions=conditions, others=tables, seed=seed, additive=additive
    )
    check_replaces(out, table.resolutions, others=tables)
    sources = [{"file": source.name, "sha256": atomic.sha256(source)} for source in (path, *others)]
    table.save(out, {"column": column, "sources": sources})
    return table


def fitted_conditions(device: str, *, batch: int = 1, precision: str = "fp32") -> dict[str, Any]:
    """Conditions of networks that were measured on a device by means of others.

    Args:
        device: what to call the device.
        batch: images that a latency is about.
        precision: that the networks were measured in.
    """
    return conditions_elsewhere(
        device, "table fitted to whole networks", version="(none)", batch=batch, precision=precision
    )


def _measured(
    archs: Sequence[Arch], rows: Sequence[Mapping[str, Any]], path: Path, column: str
) -> tuple[list[Arch], Floats]:
    """The networks of a list that were measured, and their latencies in ms; rows that are not filled in are left out.

    Raises:
        ArtifactError: there is no such column, or a cell of it is no latency.
    """
    if column not in rows[0]:
        columns = ", ".join(map(str, rows[0]))
        raise ArtifactError(f"{path} has no column {column!r} but {columns}; name that of the latencies with --column")
    cells = [(number, row.get(column)) for number, row in enumerate(rows, 1)]
    filled = [(number, cell) for number, cell in cells if cell not in (None, "")]
    if not filled:
        raise ArtifactError(f"{path}: no row of the column {column!r} is filled in yet")
    measured = [archs[number - 1] for number, _ in filled]
    return measured, np.array([_latency(cell, f"{path}, row {number}") for number, cell in filled])


def _latency(cell: Any, place: str) -> float:
    """A latency in ms from the cell of a list.

    Raises:
        ArtifactError: the cell is no positive number.
    """
    try:
        latency_ms = float(cell)
    except (TypeError, ValueError, OverflowError):
        latency_ms = math.nan
    if not 0 < latency_ms < math.inf:
        raise ArtifactError(f"{place}: {cell!r} is no latency; write milliseconds: 12.3")
    return latency_ms
