"""How the visits to many graphs become an estimate of each, on a machine that is faster and slower all the time.

The logarithm of a visit's median is modelled as

    level of its graph + exponent of its graph's kind * state of the machine at that time + noise

The level is what the graph takes while the machine is fast. The state is how slow the machine is, as the logarithm of a
factor; graphs of a kind (operators, or networks) answer to it by the same exponent, and the sentinel, which is timed
before each visit, by the exponent 1. Levels, exponents and states are fitted in turn: all visits that are close in
time, and their sentinels, tell the state together, whatever was visited. So visits in every state count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.device.rounds import Key
from ofa_deploy.device.timing import Visit
from ofa_deploy.spaces.costs import Floats

WINDOW = 5
"""Visits whose median, with that of their sentinels, is the state in the middle of them."""
PASSES = 6
"""Of the fit in turn; it changes no more after four."""
FAST = 0.1
"""Quantile of the states that is called the fast one."""
EXPONENTS = (0.2, 3.0)
"""Between which exponents are looked for."""
PRIOR = 0.1
"""Weight, as squared states, of an exponent of 1: it decides where the machine was in one state all the time."""
Indices = npt.NDArray[np.intp]
"""Of graphs, kinds or visits, counted from 0."""


@dataclass(frozen=True)
class Estimate:
    """Latency of one graph, from all its visits.

    Attributes:
        latency_ms: the median of the visits' medians, each carried to the machine's fast state.
        minimum_ms: the smallest sample, carried to that state as well.
        spread_percent: (largest - smallest median) / smallest, over the visits as they were.
        runs: samples in all.
    """

    latency_ms: float
    minimum_ms: float
    spread_percent: float
    runs: int


def estimates(visits: Mapping[Key, Visit], kind: Callable[[str], object] = lambda name: None) -> dict[str, Estimate]:
    """For each graph, by its name, the median of its visits, carried to the machine's fast state.

    Args:
        visits: to all graphs, in the order in which they were made, by round and name.
        kind: of a graph, by its name.
    """
    slower = states(visits, kind)
    names, graph_of = _graphs(visits)
    medians = np.array([visit.median_ms for visit in visits.values()])
    smallest = np.array([visit.minimum_ms for visit in visits.values()])
    runs = np.array([visit.runs for visit in visits.values()])
    return {
        name: Estimate(
            float(np.median(medians[visited] / slower[visited])),
            float((smallest[visited] / slower[visited]).min()),
            float(100 * (medians[visited].max() / medians[visited].min() - 1)),
            int(runs[visited].sum()),
        )
        for name, visited in zip(names, _groups(graph_of, len(names)), strict=True)
    }


def states(visits: Mapping[Key, Visit], kind: Callable[[str], object] = lambda name: None) -> Floats:
    """By what factor each visit was slower than in the machine's fast state, shape (visits,).

    Args:
        visits: to all graphs, in the order in which they were made, by round and name.
        kind: of a graph, by its name.
    """
    names, graph_of = _graphs(visits)
    numbers = {value: i for i, value in enumerate(dict.fromkeys(map(kind, names)))}
    kind_of = np.array([numbers[kind(name)] for name in names], np.intp)[graph_of]
    latency = np.log([visit.median_ms for visit in visits.values()])
    sentinel = np.log([visit.sentinel_ms for visit in visits.values()])
    state = _running_median(sentinel - np.median(sentinel))
    groups = _groups(graph_of, len(names))
    for _ in range(PASSES):
        exponent = _exponents(latency, state, graph_of, kind_of)[kind_of]
        residual = latency - exponent * state
        level = np.array([np.median(residual[visited]) for visited in groups])
        state = _running_median((latency - level[graph_of]) / exponent, sentinel - np.median(sentinel - state))
    exponent = _exponents(latency, state, graph_of, kind_of)[kind_of]
    return np.asarray(np.exp(exponent * (state - np.quantile(state, FAST))))


def _graphs(visits: Mapping[Key, Visit]) -> tuple[list[str], Indices]:
    """The names of the graphs, and which of them each visit was to, shape (visits,)."""
    index = {name: i for i, name in enumerate(dict.fromkeys(name for _, name in visits))}
    return list(index), np.array([index[name] for _, name in visits], np.intp)


def _groups(index: Indices, number: int) -> list[Indices]:
    """The positions of each of 0, 1, ..., number - 1 in `index`."""
    order = np.argsort(index, kind="stable")
    return np.split(order, np.searchsorted(index[order], np.arange(1, number)))


def _exponents(latency: Floats, state: Floats, graph_of: Indices, kind_of: Indices) -> Floats:
    """The exponent of each kind, shape (kinds,).

    It is the slope of the latency over the state by least squares, both less their means over the visits to a graph,
    drawn to 1: `(sum x y + PRIOR) / (sum x^2 + PRIOR)`.

    Args:
        latency: logarithms, shape (visits,).
        state: logarithms, shape (visits,).
        graph_of: the graph of each visit, shape (visits,).
        kind_of: the kind of that graph, shape (visits,).
    """
    times = np.bincount(graph_of)
    x, y = (values - (np.bincount(graph_of, values) / times)[graph_of] for values in (state, latency))
    slope = (np.bincount(kind_of, x * y) + PRIOR) / (np.bincount(kind_of, x * x) + PRIOR)
    return np.asarray(np.clip(slope, *EXPONENTS))


def _running_median(*rows: Floats) -> Floats:
    """The median over `WINDOW` values of all rows together, in the middle of them; shapes (visits,)."""
    number = len(rows[0])
    window = np.clip(np.arange(number)[:, None] + np.arange(WINDOW) - WINDOW // 2, 0, number - 1)
    return np.asarray(np.median(np.concatenate([row[window] for row in rows], axis=1), axis=1))
