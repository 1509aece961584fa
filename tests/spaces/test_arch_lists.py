"""Lists of architectures: every form is read, and a bad row is named."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.accuracy.intervals import NORMAL_90
from ofa_deploy.accuracy.predictors.estimator import make_estimator
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.errors import ArtifactError
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.encoding import features
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.official import to_ofa
from ofa_deploy.spaces.space import SearchSpace
from tests.conftest import Run, made_up_table


def table(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def net_config(space: SearchSpace, arch: Arch, **changed: object) -> dict[str, object]:
    """An architecture as the official code describes a network that was cut out; `changed` is about its last block."""
    layers: list[dict[str, object]] = [
        {
            "in_channels": op.c_in,
            "out_channels": op.c_out,
            "kernel_size": op.kernel,
            "stride": op.stride,
            "expand_ratio": op.c_mid / op.c_in,
            "mid_channels": None if i % 2 else op.c_mid,
            "use_se": bool(op.se),
        }
        for i, op in enumerate(op for _, op in space.walk(arch) if op.kind == "mbconv")
    ]
    layers[-1] |= changed
    names = ["conv" if i % 3 else "mobile_inverted_conv" for i in range(len(layers))]
    return {"name": "N", "blocks": [{n: layer, "shortcut": None} for n, layer in zip(names, layers, strict=True)]}


@pytest.mark.parametrize("name", ["fmnist", "mbv3-w1.0", "mbv3-w1.2", "proxyless-w1.3"])
def test_an_official_network_is_read_from_its_description(name: str, tmp_path: Path) -> None:
    space, path = get_space(name), tmp_path / "net.config"
    for arch in space.archs(space.sample(np.random.default_rng(0), 20)):
        path.write_text(json.dumps(net_config(space, arch)))
        assert arch_lists.read_one(path, space, arch.resolution) == arch
    path.write_text(json.dumps(net_config(space, arch) | {"image_size": arch.resolution}))
    assert arch_lists.read_one(path, space) == arch
    path.write_text(json.dumps(to_ofa(space, arch)))
    assert arch_lists.read_one(path, space) == arch


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_se": False}, r"block 20 .* stride 1; mbv3-w1.0 has .*, squeeze-and-excitation"),
        ({"stride": 2}, r"block 20 .* stride 2"),
        ({"mid_channels": 100}, r"block 20 .* is 160-100-160 channels"),
        ({"kernel_size": 9}, "kernel"),
        ({"out_channels": 7}, "block 20 .* has none"),
        ({"in_channels": 0}, "its geometry"),
        ({"stride": "two"}, "its geometry"),
    ],
)
def test_a_description_of_another_network_is_refused(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    space, path = get_space("mbv3-w1.0"), tmp_path / "net.config"
    path.write_text(json.dumps(net_config(space, space.extreme(largest=True, resolution=224), **changed)))
    with pytest.raises(ArtifactError, match=message):
        arch_lists.read_one(path, space, 224)


@pytest.mark.parametrize("content", ["[]", "{}", '{"blocks": 3}', '{"blocks": [3]}', '{"blocks": [{}]}', "[{}, {}]"])
def test_what_is_no_description_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "net.config").write_text(content)
    with pytest.raises(ArtifactError, match=r"net\.config"):
        arch_lists.read_one(tmp_path / "net.config", get_space("fmnist"), 28)


@pytest.mark.parametrize("name", ["fmnist", "resnet50d"])
def test_every_form_gives_the_same_architectures(name: str, tmp_path: Path) -> None:
    space = get_space(name)
    archs = space.archs(space.sample(np.random.default_rng(0), 5))
    configs = [to_ofa(space, arch) for arch in archs]
    lists = [{k: json.dumps(v) if k != "r" else v[0] for k, v in c.items()} for c in configs]
    forms = {
        "text.csv": table([{"arch": arch, "note": 1} for arch in archs]),
        "lists.csv": table(lists),
        "lists.json": json.dumps(configs),
        "text.json": json.dumps([{"arch": str(arch)} for arch in archs]),
    }
    for file, content in forms.items():
        (tmp_path / file).write_text(content)
        assert arch_lists.read(tmp_path / file, space)[0] == archs, file
    (tmp_path / "one.json").write_text(json.dumps(configs[0]))
    assert arch_lists.read(tmp_path / "one.json", space)[0] == archs[:1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "arch\n", "no rows"),
        ("a.csv", b"\xff\xfe\x00", "not a CSV"),
        ("a.csv", "arch\nr28_k3\n", "row 1: not an architecture"),
        ("a.csv", "ks,e,d,r\n3,3,2,28\n", "row 1: an official configuration"),
        ("a.csv", 'ks,e,d,r\n"[3","[3]","[2]",28\n', "row 1: ks, e, d, r must be lists"),
        ("a.csv", "name\nx\n", "row 1: it has neither arch nor ks, e, d, r"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "must be a JSON object"),
        ("a.json", "[3]", "must be a JSON object"),
    ],
)
def test_bad_lists_are_refused(
    name: str, content: str | bytes, message: str, space: SearchSpace, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ArtifactError, match=message):
        arch_lists.read(tmp_path / name, space)


def test_samples_go_to_frames_and_back(space: SearchSpace) -> None:
    genes = space.sample(np.random.default_rng(0), 5)
    samples = Samples(space, genes, np.array([70.0, 71.25, 0, 100, 50]))
    frame = samples.to_frame()
    assert frame.columns.tolist() == ["arch", "top1_percent"]
    assert frame["arch"][0] == str(space.archs(genes)[0])
    again = Samples.from_frame(frame.assign(note="mine"), space)
    assert (again.genes == genes).all()
    assert again.top1_percent.tolist() == samples.top1_percent.tolist()
    with pytest.raises(ArtifactError, match="no column top1_percent"):
        Samples.from_frame(frame[["arch"]], space)
    for wrong in (101, -1, np.nan):
        with pytest.raises(ArtifactError, match="row 2: an accuracy is 0 to 100 percent"):
            Samples.from_frame(frame.assign(top1_percent=[1, 2, wrong, 3, 4]), space)


def test_samples_measured_elsewhere_are_read(space: SearchSpace, tmp_path: Path) -> None:
    archs = space.archs(space.sample(np.random.default_rng(0), 3))
    path = tmp_path / "mine.csv"
    path.write_text(table([{"arch": a, "top1_percent": 70 + i} for i, a in enumerate(archs)]))
    found = Samples.load(path, space)
    assert space.archs(found.genes) == archs
    assert found.top1_percent.tolist() == [70, 71, 72]
    with pytest.raises(ArtifactError, match="no JSON beside it that names its space"):
        Samples.load(path)
    found.save(tmp_path / "saved.csv")
    assert Samples.load(tmp_path / "saved.csv").space == space
    for wrong, message in (("", "row 2 has no number"), ("nan", "row 2: an accuracy"), ("101", "0 to 100 percent")):
        path.write_text(table([{"arch": archs[0], "top1_percent": 70}, {"arch": archs[1], "top1_percent": wrong}]))
        with pytest.raises(ArtifactError, match=message):
            Samples.load(path, space)


def test_scores_of_a_list(space: SearchSpace, tmp_path: Path, ofa: Run) -> None:
    genes = space.sample(np.random.default_rng(0), 30)
    x = features(space, genes)
    made = make_estimator("ridge", space).fit(x, 70 + 5 * x[:, -2].astype(float) + 0.01 * np.arange(30))
    predictor = Predictor(space, (("ridge", made.model_.arrays),), widen=1.5)
    predictor.save(tmp_path / "predictors" / "fmnist.safetensors", {})
    lut = made_up_table(space)
    lut.save(tmp_path / "lut.csv", {})
    archs = space.archs(genes[:4])
    (tmp_path / "archs.csv").write_text(table([{"arch": a, "note": f"mine {a}"} for a in archs]))
    done = ofa("predict", "archs.csv", "--lut", "lut.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    mean, std = predictor.predict(genes[:4], return_std=True)
    for i, (row, arch) in enumerate(zip(rows, archs, strict=True)):
        ops = space.ops(arch)
        assert (row["arch"], row["note"]) == (str(arch), f"mine {arch}")
        assert int(row["macs"]) == sum(op.macs for op in ops)
        assert int(row["params"]) == sum(op.params for op in ops)
        assert float(row["top1_percent"]) == pytest.approx(mean[i], abs=1e-3)
        assert float(row["top1_low_percent"]) == pytest.approx(mean[i] - NORMAL_90 * std[i], abs=1e-3)
        assert float(row["top1_high_percent"]) == pytest.approx(mean[i] + NORMAL_90 * std[i], abs=1e-3)
        assert float(row["latency_ms"]) == pytest.approx(lut.latency_ms(genes[i : i + 1])[0], abs=1e-5)
    as_json = json.loads(ofa("predict", "archs.csv", "--lut", "lut.csv", "--json").stdout)
    assert [{key: str(value) for key, value in row.items()} for row in as_json] == rows
    assert isinstance(as_json[0]["macs"], int)
    written = ofa("predict", "archs.csv", "--out", "scores.csv")
    assert written.stdout == "scores.csv\n"
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert [line["top1_percent"] for line in csv.DictReader(lines)] == [row["top1_percent"] for row in rows]


def test_all_networks_of_a_search_result_are_scored(space: SearchSpace, tmp_path: Path) -> None:
    archs = list(map(str, space.archs(space.sample(np.random.default_rng(0), 4))))
    front = {"kind": "search-result", "arch": archs[0], "front": [{"arch": arch} for arch in archs]}
    several = {"kind": "search-result", "results": [{"arch": arch, "front": []} for arch in archs]}
    for result in (front, several):
        (tmp_path / "r.json").write_text(json.dumps(result))
        assert list(map(str, arch_lists.read(tmp_path / "r.json", space, results=True)[0])) == archs
        assert len(arch_lists.read(tmp_path / "r.json", space)[0]) == 1 if result is front else True
    for wrong in ({"results": 3}, {"results": [1]}, {"arch": archs[0], "front": True}, {"front": [{}]}):
        (tmp_path / "r.json").write_text(json.dumps({"kind": "search-result"} | wrong))
        with pytest.raises(ArtifactError, match="it names no networks"):
            arch_lists.read(tmp_path / "r.json", space, results=True)


def test_a_table_without_that_resolution_says_how_to_build_it(space: SearchSpace, tmp_path: Path, ofa: Run) -> None:
    some = space.sample(np.random.default_rng(0), 30)
    fitted = make_estimator("ridge", space).fit(features(space, some), np.linspace(80, 90, 30)).model_.arrays
    Predictor(space, (("ridge", fitted),)).save(tmp_path / "p.safetensors", {})
    made_up_table(space, (16,)).save(tmp_path / "lut.csv", {})
    (tmp_path / "a.csv").write_text(f"arch\n{space.extreme(largest=True, resolution=28)}\n")
    done = ofa("predict", "a.csv", "--predictor", "p.safetensors", "--lut", "lut.csv")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "lut.csv has no resolution 28; build one with: ofa-deploy build-lut --space fmnist" in done.stderr
