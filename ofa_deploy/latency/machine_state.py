"""How the visits to many graphs become an estimate of each, on a machine that is faster and slower all the time.

A visit's median is taken for a product: what its entry takes while the machine is fast, times how slow the machine was
(its state) to the power of an exponent, by which all entries of a kind answer to it, times noise. The exponent of the
sentinel, which is timed before each visit, is 1. What entries take, exponents and states are fitted in turn, as
logarithms: all visits that are close in time, and their sentinels, tell the state together, whatever was visited. So
visits in every state count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.device.rounds import Key
from ofa_deploy.device.timing import Visit
from ofa_deploy.spaces.costs import Floats

WINDOW = 5
"""Visits whose median, with that of their sentinels, is the state in the middle of them."""
PASSES = 6
"""Of the fit; it changes no more after four."""
FAST = 0.1
"""Quantile of the states that is called the fast one."""
EXPONENTS = (0.2, 3.0)
"""Between which exponents are looked for."""
PRIOR = 0.1
"""Weight, as squared states, of an exponent of 1: it decides where the machine was in one state all the time."""
_Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Estimate:
    """Latency of one graph, from all its visits.

    Attributes:
        latency_ms: the median of the visits' medians, each carried to the machine's fast state.
        minimum_ms: the smallest sample, carried likewise.
        spread_percent: (largest - smallest median) / smallest, over the visits as they were.
        runs: samples in all.
    """

    latency_ms: float
    minimum_ms: float
    spread_percent: float
    runs: int


def estimates(visits: Mapping[Key, Visit], kind: Callable[[str], object] = lambda name: None) -> dict[str, Estimate]:
    """For each entry, the median of its visits, carried to the machine's fast state.

    Args:
        visits: of all entries, in the order in which they were made.
        kind: of an entry, by its name.
    """
    slower, (names, entry) = states(visits, kind), _entries(visits)
    medians = np.array([visit.median_ms for visit in visits.values()])
    smallest = np.array([visit.minimum_ms for visit in visits.values()])
    runs = np.array([visit.runs for visit in visits.values()])
    found = {}
    for name, at in zip(names, _groups(entry, len(names)), strict=True):
        spread = 100 * (medians[at].max() / medians[at].min() - 1)
        latency, minimum = np.median(medians[at] / slower[at]), (smallest[at] / slower[at]).min()
        found[name] = Estimate(float(latency), float(minimum), float(spread), int(runs[at].sum()))
    return found


def states(visits: Mapping[Key, Visit], kind: Callable[[str], object] = lambda name: None) -> Floats:
    """By what factor each visit was slower than in the machine's fast state, shape (visits,); see `estimates`."""
    names, entry = _entries(visits)
    kinds = {one: i for i, one in enumerate(dict.fromkeys(map(kind, names)))}
    of_kind = np.array([kinds[kind(name)] for name in names], np.intp)[entry]
    latency = np.log([visit.median_ms for visit in visits.values()])
    sentinel = np.log([visit.sentinel_ms for visit in visits.values()])
    state = _running(sentinel - np.median(sentinel))
    groups = _groups(entry, len(names))
    for _ in range(PASSES):
        exponent = _exponents(latency, state, entry, of_kind)[of_kind]
        left = latency - exponent * state
        level = np.array([np.median(left[at]) for at in groups])
        state = _running((latency - level[entry]) / exponent, sentinel - np.median(sentinel - state))
    exponent = _exponents(latency, state, entry, of_kind)[of_kind]
    return np.asarray(np.exp(exponent * (state - np.quantile(state, FAST))))


def _entries(visits: Mapping[Key, Visit]) -> tuple[list[str], _Ints]:
    """The names of the entries, and which of them each visit was to, shape (visits,)."""
    index = {name: i for i, name in enumerate(dict.fromkeys(name for _, name in visits))}
    return list(index), np.array([index[name] for _, name in visits], np.intp)


def _groups(index: _Ints, number: int) -> list[_Ints]:
    """Where each of 0, 1, ..., number - 1 is found in `index`."""
    order = np.argsort(index, kind="stable")
    return np.split(order, np.searchsorted(index[order], np.arange(1, number)))


def _exponents(latency: Floats, state: Floats, entry: _Ints, of_kind: _Ints) -> Floats:
    """Slope of the latency over the state within entries, of each kind, by least squares."""
    times = np.bincount(entry)
    x, y = (part - (np.bincount(entry, part) / times)[entry] for part in (state, latency))
    slope = (np.bincount(of_kind, x * y) + PRIOR) / (np.bincount(of_kind, x * x) + PRIOR)
    return np.asarray(np.clip(slope, *EXPONENTS))


def _running(*rows: Any) -> Floats:
    """The median over `WINDOW` values of each row, in the middle of them; shapes (n,)."""
    length = len(rows[0])
    around = np.arange(length)[:, None] + np.arange(WINDOW) - WINDOW // 2
    return np.asarray(np.median(np.concatenate([row[np.clip(around, 0, length - 1)] for row in rows], axis=1), axis=1))
