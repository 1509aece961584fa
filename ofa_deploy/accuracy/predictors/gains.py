"""What models share that estimate all single changes of a network at once.

A change gives one gene another value. So it takes the codes of the present value away, adds those of the new one, and
moves the numbers (resolution and costs): of a few features the difference is d = a - b + n, with a the codes of the new
value, b those of the present one, and n the move of the numbers. A linear function s of the features gains

    s . d = s . a - s . b + s . n

where s . a is computed once for all values of all genes. Each model's file says what it makes of that, and what is
exact, to first or to second order in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ofa_deploy.accuracy.predictors.model import Array
from ofa_deploy.spaces.costs import Genes, Ints
from ofa_deploy.spaces.encoding import changed_numbers, features
from ofa_deploy.spaces.space import SearchSpace


class ChangeTable:
    """The codes of the m values that `SearchSpace.changes` gives to single genes.

    Args:
        space: of the networks.
        inputs: from genes to what a model takes, shape (n, f).
        changed: from genes to the last columns of that, its numbers, after each change, shape (n, m, numbers); None
            where all columns are codes.

    Attributes:
        columns: of the gene that each change sets, shape (m,).
        codes: of the value that each change sets, shape (m, f).
        starts: number of each gene's first change, shape (genes' columns,).
    """

    def __init__(
        self,
        space: SearchSpace,
        inputs: Callable[[Genes], Array],
        changed: Callable[[Genes], Array] | None = None,
    ) -> None:
        self.space, self.inputs, self.changed = space, inputs, changed
        self.columns, values = space.changes
        alone = np.zeros((1 + len(values), space.columns), np.int16)
        alone[1 + np.arange(len(values)), self.columns] = values
        encoded = inputs(alone)
        self.codes = encoded[1:] - encoded[0]
        self.numbers = 0 if changed is None else changed(alone[:1]).shape[2]
        self.codes[:, self.codes.shape[1] - self.numbers :] = 0
        self.starts = np.searchsorted(self.columns, np.arange(space.columns))

    @classmethod
    def of_features(cls, space: SearchSpace) -> ChangeTable:
        """The table of models that take `encoding.features` as they are."""
        return cls(space, lambda genes: features(space, genes), lambda genes: changed_numbers(space, genes))

    def of(self, genes: Genes) -> Moves:
        """The changes of networks, from genes of shape (n, columns)."""
        x = self.inputs(genes)
        if self.changed is None:
            moved = np.zeros((len(genes), len(self.columns), 0), x.dtype)
        else:
            moved = (self.changed(genes) - x[:, None, x.shape[1] - self.numbers :]).astype(x.dtype)
        return Moves(self, x, self.starts + genes, moved)


@dataclass(frozen=True)
class Moves:
    """The changes of n networks.

    Attributes:
        table: of the codes.
        x: what the model takes of the networks, shape (n, f).
        present: number of the change to the value that each gene has already, shape (n, genes' columns).
        numbers: by what each change moves the numbers, shape (n, m, numbers).
    """

    table: ChangeTable
    x: Array
    present: Ints
    numbers: Array

    def less_present(self, each: Array) -> Array:
        """What each value does, shape (n, m), less what the present one of its gene does."""
        return np.asarray(each - np.take_along_axis(each, self.present, axis=1)[:, self.table.columns])

    def along(self, slopes: Array) -> Array:
        """Gains s . d, shape (n, m), by slopes of the features, shape (n or 1, f)."""
        from_codes = self.less_present(slopes @ self.table.codes.T)
        return np.asarray(from_codes + (self.numbers @ slopes[:, -self.table.numbers :, None])[..., 0])


class RectifiedUnits:
    """The exact outputs of units `relu(x weights + biases)` after each change, weighted by slopes.

    Args:
        table: of the changes.
        weights: shape (f, units).
        biases: shape (units,).
    """

    def __init__(self, table: ChangeTable, weights: Array, biases: Array) -> None:
        self.table, self.weights, self.biases = table, weights, biases
        self._codes = table.codes @ weights

    def received(self, x: Array) -> Array:
        """What the units receive before they rectify, shape (n, units)."""
        return np.asarray(x @ self.weights + self.biases)

    def gains(self, moves: Moves, received: Array, slopes: Array) -> Array:
        """What the changes add to the units' outputs times slopes, shape (n, m).

        Args:
            moves: the changes.
            received: by the units at the networks.
            slopes: shape (n, units), or the same for all, shape (1, units).
        """
        table, out = self.table, np.empty((len(received), len(self.table.columns)))
        for i, present in enumerate(moves.present):
            h = (received[i] - self._codes[present])[table.columns]
            h += self._codes
            if table.numbers:
                h += moves.numbers[i] @ self.weights[-table.numbers :]
            np.maximum(h, 0, out=h)
            out[i] = h @ slopes[i % len(slopes)]
        return np.asarray(out - np.take_along_axis(out, moves.present[:, :1], axis=1))
