"""Local search, against every change of every network of a small space."""

import numpy as np

from ofa_deploy.search.archive import Archive
from ofa_deploy.search.limits import cost_limit
from ofa_deploy.search.local_search import EARLY, LocalSearch
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.space import SearchSpace
from tests.search.conftest import Rugged, everything, rugged


def additive(genes: Genes) -> Floats:
    """A score whose gains add up."""
    worth = np.random.default_rng(3).uniform(0, 1, (genes.shape[1], 40)).cumsum(axis=1)
    return np.asarray(np.take_along_axis(worth[None], genes[:, :, None].astype(int), axis=2).sum(axis=(1, 2)))


class Additive(Rugged):
    """A predictor of that score."""

    def score(self, genes: Genes) -> Floats:
        return additive(genes)


def local_search(archive: Archive, problem: Problem | None = None) -> LocalSearch:
    """In the problem of the archive, or in another one."""
    return LocalSearch(problem or archive.problem, archive, Stopping().start(archive))


def better(scores: Floats, whole: Genes, within: np.ndarray, row: Genes, most: int) -> Genes:
    """Networks within the limit that differ in at most so many genes and have a higher score."""
    own = scores[(whole == row).all(axis=1)]
    return whole[within & ((whole != row).sum(axis=1) <= most) & (scores > own + 1e-9)]


def test_no_single_change_improves_what_it_ends_with(small: SearchSpace) -> None:
    whole = everything(small)
    limit = cost_limit(small, "macs", budget="40%")
    archive = Archive(Problem(small, [limit], Rugged(small)))
    numbers = archive.add(small.sample(np.random.default_rng(0), 40)).tolist()
    ends = local_search(archive).improve(numbers)
    assert ends == sorted(set(ends))
    assert 1 < len(ends) < 40, "climbers meet"
    assert (archive.excess[ends] == 0).all(), "those that were outside of the limit have come inside"
    for row in archive.genes[ends]:
        assert not len(better(rugged(whole), whole, limit.excess(whole) == 0, row, 1))


def test_no_pair_of_changes_improves_where_gains_add_up(tiny: SearchSpace) -> None:
    """Under a limit that is used up a single change is hardly ever possible: one thing has to go for another."""
    whole = everything(tiny)
    limit = cost_limit(tiny, "macs", budget="30%")
    archive = Archive(Problem(tiny, [limit], Additive(tiny)))
    numbers = archive.add(tiny.sample(np.random.default_rng(0), 40)).tolist()
    resolution = archive.genes[:, 0].copy()
    ends = local_search(archive).improve(numbers)
    assert set(resolution) == {0, 1}
    for row in archive.genes[ends]:
        same = (whole[:, 0] == row[0]) & (limit.excess(whole) == 0)
        found = better(additive(whole), whole, same, row, 2)
        longer = ((found > 0) != (row > 0)).sum(axis=1)  # two changes of one stage's depth are not made at once
        assert not len(found[longer == 0])


def test_limits_may_be_closer_than_those_of_the_archive(tiny: SearchSpace) -> None:
    wide, close = (Problem(tiny, [cost_limit(tiny, "macs", budget=share)], Rugged(tiny)) for share in ("60%", "20%"))
    archive = Archive(wide)
    numbers = archive.add(tiny.sample(np.random.default_rng(0), 10)).tolist()
    far, near = (local_search(archive, problem).improve(numbers) for problem in (wide, close))
    assert max(archive.scores[far]) > max(archive.scores[near])
    assert (close.excess(archive.genes[near]) == 0).all()


class Counted(Rugged):
    """Notes how many networks it is evaluated for."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.evaluated = 0

    def score(self, genes: Genes) -> Floats:
        self.evaluated += len(genes)
        return rugged(genes)


class WithGains(Counted):
    """Tells what every change gains."""

    def gains(self, genes: Genes) -> Floats:
        columns, values = self.space.changes
        changed = np.repeat(genes[:, None], len(columns), axis=1)
        changed[:, np.arange(len(columns)), columns] = values
        after = rugged(changed.reshape(-1, genes.shape[1])).reshape(changed.shape[:2])
        return np.asarray(after - rugged(genes)[:, None])


def test_who_is_told_gains_ends_at_the_same_with_fewer_evaluations(small: SearchSpace) -> None:
    limit = cost_limit(small, "macs", budget="40%")
    ends, evaluated = [], []
    for predictor in (WithGains(small), Counted(small)):
        archive = Archive(Problem(small, [limit], predictor))
        numbers = archive.add(small.sample(np.random.default_rng(0), 40)).tolist()
        optima = local_search(archive).improve(numbers)
        ends.append({tuple(row) for row in archive.genes[optima].tolist()})
        evaluated.append(predictor.evaluated)
    assert ends[0] == ends[1]
    assert evaluated[0] < evaluated[1]


def test_nothing_that_is_promising_is_left_out(tiny: SearchSpace) -> None:
    """What is told may be wrong: all that was to be tried has been where a climber ends, not only the first few."""
    rng = np.random.default_rng(1)
    limit = cost_limit(tiny, "macs", budget="60%")
    count = len(tiny.changes[0])

    class Guesses(Rugged):
        def gains(self, genes: Genes) -> Floats:
            return rng.standard_normal((len(genes), count))

    archive = Archive(Problem(tiny, [limit], Guesses(tiny)))
    numbers = archive.add(tiny.sample(rng, 30)).tolist()
    tried: list[int] = []
    local = local_search(archive)
    add = archive.add

    def counted(genes: Genes) -> np.ndarray:
        tried.append(len(genes))
        return add(genes)

    archive.add = counted  # type: ignore[method-assign]
    (end,) = local.improve(numbers[:1])
    assert archive.excess[end] == 0
    assert tried[0] == tried[-2] == EARLY
    assert tried[-1] > EARLY, "the others, after the first few did not help"


def test_one_that_is_far_outside_comes_inside(tiny: SearchSpace) -> None:
    limit = cost_limit(tiny, "macs", budget="10%")
    archive = Archive(Problem(tiny, [limit], Additive(tiny)))
    ends = local_search(archive).improve(archive.add(tiny.genes([tiny.extreme(largest=True)])).tolist())
    assert (archive.excess[ends] == 0).all()
