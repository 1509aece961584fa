"""What a search has evaluated: every architecture once."""

from __future__ import annotations

import numpy as np

from ofa_deploy.search.front import front_of
from ofa_deploy.search.limits import outside
from ofa_deploy.search.problem import Problem
from ofa_deploy.spaces.costs import Floats, Genes, Ints

ROOM = 1024
"""Rows to begin with; they are doubled when they are full."""


class Archive:
    """Every architecture that a search has evaluated, each once.

    Args:
        problem: which says what is maximised, and within which limits.

    Attributes:
        problem: of the search.
        size: how many architectures there are.
        feasible: whether one of them is within the limits.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.size, self.feasible = problem, 0, False
        self._numbers: dict[bytes, int] = {}
        self._genes = np.zeros((ROOM, problem.space.columns), np.int16)
        self._scores, self._over = np.zeros(ROOM), np.zeros(ROOM)
        self._costs = np.zeros((ROOM, len(problem.limits)))
        self._front, self._fronted = np.zeros(0, np.intp), 0  # the front of so many

    def add(self, genes: Genes) -> Ints:
        """Evaluate those of the architectures that are new; returns the numbers of all, shape (n,).

        New ones have the next numbers, in order.
        """
        rows = np.ascontiguousarray(genes, np.int16)
        keys = rows.view(f"V{rows.itemsize * rows.shape[1]}")[:, 0].tolist()
        numbers: list[int] = []
        fresh: list[int] = []
        for i, key in enumerate(keys):
            number = self._numbers.setdefault(key, self.size)
            numbers.append(number)
            if number == self.size:
                fresh.append(i)
                self.size += 1
        while len(self._genes) < self.size:
            self._genes, self._scores, self._over, self._costs = (
                np.concatenate([a, np.zeros_like(a)]) for a in (self._genes, self._scores, self._over, self._costs)
            )
        if fresh:
            self._evaluate(rows[fresh])
        return np.array(numbers, np.intp)

    def _evaluate(self, genes: Genes) -> None:
        """Fill the last rows."""
        rows = slice(self.size - len(genes), self.size)
        self._genes[rows] = genes
        for i, limit in enumerate(self.problem.limits):
            self._costs[rows, i] = limit.cost(genes)
        self._over[rows] = outside(self.problem.limits, self._costs[rows])
        self._scores[rows] = self.problem.score(genes)
        self.feasible = self.feasible or bool((self._over[rows] == 0).any())

    @property
    def genes(self) -> Genes:
        """Shape (size, columns)."""
        return self._genes[: self.size]

    @property
    def scores(self) -> Floats:
        """Shape (size,)."""
        return self._scores[: self.size]

    @property
    def over(self) -> Floats:
        """How far each is outside of the limits, shape (size,); 0 within."""
        return self._over[: self.size]

    @property
    def costs(self) -> Floats:
        """What each costs by each limit, shape (size, limits)."""
        return self._costs[: self.size]

    @property
    def reached(self) -> float:
        """The score of the best architecture, see `best`; without sorting."""
        return float(self.scores[self.over == self.over.min()].max())

    def front(self) -> Ints:
        """Numbers of the front of score against the first limit's cost, of those within the limits; cheapest first."""
        fresh = self._fronted + np.flatnonzero(self.over[self._fronted :] == 0)
        among = np.sort(np.concatenate([self._front, fresh]))
        self._front, self._fronted = among[front_of(self.scores[among], self.costs[among, 0])], self.size
        return self._front

    def best(self, number: int) -> list[int]:
        """Numbers of the best architectures, best first: those within the limits by score, then the closest ones."""
        among = np.flatnonzero(self.over == 0)
        if len(among) > number:
            least = np.partition(self.scores[among], -number)[-number]
            among = among[self.scores[among] >= least]
        else:
            among = np.arange(self.size)
        order = np.lexsort((-self.scores[among], self.over[among]))[:number]
        numbers: list[int] = among[order].tolist()
        return numbers
