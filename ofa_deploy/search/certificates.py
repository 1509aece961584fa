"""A proof of how good a search was: the best prediction in the whole space, for a `concave` predictor.

The linear relaxation of every resolution comes first. Its reduced costs say how much of the bound each choice costs at
least. So most choices are ruled out, by an accuracy that is already reached or by one that is guessed, before a program
with binaries is solved; resolutions whose bound is not above what was found are not even tried.

The proof is about the predictor and the tables, not about true accuracy or latency.
"""

from __future__ import annotations

import logging
import math
import time

from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.milp import Model, Program, binaries
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result_parts import Certificate
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.costs import Genes, SmoothMaximum

logger = logging.getLogger(__name__)

TOLERANCE = 0.005
"""Points of accuracy between bound and network that still count as a proof."""


def certify(problem: Problem, seconds: float, incumbent: Genes | None = None) -> Certificate:
    """Prove the best predicted accuracy within limits over the whole space, or say how much is left open.

    The proof is about the predictor and the tables, not about true accuracy or latency.

    Args:
        problem: its predictor is a `concave` one.
        seconds: of wall time, after which the bound reached so far is returned; the linear relaxations (some 0.3 s)
            are always solved.
        incumbent: genes of a network within the limits, shape (1, columns), which makes it faster; None knows none.

    Raises:
        InfeasibleError: no network of the space is within the limits.
        OfaDeployError: the predictor is not concave, the incumbent is not within the limits, or
            the time ran out before any network was found.
    """
    concave = check_provable(problem, seconds)
    if incumbent is not None and problem.over(incumbent)[0] > 0:
        raise OfaDeployError(
            f"{problem.space.archs(incumbent)[0]} is not within the limits; start from a network that is"
        )
    started, clock = time.process_time(), Stopping(seconds=seconds).start()
    programs = _programs(problem, concave)
    if not programs:
        raise _nothing(problem)
    margin = programs[0].margin
    relaxation = max(p.relaxation for p in programs) + margin
    logger.info(f"linear relaxation: no network is predicted better than {relaxation:.3f} %")
    genes, found = incumbent, -math.inf if incumbent is None else float(concave.predict(incumbent)[0])
    while (top := max(programs, key=lambda p: p.best)).best > found + margin and top.solvable:
        if (left := clock.seconds_left) <= 0:
            break
        row = top.improve(found + margin, left)
        if row is not None and problem.over(row)[0] == 0:
            value = float(concave.predict(row)[0])
            genes, found = (row, value) if value > found else (genes, found)
        reached = "nothing yet" if genes is None else f"{found:.3f} %"
        logger.info(f"at most {max(p.best for p in programs) + margin:.3f} % can be predicted, found {reached}")
    open_percent = max(p.best for p in programs)
    if genes is None and open_percent == -math.inf:
        raise _nothing(problem)
    if genes is None:
        raise OfaDeployError(f"no network within the limits was found in {seconds:g} s; allow more time, or widen them")
    bound = max(found, open_percent + margin)
    return Certificate(
        bound_percent=bound,
        found_percent=found,
        gap_points=bound - found,
        proven=bound - found <= TOLERANCE,
        seconds=time.process_time() - started,
        relaxation_percent=relaxation,
        arch=problem.space.archs(genes)[0],
    )


def _programs(problem: Problem, predictor: Predictor) -> list[Program]:
    """Those of the resolutions that every cost covers and where a relaxed network is within the limits."""
    model, columns = Model(predictor), binaries(problem.space)
    programs = [Program(problem, columns, model, resolution) for resolution in problem.allowed_resolutions]
    return [program for program in programs if program.best > -math.inf]


def check_provable(problem: Problem, seconds: float) -> Predictor:
    """The predictor, if something can be proved about it.

    Raises:
        OfaDeployError: it is not concave, a table is not a sum, or there is no time.
    """
    predictor = problem.predictor
    if not seconds > 0:
        raise OfaDeployError(f"the time for a proof must be positive, not {seconds:g} s")
    if not isinstance(predictor, Predictor) or predictor.model != "concave":
        model = predictor.model if isinstance(predictor, Predictor) else "missing"
        raise OfaDeployError(
            f"only the optimum of a concave predictor can be proved, this one is {model}; "
            f"fit one with: ofa-deploy fit-predictor --space {problem.space.name} --model concave"
        )
    if any(isinstance(limit.cost, SmoothMaximum) for limit in problem.limits):
        raise OfaDeployError(
            "nothing can be proved within a latency table that is a smooth maximum of launching and computing; search "
            "without a proof, or fit one that is a sum with: ofa-deploy lut fit --additive"
        )
    return predictor


def _nothing(problem: Problem) -> InfeasibleError:
    return InfeasibleError(f"no network of {problem.space.name} is within the limits; widen them")
