"""The closed loop, on a device whose latency is arithmetic: nothing here is timed."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ofa_deploy.delivery import measuring
from ofa_deploy.delivery.loop import SearchPlan
from ofa_deploy.delivery.measuring import Accuracies
from ofa_deploy.delivery.verification import find_verified_network
from ofa_deploy.errors import InfeasibleError, OfaDeployError
from ofa_deploy.files import journals
from ofa_deploy.files.journals import Journal
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search import stopping as stopping_rules
from ofa_deploy.search.limits import cost_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table

QUICK = SearchPlan(SearchSettings(population=20, restarts=1), Stopping(generations=10))


class Device:
    """Takes `factor` times what the table says, and a little more or less for each network and each time."""

    def __init__(self, table: LatencyTable, factors: Sequence[float], wobble: float = 0.0) -> None:
        self.table, self.factors, self.wobble, self.passes = table, list(factors), wobble, 0

    def __call__(self, sessions: Mapping[str, Any], *_: Any, **__: Any) -> tuple[dict[str, Any], float]:
        factor = self.factors[min(self.passes, len(self.factors) - 1)]
        self.passes += 1
        out = {}
        for number, name in enumerate(sessions):
            predicted = self.table.latency_ms(self.table.space.genes([Arch.parse(name)]))[0]
            off = 1 + self.wobble * (-1) ** (number + self.passes)
            out[name] = {"latency_ms": float(predicted * factor * off), "spread_percent": 1.0}
        return out, 0.0


@pytest.fixture
def table(space: SearchSpace) -> LatencyTable:
    return made_up_table(space)


def run(
    table: LatencyTable,
    device: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    budget: str = "0.5ms",
    number: int = 3,
    accuracies: Accuracies | None = None,
    journal: Journal | None = None,
) -> SearchResult:
    monkeypatch.setattr(measuring, "beside_table", device)
    return find_verified_network(
        Problem(table.space),
        table,
        budget=budget,
        plan=QUICK,
        number=number,
        accuracies=accuracies,
        journal=journal,
    )


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_a_wrong_table_is_corrected_until_the_budget_is_kept_and_used(
    table: LatencyTable, factor: float, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    found = run(table, Device(table, [factor], 0.004), monkeypatch)
    assert found.stopping == QUICK.stopping
    verified = found.verified
    assert verified is not None
    true_ms = factor * table.latency_ms(table.space.genes([found.arch]))[0]
    assert 0.97 * 0.5 <= true_ms <= 0.5
    assert verified.within_budget
    assert verified.measured_ms == pytest.approx(true_ms, rel=0.005)
    assert verified.table_correction_percent == pytest.approx(100 * (factor - 1), abs=1)
    assert verified.rounds == (1 if factor == 1.0 else 2)
    assert found.limits[0].upper == 0.5
    assert found.limits[0].predicted == pytest.approx(true_ms, rel=0.01)
    chosen = next(candidate for candidate in verified.candidates if candidate.arch == found.arch)
    assert chosen.measured_ms == verified.measured_ms
    assert (chosen.times_measured or 0) >= 2, "what is delivered was measured again"
    assert f"round {verified.rounds}" in " ".join(lines)


@pytest.mark.parametrize(("factor", "rounds"), [(0.5, 1), (1.0, 1), (1.5, 2)])
def test_a_budget_that_excludes_nothing_is_searched_once(
    table: LatencyTable, factor: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the device is so much slower than the table that the budget does exclude something."""
    slowest = extreme(table.space, table.cost, dearest=True)[1]
    found = run(table, Device(table, [factor]), monkeypatch, budget=f"{1.2 * slowest}ms", number=1)
    assert found.verified is not None
    assert found.verified.within_budget
    assert found.verified.rounds == rounds


def test_a_network_that_is_over_the_second_time_is_not_delivered(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is faster in the first pass than ever after."""
    found = run(table, Device(table, [0.9, 1.0]), monkeypatch)
    assert found.verified is not None
    assert found.verified.within_budget
    assert table.latency_ms(table.space.genes([found.arch]))[0] <= 0.5


def test_where_the_second_time_is_over_the_search_goes_on(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass is as predicted, so the first round would do; ever after, all takes 3 % longer."""
    found = run(table, Device(table, [1.0, 1.03]), monkeypatch)
    verified = found.verified
    assert verified is not None
    assert verified.rounds > 1
    assert verified.within_budget
    assert 1.03 * table.latency_ms(table.space.genes([found.arch]))[0] <= 0.5


def test_the_fastest_network_is_found_for_a_budget_of_just_that(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(table, Device(table, [1.0]), monkeypatch, "0%")
    assert found.verified is not None
    assert found.verified.within_budget


@pytest.mark.parametrize("budget", ["0.496ms..0.5ms", "0.3ms..0.31ms"])
def test_a_narrow_range_is_kept(table: LatencyTable, budget: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrower than what is kept below a budget, or not much wider."""
    found = run(table, Device(table, [1.0]), monkeypatch, budget, number=1)
    assert found.verified is not None
    assert found.verified.within_budget


def test_where_nothing_is_a_little_below_the_budget_all_of_it_is_searched(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only networks within 1 % of the budget have as many multiply-accumulates."""
    monkeypatch.setattr(measuring, "beside_table", Device(table, [0.98]))
    best = run(table, Device(table, [0.98]), monkeypatch)
    macs = table.space.macs(table.space.genes([best.arch]))[0]
    upper = table.latency_ms(table.space.genes([best.arch]))[0] * 1.001
    many = cost_limit(table.space, "macs", budget=f"{0.995 * macs / 1e6}M..")
    found = find_verified_network(Problem(table.space, [many]), table, budget=f"{upper}ms", plan=QUICK)
    assert found.macs >= 0.995 * macs
    assert found.verified is not None
    assert found.verified.within_budget


def test_where_the_search_finds_nothing_it_says_so(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network has exactly that many multiply-accumulates."""
    macs = cost_limit(table.space, "macs", budget="2.000001M..2.0000011M")
    with pytest.raises(InfeasibleError, match="no network of fmnist was found within all limits"):
        find_verified_network(Problem(table.space, [macs]), table, budget="0.5ms", plan=QUICK, number=1)


def test_of_networks_that_are_all_too_fast_the_slowest_is_delivered(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(table, Device(table, [0.8, 0.7, 0.6, 0.5, 0.4, 0.3]), monkeypatch, "0.48ms..0.5ms", number=1)
    verified = found.verified
    assert verified is not None
    assert not verified.within_budget
    assert verified.measured_ms == max(candidate.measured_ms for candidate in verified.candidates)
    assert verified.table_correction_percent < -50, "it looked for slower ones"


def test_a_lower_end_holds_for_what_is_measured(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(table, Device(table, [0.9]), monkeypatch, "0.48ms..0.5ms", number=1)
    assert found.verified is not None
    assert 0.48 <= found.verified.measured_ms <= 0.5
    assert found.verified.within_budget
    with pytest.raises(OfaDeployError, match="no upper end"):
        run(table, Device(table, [1.0]), monkeypatch, "0.1ms..")


def test_without_a_predictor_no_accuracy_is_claimed(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(table, Device(table, [1.0]), monkeypatch)
    assert found.verified is not None
    assert {candidate.predicted_top1_percent for candidate in found.verified.candidates} == {None}
    within = [r.arch for r in found.verified.candidates if r.measured_ms <= 0.99 * 0.5]
    assert found.macs == max(table.space.macs(table.space.genes(within)))


def test_a_budget_that_cannot_be_kept_is_admitted(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(table, Device(table, [5.0]), monkeypatch, "2%")
    verified = found.verified
    assert verified is not None
    assert not verified.within_budget
    assert verified.measured_ms > verified.budget_ms
    with pytest.raises(InfeasibleError, match="the fastest"):
        run(table, Device(table, [1.0]), monkeypatch, "1us")


def test_measured_accuracy_decides_among_those_within_the_budget(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Arch] = []

    def accuracies(archs: Sequence[Arch]) -> list[tuple[float, float]]:
        """The network of fewest parameters is the best, whatever was predicted."""
        assert not set(archs) & set(seen), "a network is measured once"
        seen.extend(archs)
        return [(100 - table.space.params(table.space.genes([arch]))[0] / 1e6, 0.5) for arch in archs]

    found = run(table, Device(table, [1.0]), monkeypatch, number=6, accuracies=accuracies)
    assert found.params == min(table.space.params(table.space.genes(seen)))
    assert found.verified is not None
    assert all(candidate.interval95_points == 0.5 for candidate in found.verified.candidates)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_killed_loop_goes_on_with_what_it_has_measured(
    table: LatencyTable, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is another 2 % slower in each pass: what is measured again would differ."""
    factors = [1.2 + 0.02 * number for number in range(20)]
    whole = run(table, Device(table, factors, 0.004), monkeypatch)
    device, out = Device(table, factors, 0.004), tmp_path / "r.json"

    def killed(*arguments: Any, **options: Any) -> Any:
        if device.passes == passes:
            raise KeyboardInterrupt
        return device(*arguments, **options)

    with pytest.raises(KeyboardInterrupt), journals.journal(out, {"about": 1}) as journal:
        run(table, killed, monkeypatch, journal=journal)
    with journals.journal(out, {"about": 1}) as journal:
        assert journal.recorded == passes
        again = run(table, device, monkeypatch, journal=journal)
    assert again == whole
    assert list(tmp_path.iterdir()) == []


def test_a_killed_loop_of_searches_that_time_ends_goes_on(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is far faster when the run goes on, and would come to other networks."""
    device, out = Device(table, [1.0]), tmp_path / "r.json"
    plan = SearchPlan(SearchSettings(population=20, restarts=1), Stopping(generations=10, seconds=100.0))

    def run_at(seconds: float, device: Callable[..., Any], journal: Journal) -> SearchResult:
        ticks = itertools.count()
        clock = SimpleNamespace(monotonic=lambda: seconds * next(ticks))
        with monkeypatch.context() as patch:
            patch.setattr(stopping_rules, "time", clock)
            patch.setattr(measuring, "beside_table", device)
            return find_verified_network(Problem(table.space), table, budget="0.5ms", plan=plan, journal=journal)

    def killed(*_: Any, **__: Any) -> Any:
        if device.passes == 1:
            raise KeyboardInterrupt
        return device(*_, **__)

    with pytest.raises(KeyboardInterrupt), journals.journal(out, {}) as journal:
        run_at(60.0, killed, journal)
    with journals.journal(out, {}) as journal:
        assert journal.recorded == 2, "a search, and what was measured of its networks"
        result = run_at(1e-3, device, journal)
    assert result.stopping == plan.stopping
    assert result.stopped_by == "seconds"
    assert result.verified is not None
    assert result.verified.within_budget
    assert run_at(1e-3, Device(table, [1.0]), Journal()).stopped_by != "seconds"


def test_further_limits_are_kept(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "beside_table", Device(table, [1.2]))
    params = cost_limit(table.space, "params", budget="30%")
    found = find_verified_network(Problem(table.space, [params]), table, budget="0.5ms", plan=QUICK)
    assert found.params <= params.upper * 1e6
    assert [limit.name for limit in found.limits] == ["latency", "params"]


def test_what_is_refused(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = dataclasses.replace(table, conditions={**table.conditions, "machine": {"cpu": "abacus", "cores": 1}})
    with pytest.raises(OfaDeployError, match=r"measures this machine, the table is of cpu of abacus.*build-lut"):
        run(elsewhere, Device(table, [1.0]), monkeypatch)
    with pytest.raises(OfaDeployError, match="at least 1 candidate"):
        run(table, Device(table, [1.0]), monkeypatch, number=0)
