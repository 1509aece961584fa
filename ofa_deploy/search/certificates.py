"""A proof of how good a search was: the best prediction in the whole space, for a `concave` predictor.

The linear relaxation of every resolution comes first. Its reduced costs say how much of the bound each choice costs at
least. So most choices are ruled out, by an accuracy that is already reached or by one that is guessed, before a program
with binaries is solved. Resolutions whose bound is not above the best network are not even tried.

The proof is about the predictor and the tables, not about true accuracy or latency.
"""

from __future__ import annotations

import logging
import math
import time

from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.search.binaries import binaries
from ofa_deploy.search.milp import Objective, Program
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result_records import Certificate
from ofa_deploy.search.stopping import Clock, Stopping
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
        incumbent: genes of a network within the limits, shape (1, columns), which makes the proof faster; or None.

    Raises:
        InfeasibleError: no network of the space is within the limits.
        OfaDeployError: the predictor is not concave, the incumbent is not within the limits, or the time ran out
            before there was any network.
    """
    predictor = check_provable(problem, seconds)
    if incumbent is not None and problem.excess(incumbent)[0] > 0:
        arch = problem.space.archs(incumbent)[0]
        raise OfaDeployError(f"{arch} is not within the limits; start from a network that is")
    started, clock = time.process_time(), Stopping(seconds=seconds if math.isfinite(seconds) else None).start()
    programs = _programs(problem, predictor)
    if not programs:
        raise _nothing_within(problem)
    margin = programs[0].margin
    relaxation = max(program.relaxation for program in programs) + margin
    logger.info(f"linear relaxation: no network is predicted better than {relaxation:.3f} %")
    genes, reached = _solved(problem, programs, incumbent, clock)
    possible = max(program.best for program in programs)
    if genes is None:
        if possible == -math.inf:
            raise _nothing_within(problem)
        raise OfaDeployError(f"no network within the limits was found in {seconds:g} s; allow more time, or widen them")
    bound = max(reached, possible + margin)
    return Certificate(
        bound_percent=bound,
        found_percent=reached,
        gap_points=bound - reached,
        proven=bound - reached <= TOLERANCE,
        seconds=time.process_time() - started,
        relaxation_percent=relaxation,
        arch=problem.space.archs(genes)[0],
    )


def _programs(problem: Problem, predictor: Predictor) -> list[Program]:
    """Those of the resolutions that every cost covers and where a relaxed network is within the limits."""
    objective, variables = Objective.of_predictor(predictor), binaries(problem.space)
    programs = [Program(problem, variables, objective, resolution) for resolution in problem.allowed_resolutions]
    return [program for program in programs if program.best > -math.inf]


def _solved(
    problem: Problem, programs: list[Program], incumbent: Genes | None, clock: Clock
) -> tuple[Genes | None, float]:
    """Improve the program of the highest bound, again and again, until a network reaches the bounds of all.

    Returns:
        genes of the best network, shape (1, columns), or None, and its prediction in percent.
    """
    margin = programs[0].margin
    genes, reached = incumbent, -math.inf if incumbent is None else float(problem.score(incumbent)[0])
    while (top := max(programs, key=lambda program: program.best)).best > reached + margin and top.solvable:
        if (seconds := clock.seconds_left) <= 0:
            break
        row = top.improve(reached + margin, seconds)
        if row is not None and problem.excess(row)[0] == 0 and (value := float(problem.score(row)[0])) > reached:
            genes, reached = row, value
        possible = max(program.best for program in programs) + margin
        in_words = "nothing yet" if genes is None else f"{reached:.3f} %"
        logger.info(f"at most {possible:.3f} % can be predicted, found {in_words}")
    return genes, reached


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


def _nothing_within(problem: Problem) -> InfeasibleError:
    return InfeasibleError(f"no network of {problem.space.name} is within the limits; widen them")
