"""The loop that all closed loops share, and the record of those that keep a latency."""

import math
from pathlib import Path

import pytest

from ofa_deploy.delivery.deploy_job import DeployJob
from ofa_deploy.delivery.loop import SearchPlan, search_again
from ofa_deploy.delivery.measurements import Measured, Measurements
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.search.limits import Limit
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table


class Halving:
    """Finds all numbers from its bound down to 1, and halves the bound until it is 1."""

    def __init__(self, bound: int, smallest: int = 1) -> None:
        self.bound, self.smallest, self.steps = bound, smallest, list[tuple[str, int]]()

    def search(self) -> list[int]:
        return list(range(self.bound, self.smallest - 1, -1))

    def measure(self, candidates: list[int], number: int) -> None:
        self.steps.append((f"measure {candidates[0]}", number))

    def correct(self, candidates: list[int], number: int) -> bool:
        self.steps.append(("correct", number))
        self.bound = candidates[0] // 2
        return self.bound > 1


def test_it_searches_until_nothing_is_left_to_correct() -> None:
    loop = Halving(8)
    assert search_again(loop, 9) == 3
    steps = [("measure 8", 1), ("correct", 1), ("measure 4", 2), ("correct", 2), ("measure 2", 3), ("correct", 3)]
    assert loop.steps == steps


def test_it_ends_with_the_last_round_or_where_nothing_is_found() -> None:
    assert search_again(Halving(64), 2) == 2
    loop = Halving(64, smallest=20)
    assert search_again(loop, 9) == 3, "the search that found nothing counts"
    assert loop.steps[-1] == ("correct", 2)


def measured(space: SearchSpace, ms: list[float], scores: list[float]) -> list[Measured]:
    """Networks that the table says take 1 ms each."""
    archs: list[Arch] = [
        space.extreme(largest=large, resolution=size) for large in (False, True) for size in space.resolutions
    ]
    return [Measured(archs[i], 1.0, 1.0, score, None, latencies_ms=(ms[i],)) for i, score in enumerate(scores)]


def budget(space: SearchSpace, upper: float, lower: float = -math.inf) -> Measurements:
    return Measurements(Limit("latency", made_up_table(space).cost, lower, upper))


def test_the_best_within_the_budget_comes_first_unless_it_uses_all_of_it(space: SearchSpace) -> None:
    networks = measured(space, [0.9, 0.995, 1.1, 0.8], [2.0, 3.0, 4.0, 1.0])
    measurements = budget(space, 1.0)
    measurements.add(networks)
    assert [network.score for network in measurements.within] == [2.0, 1.0]
    assert measurements.best == networks[0]
    assert not measurements.used, "0.9 of 1.0 ms are not enough"
    slow = budget(space, 0.5)
    slow.add(networks)
    assert slow.within == []
    assert slow.best == networks[3], "the closest"
    again = networks[0].timed({"latency_ms": 1.2, "spread_percent": 4.0})
    measurements.add([again])
    assert (again.latency_ms, again.spread_percent) == (1.2, 4.0)
    assert [network.score for network in measurements.within] == [1.0]
    assert again.candidate().times_measured == 2


@pytest.mark.parametrize(
    ("upper", "lower", "ms", "factor"),
    [(1.0, -math.inf, [0.8, 0.9, 0.95], 0.9), (0.5, -math.inf, [0.8, 0.9, 0.95], 2.02), (3.0, 2.5, [0.8, 0.9], 0.85)],
)
def test_the_table_is_corrected_by_the_median(
    space: SearchSpace, upper: float, lower: float, ms: list[float], factor: float
) -> None:
    """Where all networks are too slow, by at least 1 % more than before; before, it was doubled."""
    networks = measured(space, ms, [1.0] * len(ms))
    measurements = budget(space, upper, lower)
    measurements.add(networks)
    assert measurements.factor([network.arch for network in networks], 2.0) == pytest.approx(factor)


def test_a_plan_and_a_job_are_checked(space: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(OfaDeployError, match="--risk must be between"):
        SearchPlan(risk=-1)
    job = DeployJob(space, ("25%", "0.2ms"), tmp_path / "w.safetensors", device="tflite", out=tmp_path)
    assert {file.name for file in job.files.values()} == {"fmnist_tflite_25pct.tflite", "fmnist_tflite_0.2ms.tflite"}
    assert job.results_file == tmp_path / "fmnist_tflite_results.json"
    for wrong in ({"budgets": ("25",)}, {"device": "abacus"}, {"device": "torch"}):
        with pytest.raises(OfaDeployError):
            DeployJob(**{"space": space, "budgets": ("25%",), "weights": tmp_path, **wrong})  # type: ignore[arg-type]
