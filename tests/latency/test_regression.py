"""Tables fitted to whole networks: what they recover, how few they need, and what is refused."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.regression import fit_file, fit_table, fitted_conditions
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import SHARED, Run, made_up_table, refused, succeeded

CONDITIONS = made_up_table(get_space("fmnist"), (16,)).conditions
FILE = {"column": "latency_ms", "conditions": fitted_conditions("phone")}
GPUS = SHARED / "gpu_latency_mbv3-w1.2.csv"


def fitted(
    space: SearchSpace, archs: list[Arch], latency_ms: Floats, others: Sequence[LatencyTable] = (), **options: Any
) -> LatencyTable:
    return fit_table(space, archs, latency_ms=latency_ms, conditions=CONDITIONS, others=others, **options)


def drawn(space: SearchSpace, number: int, seed: int) -> list[Arch]:
    return space.archs(space.sample(np.random.default_rng(seed), number))


def device(space: SearchSpace, archs: list[Arch], noise: float = 0.0, seed: int = 5) -> Floats:
    """A device on which every shape of operator has its own speed, and a call and a network cost something."""
    rng = np.random.default_rng(seed)
    speed: dict[tuple[object, ...], float] = {}

    def latency(op: Op) -> float:
        shape = (op.kind, op.c_in, op.c_mid, op.c_out, op.kernel, op.stride, op.se)
        return 5e-3 + op.macs * 1e-7 * speed.setdefault(shape, float(rng.uniform(0.5, 2)))

    for op in space.all_ops():
        latency(op)
    exact = np.array([0.1 + sum(map(latency, space.ops(arch))) for arch in archs])
    return exact * np.exp(noise * rng.standard_normal(len(archs)))


def error(table: LatencyTable, archs: list[Arch], latency_ms: Floats) -> float:
    """Mean of the relative errors, in percent."""
    predicted = table.latency_ms(table.space.genes(archs))
    return float(100 * np.mean(abs(predicted / latency_ms - 1)))


def test_many_networks_tell_what_every_shape_costs(space: SearchSpace) -> None:
    archs, fresh = drawn(space, 500, 0), drawn(space, 100, 1)
    table = fitted(space, archs, device(space, archs))
    assert set(table.rows) == set(space.all_ops())
    assert error(table, fresh, device(space, fresh)) < 0.3
    assert table.error["mape_percent"] == pytest.approx(error(table, fresh, device(space, fresh)), abs=0.3)
    assert all(row.latency_ms >= 0 for row in table.rows.values())


def test_outliers_do_not_spoil_it(space: SearchSpace) -> None:
    archs, fresh = drawn(space, 500, 0), drawn(space, 100, 1)
    latency_ms = device(space, archs)
    latency_ms[::20] *= 2
    assert error(fitted(space, archs, latency_ms), fresh, device(space, fresh)) < 0.5


def test_a_table_of_a_like_device_needs_few_networks(space: SearchSpace) -> None:
    archs, few, fresh = drawn(space, 500, 0), drawn(space, 10, 2), drawn(space, 100, 1)
    other = fitted(space, archs, device(space, archs))
    measured, expected = 3.0 * device(space, few, 0.002) + 0.5, 3.0 * device(space, fresh) + 0.5
    alone = fitted(space, few, measured)
    helped = fitted(space, few, measured, [other])
    assert error(helped, fresh, expected) < 1
    covered = [i for i, arch in enumerate(fresh) if arch.resolution in alone.resolutions]
    assert error(alone, [fresh[i] for i in covered], expected[covered]) > 3


def test_it_covers_what_was_measured_and_no_more(space: SearchSpace) -> None:
    archs = [a for a in drawn(space, 200, 0) if a.resolution in (20, 28)]
    assert fitted(space, archs, device(space, archs)).resolutions == (20, 24, 28)
    other = made_up_table(space, (16, 20, 28))
    assert fitted(space, archs, device(space, archs), [other]).resolutions == (16, 20, 28)
    with pytest.raises(MeasureError, match="lacks the resolution 20"):
        fitted(space, archs, device(space, archs), [made_up_table(space, (28,))])


def test_the_table_predicts_what_was_fitted_also_where_the_classifier_varies() -> None:
    """The constant of a network is kept in its classifier, of which resnet50d has three."""
    space = get_space("resnet50d")
    archs = space.archs(space.sample(np.random.default_rng(0), 40, [128]))
    latency_ms = 10 + space.macs(space.genes(archs)) * 1e-9
    table = fitted(space, archs, latency_ms)
    assert error(table, archs, latency_ms) < 1


def test_it_covers_what_is_asked_for(space: SearchSpace) -> None:
    archs = [a for a in drawn(space, 200, 0) if a.resolution in (20, 28)]
    table = fitted(space, archs, device(space, archs), resolutions=(16, 28))
    assert table.resolutions == (16, 20, 28)
    job = TableJob(space, (16, 28), plan=MeasurePlan(networks=5), blocks=False)
    assert {net.resolution for net in job.networks} <= {16, 28}


def test_equal_latencies_make_a_table(space: SearchSpace, tmp_path: Path) -> None:
    """As of a device whose clock is coarse."""
    archs = drawn(space, 20, 0)
    fitted(space, archs, np.ones(20)).save(tmp_path / "t.csv", {})
    assert LatencyTable.load(tmp_path / "t.csv", space).error["spearman"] == 0


def test_what_a_table_is_made_from_is_not_overwritten(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("arch,latency_ms\n" + "".join(f"{arch},1.0\n" for arch in drawn(space, 6, 0)))
    content = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"would overwrite .*mine\.csv"):
        fit_file(space, path, out=path, **FILE)
    made_up_table(space).save(tmp_path / "other.csv", {})
    with pytest.raises(ArtifactError, match=r"would overwrite .*other\.csv"):
        fit_file(space, path, out=tmp_path / "other.csv", others=[tmp_path / "other.csv"], **FILE)
    large = [arch for arch in drawn(space, 60, 0) if arch.resolution > 16]
    path.write_text("arch,latency_ms\n" + "".join(f"{arch},1.0\n" for arch in large))
    content = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"other\.csv has the resolutions 16, which the new table would lack"):
        fit_file(space, path, out=tmp_path / "other.csv", **FILE)
    assert path.read_bytes() == content


def test_tables_without_a_resolution_in_common_are_refused(ofa: Run, space: SearchSpace, tmp_path: Path) -> None:
    for size in (16, 28):
        made_up_table(space, (size,)).save(tmp_path / f"{size}.csv", {})
    refused(ofa("build-lut", "--from", "16.csv", "--from", "28.csv"), "none in common")


def test_what_cannot_be_fitted_is_refused(space: SearchSpace) -> None:
    archs = drawn(space, 6, 0)
    with pytest.raises(MeasureError, match="4 networks; measure at least 5"):
        fitted(space, archs[:4], np.ones(4))
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(MeasureError, match="not a positive number"):
            fitted(space, archs, np.array([1, 1, 1, 1, 1, bad]))


def test_from_a_file_to_a_search(ofa: Run, space: SearchSpace, tmp_path: Path) -> None:
    archs = drawn(space, 60, 0)
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "ms"])
        writer.writerows(zip(archs, device(space, archs).tolist(), strict=True))
    done = ofa("lut", "fit", "mine.csv", "--device", "phone", "--column", "ms", "--batch", 8)
    assert succeeded(done).strip() == "lut/fmnist_phone.csv"
    assert "on 60 whole networks" in done.stderr
    table = LatencyTable.load(tmp_path / "lut" / "fmnist_phone.csv", space)
    assert (table.conditions["device"], table.conditions["batch"]) == ("phone", 8)
    succeeded(ofa("search", "--latency", "30%", "--lut", "lut/fmnist_phone.csv", "--generations", 3))
    other = ofa("lut", "fit", "mine.csv", "--device", "p2", "--column", "ms", "--from", "lut/fmnist_phone.csv")
    succeeded(other)
    refused(ofa("lut", "fit", "mine.csv", "--device", "p3"), "no column 'latency_ms' but arch, ms", "--column")
    refused(ofa("lut", "fit", "mine.csv", "--column", "ms", "--device", "my/phone"), "'my/phone' cannot be a part")


def test_a_latency_that_is_none_is_named(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    for bad in ("-1", "0.12ms", "fast", "nan"):
        path.write_text(f"arch,latency_ms\n{drawn(space, 1, 0)[0]},1.0\n{drawn(space, 1, 1)[0]},{bad}\n")
        with pytest.raises(ArtifactError, match="row 2: .* is no latency; write milliseconds"):
            fit_file(space, path, out=tmp_path / "t.csv", **FILE)
    assert not (tmp_path / "t.csv").exists()


def test_rows_that_are_not_filled_in_yet_are_left_out(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    lines = [f"{arch},{'' if number % 3 else 1.0 + number}\n" for number, arch in enumerate(drawn(space, 30, 0))]
    path.write_text("arch,latency_ms\n" + "".join(lines))
    assert fit_file(space, path, out=tmp_path / "t.csv", **FILE).error["networks"] == 10


def test_few_networks_are_measured_instead_of_operators(tiny: SearchSpace, tmp_path: Path) -> None:
    plan = MeasurePlan(rounds=2, runs=3, seconds=0.005, networks=8)
    job = TableJob(tiny, tiny.resolutions, plan=plan, blocks=False)
    assert list(job.entries) == [str(net) for net in job.networks]
    table = build_table(job, "cpu", out=tmp_path / "t.csv", others=[made_up_table(tiny)])
    assert table.error["networks"] == len(table.networks) == 8
    loaded = LatencyTable.load(tmp_path / "t.csv", tiny)
    assert (loaded.latency_ms(tiny.sample(np.random.default_rng(0), 20)) > 0).all()
    with pytest.raises(MeasureError, match="lacks the resolution 12"):
        build_table(job, "cpu", out=tmp_path / "t2.csv", others=[made_up_table(tiny, (8,))])


@pytest.mark.skipif(not GPUS.exists(), reason=f"no {GPUS.name}: latencies of HELP (MIT) on four GPUs")
def test_gpus_of_others() -> None:
    """Published latencies of batches of 64: a table from 300 networks, and ten for another GPU with its help."""
    space = get_space("mbv3-w1.2")
    archs, rows = arch_lists.read(GPUS, space)
    archs, rows = archs[:600], rows[:600]

    def of(gpu: str) -> Floats:
        return np.array([float(row[f"{gpu}_64_ms"]) for row in rows])

    others = [fitted(space, archs[:300], of(gpu)[:300]) for gpu in ("v100", "titan_xp")]
    assert error(others[0], archs[300:], of("v100")[300:]) < 1.5
    few = fitted(space, archs[:10], of("titan_rtx")[:10], others)
    assert error(few, archs[300:], of("titan_rtx")[300:]) < 2.5


def test_models_are_written_to_be_measured_in_ones_own_way(ofa: Run, space: SearchSpace, tmp_path: Path) -> None:
    """What is filled in is what `lut fit` takes, and the files are those networks."""
    options = ("lut", "networks", "--number", 12, "--device", "cpu", "--out", "n", "--resolutions", "16,28")
    assert succeeded(ofa(*options)).strip() == "n/networks.csv"
    with (tmp_path / "n" / "networks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["arch"] for row in rows}) == 12
    x = np.zeros((1, 1, 28, 28), np.float32)
    for row in rows:
        arch = Arch.parse(row["arch"])
        model = onnxruntime.InferenceSession(tmp_path / "n" / row["file"])
        assert model.run(None, {"image": x[:, :, : arch.resolution, : arch.resolution]})[0].shape == (1, 10)
        row["latency_ms"] = float(space.macs(space.genes([arch]))[0]) * 1e-6
    refused(ofa("lut", "fit", "n/networks.csv", "--device", "p"), "no row of the column 'latency_ms' is filled in yet")
    refused(ofa("lut", "networks", "--device", "torch", "--out", "t"), "torch runs no model files", "--device cpu")
    with (tmp_path / "n" / "networks.csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    succeeded(ofa("lut", "fit", "n/networks.csv", "--device", "p", "--precision", "int8"))
    assert json.loads((tmp_path / "lut" / "fmnist_p.json").read_text())["precision"] == "int8"
    before = (tmp_path / "n" / "networks.csv").read_bytes()
    refused(ofa(*options), "is there already, maybe filled in")
    assert (tmp_path / "n" / "networks.csv").read_bytes() == before
