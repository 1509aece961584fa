"""Latency tables of others: both formats are read, and the geometry that they assume is checked."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from ofa_deploy.errors import ArtifactError
from ofa_deploy.latency.foreign_tables import FORMATS, import_tables
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from tests.conftest import SHARED, Run

BLOCK = Op("mbconv", 10, 136, 136, 408, 3, 1, "hswish", 104, shortcut=True)


@pytest.mark.parametrize(
    ("name", "op", "key"),
    [
        (
            "once-for-all",
            BLOCK,
            "expanded_conv-input:10x10x136-output:10x10x136-expand:408-kernel:3-stride:1-idskip:1-se:1-hs:1",
        ),
        ("once-for-all", Op("conv", 160, 3, 24, kernel=3, stride=2), "Conv-input:160x160x3-output:80x80x24"),
        ("once-for-all", Op("conv", 5, 192, 1152, kernel=1), "Conv_1-input:5x5x192-output:5x5x1152"),
        ("once-for-all", Op("pool", 5, 1152, 1152), "AvgPool2D-input:5x5x1152-output:1x1x1152"),
        ("once-for-all", Op("linear", 1, 1152, 1536), "Conv_2-input:1x1x1152-output:1x1x1536"),
        ("once-for-all", Op("linear", 1, 1536, 1000, bias=True), "Logits-input:1x1x1536-output:1000"),
        ("nsganetv2", BLOCK, "MBConv-input:10x10x136-output:10x10x136-expand:3-kernel:3-stride:1-idskip:1-se:1"),
        ("nsganetv2", Op("conv", 100, 3, 16, kernel=3, stride=2), "first_conv-input:100x100x3-output:50x50x16"),
        ("nsganetv2", Op("conv", 3, 160, 960, kernel=1), "final_expand_layer-input:3x3x160-output:3x3x960"),
        ("nsganetv2", Op("linear", 1, 960, 1280), "feature_mix_layer-input:1x1x960-output:1x1x1280"),
        ("nsganetv2", Op("linear", 1, 1280, 1000, bias=True), "classifier-input:1280-output:1000"),
    ],
)
def test_keys_are_those_of_the_published_files(name: str, op: Op, key: str) -> None:
    assert FORMATS[name][1](op) == key


def made_up(name: str, resolution: int, space_name: str = "mbv3-w1.0") -> dict[str, dict[str, float]]:
    """A file in which an operator takes 1 µs and 1 µs for each 10,000 MACs."""
    ops = get_space(space_name).all_ops([resolution])
    keys = FORMATS[name][1]
    return {key: {"mean": 1e-3 + op.macs * 1e-7, "var": 1e-8} for op in ops if (key := keys(op)) is not None}


@pytest.mark.parametrize("name", FORMATS)
def test_a_network_costs_the_sum_of_its_entries(name: str, tmp_path: Path) -> None:
    space = get_space("mbv3-w1.0")
    files = [tmp_path / f"{r}.yaml" for r in (128, 160)]
    for file, r in zip(files, (128, 160), strict=True):
        file.write_text(yaml.safe_dump(made_up(name, r)))
    import_tables(files, space, device="phone", out=tmp_path / "t.csv")
    table = LatencyTable.load(tmp_path / "t.csv", space)
    assert table.resolutions == (128, 160)
    genes = space.sample(np.random.default_rng(0), 5, [128, 160])
    for arch, ms in zip(space.archs(genes), table.latency_ms(genes), strict=True):
        counted = [op for op in space.ops(arch) if FORMATS[name][1](op) is not None]
        assert ms == pytest.approx(sum(1e-3 + op.macs * 1e-7 for op in counted), rel=1e-3)
    assert table.error_in_words == "its error on whole networks is not known"


def test_what_is_no_such_table_is_refused(tmp_path: Path, ofa: Run) -> None:
    good = made_up("nsganetv2", 128)
    key = next(iter(good))
    bad = {
        "other.yaml": (yaml.safe_dump({"a": {"mean": 1}}), "mbv3-w1.0", "of no known format"),
        "list.yaml": ("- 1\n- 2\n", "mbv3-w1.0", "must map operators"),
        "broken.yaml": ("a: [", "mbv3-w1.0", "is not YAML"),
        "code.yaml": ("!!python/object/apply:os.mkdir [run]", "mbv3-w1.0", "is not YAML"),
        "wide.yaml": (yaml.safe_dump(good), "mbv3-w1.2", "does not have the geometry of mbv3-w1.2"),
        "nan.yaml": (yaml.safe_dump(good | {key: {"mean": float("nan")}}), "mbv3-w1.0", "latency of nan ms"),
        "empty.yaml": (yaml.safe_dump(good | {key: {}}), "mbv3-w1.0", "has no mean latency"),
        "resnet.yaml": (yaml.safe_dump(good), "resnet50d", "are of MobileNet spaces"),
    }
    for name, (content, space, message) in bad.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ArtifactError, match=message):
            import_tables([tmp_path / name], get_space(space), device="phone", out=tmp_path / "t.csv")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "t.csv").exists()
    done = ofa("lut", "import", "gone.yaml", "--device", "phone")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_show_and_search_with_an_imported_table(tmp_path: Path, ofa: Run) -> None:
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(made_up("nsganetv2", 128)))
    done = ofa("lut", "import", "f.yaml", "--device", "phone", "--space", "mbv3-w1.0")
    assert done.stdout == "lut/mbv3-w1.0_phone.csv\n"
    listed = ofa("lut", "show").stdout
    assert "lut/mbv3-w1.0_phone.csv" in listed
    assert "fmnist_cpu_1t" in listed
    shown = ofa("lut", "show", "lut/mbv3-w1.0_phone.csv").stdout
    assert "phone of a device that is elsewhere" in shown
    assert "is not known" in shown
    found = ofa(
        "search", "--space", "mbv3-w1.0", "--lut", "lut/mbv3-w1.0_phone.csv", "--latency", "20ms", "--generations", 3
    )
    assert found.returncode == 0, found.stderr
    assert "the error of this table is not known" in found.stderr
    assert "r128_" in found.stdout


@pytest.mark.skipif(not SHARED.exists(), reason="the published measurements are not beside this checkout")
def test_published_tables_have_the_geometry_of_our_spaces(tmp_path: Path) -> None:
    note10 = import_tables(
        sorted((SHARED / "note10_lut_mbv3-w1.2").glob("*.yaml")),
        get_space("mbv3-w1.2"),
        device="note10",
        out=tmp_path / "n.csv",
    )
    assert note10.resolutions == (160, 176, 192, 208, 224)
    i7 = import_tables([SHARED / "i7-8700K_lut.yaml"], get_space("mbv3-w1.0"), device="i7", out=tmp_path / "i.csv")
    assert i7.resolutions == get_space("mbv3-w1.0").resolutions
    space = get_space("mbv3-w1.0")
    ends = i7.latency_ms(space.genes([space.extreme(largest=False), space.extreme(largest=True)]))
    assert ends == pytest.approx([4.8, 36.2], abs=0.1)
