"""Calibration: what was put in is found again, and the error is of networks that the fit has not seen."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.latency import calibration
from ofa_deploy.latency.calibration import calibrated
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table


def test_calibration_recovers_what_was_put_in(space: SearchSpace) -> None:
    table = made_up_table(space)
    archs = space.archs(space.sample(np.random.default_rng(0), 20))
    truth = {
        str(a): sum(1.3 * table.rows[op].latency_ms + 0.002 + 0.5 * op.params / 1e6 for op in space.ops(a)) - 0.04
        for a in archs
    }
    fitted = calibrated(table, truth)
    terms = fitted.scale, fitted.per_op_ms, fitted.per_million_ms, fitted.constant_ms
    assert terms == pytest.approx((1.3, 0.002, 0.5, -0.04))
    assert fitted.error["networks"] == 20
    assert fitted.error["worst_percent"] == pytest.approx(0, abs=1e-3)
    assert fitted.error["within_5_percent"] == 100
    assert [n["arch"] for n in fitted.networks] == list(truth)
    few = calibrated(table, dict(list(truth.items())[:8]))
    assert few.constant_ms == 0, "of so few networks it would be a guess"
    assert few.error["mape_percent"] < 5


def test_the_error_is_of_networks_that_the_fit_has_not_seen(space: SearchSpace) -> None:
    table = made_up_table(space)
    archs = space.archs(space.sample(np.random.default_rng(0), 20))
    truth = {str(a): 1.3 * sum(table.rows[op].latency_ms for op in space.ops(a)) for a in archs}
    odd = str(archs[7])
    slower = calibrated(table, {**truth, odd: 1.1 * truth[odd]})  # than a table can know
    of = {n["arch"]: n for n in slower.networks}
    assert of[odd]["predicted_ms"] == pytest.approx(truth[odd], abs=1e-5)
    assert slower.error["worst_percent"] == pytest.approx(100 * (1 - 1 / 1.1), abs=0.01)
    assert slower.error["within_5_percent"] == 95
    assert slower.scale != pytest.approx(1.3, abs=1e-6)
    assert slower == calibrated(table, {**truth, odd: 1.1 * truth[odd]})


def test_no_network_takes_less_than_no_time(space: SearchSpace) -> None:
    """Networks that measure as if each operator were spared more than it takes: the fastest would be below zero."""
    table = made_up_table(space)
    archs = space.archs(space.sample(np.random.default_rng(0), 20))
    sums = np.array([sum(table.rows[op].latency_ms for op in space.ops(a)) for a in archs])
    counts = np.array([len(space.ops(a)) for a in archs])
    spared = 0.99 * (sums / counts).min()
    measured = dict(zip(map(str, archs), sums - spared * counts, strict=True))
    _, below = extreme(space, dataclasses.replace(table, per_op_ms=-spared).cost)
    fitted = calibrated(table, measured)
    _, fastest = extreme(space, fitted.cost)
    assert below < 0 < fastest
    assert fitted.per_op_ms == pytest.approx(0, abs=1e-9)
    assert fitted.doubt


def slower_5x5(space: SearchSpace, number: int, noise: float, factor: float = 1.5) -> dict[str, float]:
    """Networks in which operators with 5x5 windows take longer than alone."""
    table, rng = made_up_table(space), np.random.default_rng(3)

    def latency(op: Op) -> float:
        return table.rows[op].latency_ms * (factor if op.kernel == 5 else 1.0)

    archs = space.archs(space.sample(rng, number))
    return {str(a): sum(map(latency, space.ops(a))) * float(1 + noise * rng.standard_normal()) for a in archs}


def test_operators_are_corrected_by_their_traits_where_that_pays(space: SearchSpace, tmp_path: Path) -> None:
    measured = slower_5x5(space, 72, 0.005)
    found = calibrated(made_up_table(space), measured)
    fives, others = ([v for op, v in found.corrections.items() if (op.kernel == 5) == five] for five in (True, False))
    assert np.mean(fives) > 0 > np.mean(others)
    assert found.error["mape_percent"] < 1.5
    fresh = slower_5x5(space, 200, 0.0)
    genes = space.genes(list(fresh))
    off = np.abs(found.latency_ms(genes) / list(fresh.values()) - 1).mean()
    plain = calibrated(made_up_table(space), dict(list(measured.items())[: calibration.TRAITS_FROM - 1]))
    assert off < 0.015 < 0.02 < np.abs(plain.latency_ms(genes) / list(fresh.values()) - 1).mean()
    found.save(tmp_path / "t.csv", {})
    assert LatencyTable.load(tmp_path / "t.csv", space).latency_ms(genes) == pytest.approx(
        found.latency_ms(genes), rel=1e-3
    )


def test_operators_are_not_corrected_where_it_is_noise_or_networks_are_few(space: SearchSpace) -> None:
    assert not calibrated(made_up_table(space), slower_5x5(space, 72, 0.03, 1.0)).corrections
    few = calibrated(made_up_table(space), slower_5x5(space, calibration.TRAITS_FROM - 1, 0.005))
    assert not few.corrections
