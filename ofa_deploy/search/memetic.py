"""Evolution of local optima with DEAP: children of networks that no change improves, improved themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from deap import base, tools

from ofa_deploy.search.evolve import Archive, Individual, Settings, Single, allowed_resolutions, fenced_random
from ofa_deploy.search.limits import Limit
from ofa_deploy.search.polish import polish
from ofa_deploy.search.variation import Variation
from ofa_deploy.space import SearchSpace

POOL = 24
"""Local optima that are kept."""
CONTESTANTS = 2
"""For a place as a parent."""
BROOD = 10
"""Children that are improved together."""


def recombine(
    space: SearchSpace, archive: Archive, limits: Sequence[Limit], settings: Settings, optima: Sequence[int]
) -> list[float]:
    """Cross local optima, and improve each child by local search.

    Args:
        space: of the networks.
        archive: of the search; what is found is added to it.
        limits: those of the archive.
        settings: of the search.
        optima: numbers of local optima in the archive.

    Returns:
        the best score after each brood.
    """
    toolbox = base.Toolbox()
    rng = np.random.default_rng((settings.seed, 1))
    variation = Variation(space, allowed_resolutions(space, limits), settings.mutate, rng)
    toolbox.register("vary", variation.children)
    toolbox.register("select", tools.selTournament, tournsize=CONTESTANTS)
    toolbox.register("improve", polish, space, archive, limits)
    toolbox.register("survive", tools.selBest)

    def individual(number: int) -> Individual:
        return Individual(number, Single((float(archive.over[number]), float(archive.scores[number]))))

    pool = [individual(number) for number in sorted(set(optima))]
    history = []
    with fenced_random(settings.seed):
        for start in range(0, settings.recombinations, BROOD):
            number = min(BROOD, settings.recombinations - start)
            parents = archive.genes[[parent.number for parent in toolbox.select(pool, 2 * number)]]
            found = toolbox.improve(archive.add(toolbox.vary(parents[::2], parents[1::2])).tolist())
            fresh = sorted(set(found) - {one.number for one in pool})
            pool = toolbox.survive([*pool, *map(individual, fresh)], POOL)
            history.append(archive.reached)
    return history
