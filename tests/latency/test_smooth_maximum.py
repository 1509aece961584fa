"""Asynchronous devices: tables that are the smooth maximum of launching and computing, and searches within them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import json_text
from ofa_deploy.latency import smooth_maximum as fitting
from ofa_deploy.latency.regression import fit_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.search.certificates import certify
from ofa_deploy.search.limits import latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.run import find_network
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats, SmoothMaximum, smooth_maximum
from ofa_deploy.spaces.extremes import extreme
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table
from tests.search.test_certificates import concave

POWER = 8.0


def launch(op: Op) -> float:
    """Kernels are launched, whatever their size."""
    return {"mbconv": 0.03, "conv": 0.01}.get(op.kind, 0.005) + 0.02 * (op.se > 0)


def computing(op: Op) -> float:
    return 2e-3 + op.macs * (1.5e-7 if op.kernel == 3 else 2e-7)


def device(space: SearchSpace, archs: list[Arch]) -> Floats:
    sums = np.array([[sum(map(of, space.ops(arch))) for arch in archs] for of in (launch, computing)])
    return smooth_maximum(*sums, POWER)


def drawn(space: SearchSpace, number: int, seed: int) -> list[Arch]:
    return space.archs(space.sample(np.random.default_rng(seed), number))


@pytest.fixture(scope="module")
def table(space: SearchSpace) -> LatencyTable:
    archs = drawn(space, 400, 0)
    return fit_table(space, archs, latency_ms=device(space, archs), conditions=made_up_table(space, (16,)).conditions)


@pytest.fixture(scope="module")
def small(tiny: SearchSpace) -> LatencyTable:
    """A table of a space that can be searched whole, half of whose networks are bound by launching."""
    made = made_up_table(tiny)
    rows = {op: replace(row, latency_ms=computing(op)) for op, row in made.rows.items()}
    typical = np.median(replace(made, rows=rows).latency_ms(every(tiny)))
    factor = typical / np.median([sum(map(launch, tiny.ops(arch))) for arch in tiny.archs(every(tiny))])
    return replace(made, rows=rows, launch_ms={op: factor * launch(op) for op in rows}, power=POWER)


def every(space: SearchSpace) -> np.ndarray:
    return np.unique(space.sample(np.random.default_rng(0), 20_000), axis=0)


def test_launching_and_computing_are_told_apart(space: SearchSpace, table: LatencyTable) -> None:
    fresh = drawn(space, 200, 1)
    sums = np.array([[sum(map(of, space.ops(arch))) for arch in fresh] for of in (launch, computing)])
    assert 0.1 < (sums[0] > sums[1]).mean() < 0.9, "some networks are bound by the one, some by the other"
    measured = device(space, fresh)
    genes = space.genes(fresh)
    assert table.power > 0
    assert 100 * np.mean(abs(table.latency_ms(genes) / measured - 1)) < 1
    archs = drawn(space, 400, 0)
    sum_alone = fit_table(space, archs, latency_ms=device(space, archs), conditions=table.conditions, additive=True)
    assert sum_alone.power == 0
    assert 100 * np.mean(abs(sum_alone.latency_ms(genes) / measured - 1)) > 2


def test_the_loss_of_the_fit_and_its_gradient_by_arithmetic() -> None:
    """Two networks, two shapes of one kind; the gradient is compared with differences."""
    work = np.array([[2.0, 1.0], [4.0, 1.0]])
    calls, latency = np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([4.0, 8.0])
    tensors = (torch.tensor(array) for array in (work, calls, latency, np.full((2, 2), 0.5)))
    loss = fitting._Loss(*tensors, launch_penalty=0.01)  # type: ignore[misc]
    x = np.array([0.8, 1.2, 0.1, 0.3, 1.0, 2.0, 0.05, 0.1, np.log(POWER)])
    computing = work @ [0.8, 1.2] + calls @ [0.1, 0.3] + 6 * 0.05
    launching = calls @ [1.0, 2.0] + 6 * 0.1
    errors = (computing**POWER + launching**POWER) ** (1 / POWER) / latency - 1
    huber = fitting.OUTLIER * (np.sqrt(1 + (errors / fitting.OUTLIER) ** 2) - 1).mean()
    penalties = fitting.WORK_PENALTY * (2 * 0.2**2 + 2 * 0.1**2) + 0.01 * 2 * 0.5**2
    assert loss(torch.tensor(x)).item() == pytest.approx(fitting.SCALE * (huber + penalties))
    unknowns = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(unknowns), unknowns)
    assert gradient.numpy() == pytest.approx(
        approx_fprime(x, lambda x: loss(torch.tensor(x)).item(), 1e-7), rel=1e-4, abs=1e-4
    )


def test_it_is_written_and_read(space: SearchSpace, table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "t.csv", {})
    again = LatencyTable.load(tmp_path / "t.csv", space)
    genes = space.sample(np.random.default_rng(0), 50)
    assert again.latency_ms(genes) == pytest.approx(table.latency_ms(genes), rel=1e-3)
    about = json.loads((tmp_path / "t.json").read_text())
    for bad in (0.5, 1e9, "much"):
        (tmp_path / "t.json").write_text(json.dumps(json_text.sealed(about | {"power": bad})))
        with pytest.raises(ArtifactError, match="is not a latency table"):
            LatencyTable.load(tmp_path / "t.csv", space)


def test_the_cost_is_the_smooth_maximum_of_two_sums(tiny: SearchSpace, small: LatencyTable) -> None:
    genes = tiny.sample(np.random.default_rng(0), 30)
    assert isinstance(small.cost, SmoothMaximum)
    a, b = (cost(genes) for cost in small.cost.sums)
    assert small.latency_ms(genes) == pytest.approx((a**POWER + b**POWER) ** (1 / POWER), rel=1e-9)
    assert small.cost.scaled(3)(genes) == pytest.approx(3 * small.latency_ms(genes))
    assert smooth_maximum(np.zeros(1), np.zeros(1), 2.0) == 0
    assert smooth_maximum(np.array([1e200]), np.array([1e200]), 64.0) == pytest.approx(1e200 * 2 ** (1 / 64))


def test_its_extremes_are_those_of_the_whole_space(tiny: SearchSpace, small: LatencyTable) -> None:
    latency = small.latency_ms(every(tiny))
    assert extreme(tiny, small.cost)[1] == pytest.approx(latency.min(), rel=0.01)
    assert extreme(tiny, small.cost, dearest=True)[1] == pytest.approx(latency.max(), rel=1e-9)


def test_a_search_finds_the_best_network_of_the_whole_space(tiny: SearchSpace, small: LatencyTable) -> None:
    genes = every(tiny)
    latency, macs = small.latency_ms(genes), tiny.macs(genes)
    budget = float(np.quantile(latency, 0.4))
    limit = latency_limit(small, f"{budget}ms", margin_percent=0.0)
    found = find_network(Problem(tiny, [limit]), stopping=Stopping(generations=5))
    assert found.macs == macs[latency <= budget].max()
    assert small.latency_ms(tiny.genes([found.arch]))[0] <= budget


def test_nothing_is_proved_about_it(tiny: SearchSpace, small: LatencyTable) -> None:
    limit = latency_limit(small, "50%", margin_percent=0.0)
    with pytest.raises(OfaDeployError, match="nothing can be proved within .* --additive"):
        certify(Problem(tiny, [limit], concave(tiny)), 1.0)


def test_tables_of_like_devices_may_be_smooth_maxima(space: SearchSpace, table: LatencyTable) -> None:
    few, fresh = drawn(space, 12, 2), drawn(space, 100, 3)
    made = fit_table(space, few, latency_ms=2 * device(space, few), conditions=table.conditions, others=[table])
    predicted = made.latency_ms(space.genes(fresh))
    assert 100 * np.mean(abs(predicted / (2 * device(space, fresh)) - 1)) < 10
