"""Calibration: what was put in is found again, and the error is of networks that the fit has not seen."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.files.artifacts import shipped
from ofa_deploy.latency import calibration
from ofa_deploy.latency.calibration import NetworkSums, calibrated, fit_calibration
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table

CALIBRATIONS = {
    "fmnist_cpu-int8_1t": (
        1.0164412650632457,
        -0.004164592604033601,
        0.03732204715487828,
        -0.020998977124114603,
        0.825,
    ),
    "fmnist_cpu_1t": (0.969275896457757, -0.004594934253040592, 0.019600924927131537, 0.004618558525516309, 0.811),
    "fmnist_tflite-int8_1t": (
        0.9786490191974684,
        -0.002396828152703568,
        0.007164765725492757,
        0.0003051929437828698,
        0.738,
    ),
    "fmnist_tflite_1t": (1.0117181308688041, -0.002371277002198446, 0.01593845240232218, 0.00022663212433526024, 0.918),
    "mbv3-w1.0_cpu_1t": (1.065325492748271, 0.0006363172663911079, 0.14777210256506135, -0.3048305021589113, 2.516),
    "mbv3-w1.0_tflite_1t": (
        1.0141862227267966,
        -0.0010801143053765323,
        0.09699452391486811,
        -0.2983706862193914,
        0.592,
    ),
}
"""Scale, per_op_ms, per_million_ms, constant_ms and mape_percent by the measurements of each table that ships, as
normal equations solved by hand gave them before scikit-learn did."""


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
    predicted = {n["arch"]: n["predicted_ms"] for n in slower.networks}
    assert predicted[odd] == pytest.approx(truth[odd], abs=1e-5)
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


def test_weights_of_traits_are_those_of_ridge_regression_by_arithmetic() -> None:
    """What the terms leave of traits and latencies, in units of its spread, by the normal equations."""
    rng = np.random.default_rng(0)
    terms = np.column_stack([rng.uniform(1, 5, (50, 3)), np.ones(50)])
    sums = NetworkSums(terms, rng.uniform(0, 1, (50, 2)), terms @ [1.1, 0.2, 0.3, 0.1] + rng.uniform(0, 0.2, 50))
    fit = fit_calibration(sums, least=-np.inf, penalty=0.3)
    relative, traits = terms / sums.measured_ms[:, None], sums.traits / sums.measured_ms[:, None]
    factors = np.linalg.solve(relative.T @ relative, relative.T @ np.ones(50))
    explained = np.linalg.solve(relative.T @ relative, relative.T @ traits)
    residual = traits - relative @ explained
    spread = residual.std(axis=0)
    scaled = residual / spread
    normal = scaled.T @ scaled + 0.3 * 50 * np.eye(2)
    weights = np.linalg.solve(normal, scaled.T @ (1 - relative @ factors)) / spread
    assert fit.factors == pytest.approx(factors)
    assert fit.weights == pytest.approx(weights)
    assert fit.shared == pytest.approx(explained @ weights)
    assert fit.predict(sums) == pytest.approx(terms @ (factors - explained @ weights) + sums.traits @ weights)
    plain = fit_calibration(sums, least=-np.inf, penalty=calibration.NO_TRAITS)
    assert not plain.weights.any()
    assert plain.predict(sums) == pytest.approx(terms @ factors)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_the_measurements_of_tables_that_ship_are_calibrated_as_before(name: str) -> None:
    (path,) = shipped("lut").glob(f"{name}_amd*.csv")
    table = LatencyTable.load(path)
    bare = dataclasses.replace(table, scale=1.0, per_op_ms=0.0, per_million_ms=0.0, constant_ms=0.0, corrections={})
    fitted = calibrated(bare, {network["arch"]: network["measured_ms"] for network in table.networks})
    terms = fitted.scale, fitted.per_op_ms, fitted.per_million_ms, fitted.constant_ms
    assert (*terms, fitted.error["mape_percent"]) == pytest.approx(CALIBRATIONS[name], rel=1e-9)
