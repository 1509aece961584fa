"""Latency tables: sums, calibration, files, and whose table is taken."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ofa_deploy.device.conditions import conditions
from ofa_deploy.errors import ArtifactError, MeasureError, OfaDeployError
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.latency import table_files as tables
from ofa_deploy.latency.table import KIND, LatencyTable
from ofa_deploy.search.limits import latency_limit
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import made_up_table


def test_latency_is_the_sum_over_the_walk(space: SearchSpace) -> None:
    table = dataclasses.replace(made_up_table(space), scale=2.0, per_op_ms=-0.25, per_million_ms=3.0, constant_ms=-0.5)
    genes = space.sample(np.random.default_rng(0), 30)
    for arch, got in zip(space.archs(genes), table.latency_ms(genes), strict=True):
        ops = space.ops(arch)
        expected = sum(2 * table.rows[op].latency_ms - 0.25 + 3 * op.params / 1e6 for op in ops) - 0.5
        assert got == pytest.approx(expected, abs=1e-9)


def test_missing_operators_are_counted(space: SearchSpace) -> None:
    table = made_up_table(space)
    lacking = dataclasses.replace(table, rows=dict(list(table.rows.items())[:-3]))
    with pytest.raises(MeasureError, match="lacks 3 operators"):
        lacking.latency_ms(space.genes([space.extreme(largest=True)]))


def test_resolutions_that_are_not_covered_cost_nan(space: SearchSpace) -> None:
    table = made_up_table(space, (16, 28))
    genes = space.sample(np.random.default_rng(0), 200)
    assert (np.isnan(table.latency_ms(genes)) == np.isin(genes[:, 0], [1, 2])).all()


def test_file_round_trip(space: SearchSpace, tmp_path: Path) -> None:
    table = dataclasses.replace(
        made_up_table(space, (16,)),
        scale=0.9,
        per_op_ms=-1e-3,
        per_million_ms=0.2,
        constant_ms=-0.01,
        corrections=dict.fromkeys(made_up_table(space, (16,)).rows, -2e-4),
    )
    table.save(tmp_path / "t.csv", {})
    again = LatencyTable.load(tmp_path / "t.csv", space)
    assert (again.rows, again.corrections) == (table.rows, table.corrections)
    terms = again.scale, again.per_op_ms, again.per_million_ms, again.constant_ms
    assert (terms, again.resolutions) == ((0.9, -1e-3, 0.2, -0.01), (16,))
    assert again.conditions == table.conditions
    assert again.sha256 == atomic.sha256(tmp_path / "t.csv")


def test_frames_hold_what_files_hold(space: SearchSpace, tmp_path: Path) -> None:
    bare = made_up_table(space, (16,))
    more = {op: round(1e-3 * i, 6) for i, op in enumerate(bare.rows)}
    for table in (bare, dataclasses.replace(bare, corrections=more, launch_ms=more, power=8.0)):
        frame = table.to_frame()
        assert len(frame) == len(table.rows)
        again = LatencyTable.from_frame(frame, table)
        assert again == table
        table.save(tmp_path / "t.csv", {})
        assert list(pd.read_csv(tmp_path / "t.csv").columns) == list(frame.columns)
        read = LatencyTable.from_frame(pd.read_csv(tmp_path / "t.csv"), table)
        assert (read.rows, read.launch_ms) == (table.rows, table.launch_ms)
    plain = bare.to_frame()
    twice = LatencyTable.from_frame(plain.assign(latency_ms=2 * plain["latency_ms"]), bare)
    genes = space.sample(np.random.default_rng(0), 10, [16])
    assert twice.latency_ms(genes) == pytest.approx(2 * bare.latency_ms(genes))
    for bad, word in ((frame.drop(columns="runs"), "runs"), (frame.assign(latency_ms=np.nan), "latency of nan")):
        with pytest.raises(MeasureError, match=f"no rows of a table: .*{word}.*; take the columns of to_frame"):
            LatencyTable.from_frame(bad, bare)


@pytest.mark.parametrize("path", sorted(artifacts.shipped("lut").glob("*.csv")), ids=lambda path: path.stem[:20])
def test_tables_that_ship_are_written_as_they_are(path: Path, tmp_path: Path) -> None:
    LatencyTable.load(path).save(tmp_path / "t.csv", {})
    assert (tmp_path / "t.csv").read_bytes() == path.read_bytes()


def test_it_loads_without_being_told_its_space(space: SearchSpace, tiny: SearchSpace, tmp_path: Path) -> None:
    made_up_table(space, (16,)).save(tmp_path / "t.csv", {})
    assert LatencyTable.load(tmp_path / "t.csv").space is space
    assert LatencyTable.load(tmp_path / "t.csv", space).space is space
    with pytest.raises(ArtifactError, match="of the space fmnist, not of mbv3-w1.2"):
        LatencyTable.load(tmp_path / "t.csv", get_space("mbv3-w1.2"))
    made_up_table(tiny).save(tmp_path / "tiny.csv", {})
    with pytest.raises(OfaDeployError, match="unknown space 'tiny'"):
        LatencyTable.load(tmp_path / "tiny.csv")


def test_the_identity_is_of_the_file_and_of_the_calibration(space: SearchSpace) -> None:
    """Results of earlier releases name tables by it."""
    table = dataclasses.replace(made_up_table(space, (16,)), sha256="ab", scale=0.5, per_op_ms=-1e-3)
    for more, text in (
        ({}, "ab 0.5 -0.001 0.0"),
        ({"constant_ms": -0.25}, "ab 0.5 -0.001 0.0 -0.25"),
        ({"power": 8.0}, "ab 0.5 -0.001 0.0 8.0"),
        ({"constant_ms": 1.0, "power": 8.0}, "ab 0.5 -0.001 0.0 1.0 8.0"),
    ):
        assert dataclasses.replace(table, **more).identity == hashlib.sha256(text.encode()).hexdigest()
    assert latency_limit(table, "100%", margin_percent=0.0).sha256 == table.identity


def test_a_table_is_not_replaced_by_one_that_says_less(space: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    tables.check_replaces(out, (16,))
    made_up_table(space, (16, 28)).save(out, {})
    tables.check_replaces(out, space.resolutions)
    with pytest.raises(ArtifactError, match="has the resolutions 28, which the new table would lack"):
        tables.check_replaces(out, (16, 20))
    with pytest.raises(ArtifactError, match="which it is made from"):
        tables.check_replaces(out, space.resolutions, others=[LatencyTable.load(out, space)])


def test_a_damaged_table_is_in_nobodys_way(space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_up_table(space).save(tmp_path / "lut" / "fmnist_cpu_z.csv", {})
    (tmp_path / "lut" / "fmnist_cpu_a.json").write_text("torn")
    assert tables.select(space, conditions("cpu", 1))[1]
    elsewhere = conditions("cpu", 1) | {"machine": {"cpu": "abacus", "cores": 1}}
    with pytest.raises(ArtifactError, match=r"fmnist_cpu_a.json is damaged"):
        tables.select(space, elsewhere)


@pytest.mark.parametrize(
    ("old", "new"), [("0.001", "nan"), ("0.001", "-1"), ("mbconv,", "mbconv,x"), ("latency_ms", "")]
)
def test_bad_rows_are_refused(space: SearchSpace, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "t.csv"
    about = made_up_table(space, (16,)).save(path, {})
    content = path.read_text().replace(old, new, 1).encode()
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="checksum"):
        LatencyTable.load(path, space)
    artifacts.save(
        path, content, kind=KIND, space=space.name, details={k: v for k, v in about.items() if k != "sha256"}
    )
    with pytest.raises(ArtifactError, match="not a latency table"):
        LatencyTable.load(path, space)


def test_table_of_this_machine_is_preferred(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder's own, then what ships; another machine's only as the reference that ships, and marked."""
    monkeypatch.chdir(tmp_path)
    wanted = conditions("cpu", 1)
    other = wanted | {"machine": wanted["machine"] | {"cpu": "another"}}
    monkeypatch.setattr(artifacts, "shipped", lambda folder: tmp_path / "shipped" / folder)
    dataclasses.replace(made_up_table(space), conditions=other).save(tmp_path / "lut" / "fmnist_cpu_other.csv", {})
    with pytest.raises(ArtifactError, match="build-lut --device cpu --space fmnist"):
        tables.select(space, wanted)
    shipped = dataclasses.replace(made_up_table(space), conditions=other, scale=3.0)
    shipped.save(tmp_path / "shipped" / "lut" / "fmnist_cpu_other.csv", {})
    table, own = tables.select(space, wanted)
    assert (table.scale, own) == (3.0, False)
    made_up_table(space).save(tmp_path / "lut" / "fmnist_cpu_mine.csv", {})
    table, own = tables.select(space, wanted)
    assert (table.scale, own) == (1.0, True)
    assert tables.select(space, wanted | {"runtime_version": "0"})[1] is False


def test_unknown_device() -> None:
    with pytest.raises(MeasureError, match="choose one of cpu"):
        conditions("toaster", 1)


def test_file_name_tells_space_device_and_machine() -> None:
    name = tables.file_name(get_space("mbv3-w1.0"), conditions("cpu", 2))
    assert name.startswith("mbv3-w1.0_cpu_2t_")
    assert name.endswith("cores.csv")
    assert " " not in name
