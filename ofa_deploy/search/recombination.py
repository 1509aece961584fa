"""Evolution of local optima with DEAP: children of networks that no change improves, improved themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from deap import base, tools

from ofa_deploy.search.archive import Archive
from ofa_deploy.search.evolution import Individual, Single, fenced_random
from ofa_deploy.search.local_search import LocalSearch
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Clock
from ofa_deploy.search.variation import Variation

POOL = 80
"""Local optima that are kept."""
CONTESTANTS = 3
"""Local optima that compete for a place as a parent."""
BROOD = 40
"""Children that are improved together."""


class Optima:
    """A population of local optima.

    Args:
        archive: of the search; children are added to it.
        settings: of the search.
        clock: tells when to stop.
        local: improves networks of the archive.
    """

    def __init__(self, archive: Archive, settings: SearchSettings, clock: Clock, local: LocalSearch) -> None:
        self._archive, self._clock, self._local, self._seed = archive, clock, local, settings.seed
        problem, rng = archive.problem, np.random.default_rng((settings.seed, 1))
        variation = Variation(problem.space, problem.allowed_resolutions, settings.mutate, rng)
        self._toolbox = base.Toolbox()
        self._toolbox.register("vary", variation.children)
        self._toolbox.register("select", tools.selTournament, tournsize=CONTESTANTS)
        self._toolbox.register("survive", tools.selBest)
        self._pool: list[Individual] = []
        self._broods = 0

    @property
    def numbers(self) -> list[int]:
        """Numbers of the population in the archive."""
        return [individual.number for individual in self._pool]

    def join(self, numbers: Sequence[int]) -> None:
        """Improve networks of the archive, and let the best of them and of the population survive."""
        fresh = sorted(set(self._local.improve(numbers)) - set(self.numbers))
        self._pool = self._toolbox.survive([*self._pool, *map(self._individual, fresh)], POOL)

    def recombine(self, number: int) -> list[float]:
        """Cross local optima, and improve their children.

        Args:
            number: of children, which are made in broods.

        Returns:
            the best score after each brood.
        """
        history: list[float] = []
        if not self._pool:
            return history
        for start in range(0, number, BROOD):
            if self._clock.due():
                break
            self._broods += 1
            with fenced_random(self._seed + self._broods):
                parents = self._toolbox.select(self._pool, 2 * min(BROOD, number - start))
            genes = self._archive.genes[[individual.number for individual in parents]]
            self.join(self._archive.add(self._toolbox.vary(genes[::2], genes[1::2])).tolist())
            history.append(self._archive.reached)
        return history

    def _individual(self, number: int) -> Individual:
        return Individual(number, Single((float(self._archive.excess[number]), float(self._archive.scores[number]))))
