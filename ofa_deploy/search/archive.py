"""What a search has evaluated: every architecture once."""

from __future__ import annotations

import numpy as np

from ofa_deploy.search.front import front_of, hypervolume
from ofa_deploy.search.limits import excess_of
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
        self._scores, self._excess = np.zeros(ROOM), np.zeros(ROOM)
        self._costs = np.zeros((ROOM, len(problem.limits)))
        self._front, self._fronted = np.zeros(0, np.intp), 0  # the front of the first so many

    def add(self, genes: Genes) -> Ints:
        """Evaluate those of some architectures that are new, which take the next numbers in their order.

        Args:
            genes: shape (n, columns).

        Returns:
            numbers of all of them, shape (n,).
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
            self._genes, self._scores, self._excess, self._costs = (
                np.concatenate([a, np.zeros_like(a)]) for a in (self._genes, self._scores, self._excess, self._costs)
            )
        if fresh:
            self._evaluate(rows[fresh])
        return np.array(numbers, np.intp)

    def _evaluate(self, genes: Genes) -> None:
        """Fill the last rows with these architectures, shape (n, columns)."""
        rows = slice(self.size - len(genes), self.size)
        self._genes[rows] = genes
        for i, limit in enumerate(self.problem.limits):
            self._costs[rows, i] = limit.cost(genes)
        self._excess[rows] = excess_of(self.problem.limits, self._costs[rows])
        self._scores[rows] = self.problem.score(genes)
        self.feasible = self.feasible or bool((self._excess[rows] == 0).any())

    @property
    def genes(self) -> Genes:
        """Of all architectures, shape (size, columns)."""
        return self._genes[: self.size]

    @property
    def scores(self) -> Floats:
        """What is maximised, shape (size,)."""
        return self._scores[: self.size]

    @property
    def excess(self) -> Floats:
        """By what share of the limits each is outside of them, shape (size,); 0 within."""
        return self._excess[: self.size]

    @property
    def costs(self) -> Floats:
        """What each architecture costs by each limit, shape (size, limits)."""
        return self._costs[: self.size]

    @property
    def reached(self) -> float:
        """The score of the best architecture, or of the best of those that are the least outside of the limits."""
        return float(self.scores[self.excess == self.excess.min()].max())

    def front(self) -> Ints:
        """Numbers of the front of score against the first limit's cost, of those within the limits; cheapest first."""
        fresh = self._fronted + np.flatnonzero(self.excess[self._fronted :] == 0)
        numbers = np.sort(np.concatenate([self._front, fresh]))
        self._front, self._fronted = numbers[front_of(self.scores[numbers], self.costs[numbers, 0])], self.size
        return self._front

    def hypervolume(self, worst: tuple[float, float]) -> float:
        """Area between the front and a reference point, in units of score times cost.

        Args:
            worst: score and cost of that point.
        """
        front = self.front()
        return hypervolume(self.scores[front], self.costs[front, 0], *worst)

    def best(self, number: int) -> list[int]:
        """Numbers of so many architectures, best first: those within the limits by score, then the closest ones."""
        numbers = np.flatnonzero(self.excess == 0)
        if len(numbers) > number:
            scores = self.scores[numbers]
            numbers = numbers[scores >= np.partition(scores, -number)[-number]]
        else:
            numbers = np.arange(self.size)
        order = np.lexsort((-self.scores[numbers], self.excess[numbers]))[:number]
        best: list[int] = numbers[order].tolist()
        return best
