"""What a fit to whole networks knows of operators: their work, the shapes that they have, and the kinds of shapes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace


@dataclass(frozen=True)
class OperatorFeatures:
    """What is known of the operators before any network is measured.

    Attributes:
        work: how much each source says that an operator has to do, in any unit, shape (sources, operators).
        shapes: which shape each operator has: one-hot, shape (operators, shapes).
        kinds: which kind each shape is of: one-hot, shape (shapes, kinds).
    """

    work: Floats
    shapes: Floats
    kinds: Floats


def operator_features(ops: Sequence[Op], others: Sequence[LatencyTable]) -> OperatorFeatures:
    """The features of operators.

    A shape is everything of an operator but its size in pixels; its kind is what it computes, whether it has
    squeeze-and-excitation, and whether it has a shortcut.

    Args:
        ops: the operators.
        others: tables of other devices, whose rows are the work; without any, multiply-accumulates are.

    Raises:
        MeasureError: a table lacks operators.
    """
    for table in others:
        _ = table.cost  # complains where rows are missing
    work = [row for table in others for row in _work(table, ops)] or [[float(op.macs) for op in ops]]
    shapes = sorted({op.shape for op in ops})
    kinds = one_hot([(shape.kind, shape.se > 0, shape.shortcut) for shape in shapes])
    return OperatorFeatures(np.array(work, float), one_hot([op.shape for op in ops]), kinds)


def operator_counts(space: SearchSpace, archs: Sequence[Arch], ops: Sequence[Op]) -> Floats:
    """How often each network has each operator, shape (networks, operators)."""
    column = {op: i for i, op in enumerate(ops)}
    counts = np.zeros((len(archs), len(ops)))
    for row, arch in zip(counts, archs, strict=True):
        for op in space.ops(arch):
            row[column[op]] += 1
    return counts


def one_hot(labels: Sequence[Hashable]) -> Floats:
    """Which label each item has, shape (items, distinct labels); the labels are in ascending order."""
    column = {label: i for i, label in enumerate(sorted(set(labels)))}  # type: ignore[type-var]
    return np.eye(len(column))[[column[label] for label in labels]]


def _work(table: LatencyTable, ops: Sequence[Op]) -> list[list[float]]:
    """What a table says of operators, in ms; of a smooth maximum, what it says of computing and of launching."""
    computing = [max(0.0, table.in_network_ms(op)) for op in ops]
    return [computing, [table.launch_ms[op] for op in ops]] if table.power else [computing]
