"""Which subnetworks are measured: drawn one by one, or as tries whose networks share their beginnings."""

from __future__ import annotations

import itertools
from collections.abc import Container, Hashable, Iterable, Iterator

import numpy as np

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.spaces.arch import Arch, Block
from ofa_deploy.spaces.parts import Stage
from ofa_deploy.spaces.space import SearchSpace

DESIGNS = ("trie", "uniform")
"""How networks can be drawn, see `draw`."""
_INNER_BRANCHES = 2
"""Depths with which a beginning goes on at a stage between the second and the last."""
_FEWEST_DRAWN = 256
"""Networks drawn at a time, so that the last of a small space are drawn too."""
_BARREN_ROUNDS = 50
"""Rounds in a row without a new network after which a space counts as exhausted."""
_GROUP = 36
"""Networks of a group that are drawn uniformly, at most."""


def check_draw(design: str, number: int) -> None:
    """Refuse what cannot be drawn.

    Raises:
        OfaDeployError: there is no such design, or the number of networks is below 1.
    """
    if design not in DESIGNS:
        raise OfaDeployError(f"the design must be one of {', '.join(DESIGNS)}, not {design!r}")
    if number < 1:
        raise OfaDeployError(f"--number must be at least 1, not {number}")


def draw(
    space: SearchSpace, design: str, *, number: int, seed: int | tuple[int, ...], without: Iterable[Arch] = ()
) -> list[list[Arch]]:
    """Distinct networks in groups that are measured together.

    Args:
        space: the search space.
        design: `uniform`: each choice of each network drawn uniformly. `trie`: networks that share beginnings, so that
            measuring costs several times less: many first stages, each with all its depths; then, from every network
            so far, a next stage whose layers are drawn once for several of its depths (all of them at the second and
            the last stage, two in between).
        number: of networks in all.
        seed: of the draw.
        without: networks that must not be among them.

    Returns:
        groups of networks, each of one resolution.

    Raises:
        OfaDeployError: there is no such design, or the space has fewer networks.
    """
    check_draw(design, number)
    rng = np.random.default_rng(seed)
    decks = _Decks(rng)
    drawn = set(without)
    number += len(drawn)
    groups: list[list[Arch]] = []
    barren = 0
    while barren < _BARREN_ROUNDS:
        before = len(drawn)
        for group in _trie(space, decks) if design == "trie" else _uniform(space, rng, number - len(drawn), drawn):
            new = [arch for arch in dict.fromkeys(group) if arch not in drawn][: number - len(drawn)]
            drawn.update(new)
            if new:
                groups.append(new)
        if len(drawn) == number:
            return groups
        barren = 0 if len(drawn) > before else barren + 1
    raise OfaDeployError(f"{space.name} has fewer than {number} networks of this design; ask for fewer with --number")


def _uniform(
    space: SearchSpace, rng: np.random.Generator, number: int, without: Container[Arch]
) -> Iterator[list[Arch]]:
    """At most `number` new networks, in the order of their genes: those of a group begin alike where they can."""
    drawn = dict.fromkeys(space.archs(space.sample(rng, max(number, _FEWEST_DRAWN))))
    genes = space.genes([arch for arch in drawn if arch not in without][:number])
    for resolution in range(len(space.resolutions)):
        rows = genes[genes[:, 0] == resolution]
        archs = space.archs(rows[np.lexsort(rows.T[::-1])])
        yield from (archs[i : i + _GROUP] for i in range(0, len(archs), _GROUP))


class _Decks:
    """Choices drawn like cards: each comes once before any comes again, so that all levels stay balanced."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._decks: dict[Hashable, list[int]] = {}

    def draw(self, name: Hashable, number: int) -> int:
        """The next of `number` choices from the deck of that name."""
        if not self._decks.get(name):
            self._decks[name] = self.rng.permutation(number).tolist()
        return self._decks[name].pop()


def _trie(space: SearchSpace, decks: _Decks) -> Iterator[list[Arch]]:
    """One trie for each resolution, in shuffled order: a run of few networks has some of them, not the smallest."""
    for resolution in decks.rng.permutation(space.resolutions).tolist():
        beginnings: list[_Beginning] = [((), ())]
        stages_before = 0
        for i, part in enumerate(space.parts):
            if isinstance(part, Stage):
                all_depths = stages_before in (0, 1) or stages_before == len(space.stages) - 1
                branches = None if all_depths else _INNER_BRANCHES
                beginnings = [
                    longer for beginning in beginnings for longer in _grown(part, i, beginning, decks, branches)
                ]
                stages_before += 1
            elif isinstance(part.width, tuple):
                width = part.width
                beginnings = [(stages, (*widths, width[decks.draw(i, len(width))])) for stages, widths in beginnings]
        yield [space.check(Arch(resolution, stages, widths)) for stages, widths in beginnings]


_Beginning = tuple[tuple[tuple[Block, ...], ...], tuple[int, ...]]
"""Stages and widths of the first parts of a network."""


def _grown(
    stage: Stage, number: int, beginning: _Beginning, decks: _Decks, branches: int | None
) -> Iterator[_Beginning]:
    """A beginning and a stage, once for each of several depths.

    Args:
        stage: what comes next.
        number: of the stage among the parts of the space.
        beginning: stages and widths before it.
        decks: to draw from.
        branches: number of depths; None for all.
    """
    stages, widths = beginning
    choices = stage.choices
    layers = tuple(choices[decks.draw((number, i), len(choices))] for i in range(stage.depths[-1]))
    if isinstance(stage.width, tuple):
        widths = (*widths, stage.width[decks.draw(number, len(stage.width))])
    subsets = list(itertools.combinations(stage.depths, min(branches or len(stage.depths), len(stage.depths))))
    for depth in subsets[decks.draw((number, "depths"), len(subsets))]:
        yield (*stages, layers[:depth]), widths
