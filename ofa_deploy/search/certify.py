"""A proof of how good a search was: the best prediction in the whole space, for a `concave` predictor.

The linear relaxation of every resolution comes first. Its reduced costs say how much of the bound each choice costs at
least. So most choices are ruled out, by an accuracy that is already reached or by one that is guessed, before a program
with binaries is solved; resolutions whose bound is not above what was found are not even tried.

The proof is about the predictor and the tables, not about true accuracy or latency.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.arch import Arch
from ofa_deploy.costs import AdditiveCost, Genes
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.progress import Report
from ofa_deploy.search.program import Model, Program, binaries
from ofa_deploy.space import SearchSpace

TOLERANCE = 0.005
"""Points of accuracy between bound and network that still count as a proof."""


@dataclass(frozen=True)
class Bound:
    """A limit of an additive cost.

    Attributes:
        cost: in any unit; resolutions that cost NaN are left out.
        lower: least allowed cost; None where there is none.
        upper: greatest allowed cost; None where there is none.

    Raises:
        OfaDeployError: no cost is between the two.
    """

    cost: AdditiveCost
    lower: float | None
    upper: float | None

    def __post_init__(self) -> None:
        least, most = self.ends()
        if not (least <= most and least < np.inf and most > -np.inf):
            raise OfaDeployError(f"a limit must go from a smaller to a larger cost, not from {least:g} to {most:g}")

    def allows(self, genes: Genes) -> npt.NDArray[np.bool_]:
        """Whether each architecture keeps the limit, shape (n,), up to the rounding of sums."""
        cost, (least, most) = self.cost(genes), self.ends()
        return (cost >= least - 1e-9 * abs(least)) & (cost <= most + 1e-9 * abs(most))

    def ends(self) -> tuple[float, float]:
        """The limits, infinite where there is none."""
        return -np.inf if self.lower is None else self.lower, np.inf if self.upper is None else self.upper


@dataclass(frozen=True)
class Certificate:
    """What is proved about the best prediction in a space; not about true accuracy.

    Attributes:
        bound_percent: no network of the space within the limits is predicted better.
        found_percent: predicted accuracy of the best network that is known.
        gap_points: between the two, at least 0.
        proven: whether the gap is at most `TOLERANCE`.
        seconds: CPU time of this process that it took.
        relaxation_percent: the bound of the linear relaxations alone.
        arch: the network of `found_percent`.
    """

    bound_percent: float
    found_percent: float
    gap_points: float
    proven: bool
    seconds: float
    relaxation_percent: float
    arch: Arch


def certify(
    space: SearchSpace, predictor: Predictor, bounds: Sequence[Bound], seconds: float, incumbent: Genes | None,
    report: Report,
) -> Certificate:  # fmt: skip
    """Prove the best predicted accuracy within limits over the whole space, or say how much is left open.

    The proof is about the predictor and the tables, not about true accuracy or latency.

    Args:
        space: of predictor and costs.
        predictor: a `concave` one.
        bounds: the limits.
        seconds: of wall time, after which the bound reached so far is returned; the linear relaxations (some 0.3 s)
            are always solved.
        incumbent: genes of a network within the limits, shape (1, columns), which makes it faster; None knows none.
        report: receives a line of progress now and then.

    Raises:
        InfeasibleError: no network of the space is within the limits.
        OfaDeployError: the predictor is not concave or of another space, the incumbent is not within the limits, or
            the time ran out before any network was found.
    """
    _check(space, predictor, bounds, seconds, incumbent)
    started, end = time.process_time(), time.monotonic() + seconds
    programs = _programs(space, predictor, bounds)
    if not programs:
        raise _nothing(space)
    margin = programs[0].margin
    relaxation = max(p.relaxation for p in programs) + margin
    report(f"linear relaxation: no network is predicted better than {relaxation:.3f} %")
    genes, found = incumbent, -math.inf if incumbent is None else float(predictor.mean(incumbent)[0])
    while (top := max(programs, key=lambda p: p.best)).best > found + margin and top.solvable:
        if (left := end - time.monotonic()) <= 0:
            break
        row = top.improve(found + margin, left)
        if row is not None and all(b.allows(row).all() for b in bounds):
            value = float(predictor.mean(row)[0])
            genes, found = (row, value) if value > found else (genes, found)
        reached = "nothing yet" if genes is None else f"{found:.3f} %"
        report(f"at most {max(p.best for p in programs) + margin:.3f} % can be predicted, found {reached}")
    open_percent = max(p.best for p in programs)
    if genes is None and open_percent == -math.inf:
        raise _nothing(space)
    if genes is None:
        raise OfaDeployError(f"no network within the limits was found in {seconds:g} s; allow more time, or widen them")
    bound = max(found, open_percent + margin)
    return Certificate(
        bound, found, bound - found, bound - found <= TOLERANCE, time.process_time() - started, relaxation,
        space.archs(genes)[0],
    )  # fmt: skip


def _programs(space: SearchSpace, predictor: Predictor, bounds: Sequence[Bound]) -> list[Program]:
    """Those of the resolutions that every cost covers and where a relaxed network is within the limits."""
    model, columns = Model(predictor), binaries(space)
    limits = [(b.cost, *b.ends()) for b in bounds]
    covered = [all(np.isfinite(b.cost.fixed[r]) for b in bounds) for r in range(len(space.resolutions))]
    programs = [Program(space, columns, model, limits, int(r)) for r in np.flatnonzero(covered)]
    return [p for p in programs if p.best > -math.inf]


def _check(
    space: SearchSpace, predictor: Predictor, bounds: Sequence[Bound], seconds: float, incumbent: Genes | None
) -> None:
    if not seconds > 0:
        raise OfaDeployError(f"the time for a proof must be positive, not {seconds:g} s")
    if predictor.space != space:
        raise OfaDeployError(f"the predictor is of {predictor.space.name}, not of {space.name}; choose one space")
    if any(b.cost.places != space.macs.places for b in bounds):
        raise OfaDeployError(f"a limit is of another space than {space.name}; choose one space")
    if predictor.model != "concave":
        raise OfaDeployError(
            f"the optimum of a {predictor.model} predictor cannot be proved; "
            f"fit one with: ofa-deploy fit-predictor --space {space.name} --model concave"
        )
    if incumbent is not None and not all(b.allows(incumbent).all() for b in bounds):
        raise OfaDeployError(f"{space.archs(incumbent)[0]} is not within the limits; start from a network that is")


def _nothing(space: SearchSpace) -> InfeasibleError:
    return InfeasibleError(f"no network of {space.name} is within the limits; widen them")
