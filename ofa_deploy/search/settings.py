"""How a search runs: everything but when it stops."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields

from ofa_deploy.errors import OfaDeployError


@dataclass(frozen=True)
class SearchSettings:
    """How a search runs.

    Attributes:
        population: architectures kept from one generation of evolution to the next.
        tournament: contestants for a place as a parent.
        mutate: probability that a stage's depth, a block's kernel or expansion, a width or the resolution of a child
            is drawn anew.
        restarts: of surrogate and local search, that evolution begins with; 0 begins with random networks.
        recombinations: children of local optima, half of them before evolution and half after.
        seed: of everything random.
    """

    population: int = 128
    tournament: int = 3
    mutate: float = 0.2
    restarts: int = 10
    recombinations: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):  # numbers of numpy become Python's, which JSON has
            number = operator.index if isinstance(field.default, int) else float
            object.__setattr__(self, field.name, number(getattr(self, field.name)))
        least = {"population": 4, "tournament": 1, "restarts": 0, "recombinations": 0}
        if few := [f"{name} of at least {number}" for name, number in least.items() if getattr(self, name) < number]:
            raise OfaDeployError(f"a search needs {' and '.join(few)}")
        if not 0 < self.mutate <= 1:
            raise OfaDeployError(f"the mutation probability must be in (0, 1], not {self.mutate}")
