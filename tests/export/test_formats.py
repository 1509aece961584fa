"""What every export format must do, and what int8 must."""

import contextlib
import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.device import tflite
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.errors import ArtifactError, DataError, MeasureError
from ofa_deploy.export import run
from ofa_deploy.export.card import make_card, markdown, write_card
from ofa_deploy.export.checks import parity
from ofa_deploy.export.formats import FORMATS, format_for
from ofa_deploy.export.subject import Subject
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.evaluation import specialise

SMALL = "r16_k3e3-k7e4_k3e3-k7e3_k5e3-k3e3_k3e3-k3e3_k3e3-k7e3"
EXTRAS = {"tflite-int8": ("ai_edge_quantizer", "quant"), "pte": ("executorch", "executorch")}
"""What formats need that is not always installed: the package, and the extra that has it."""


def those(precision: str) -> list[Any]:
    """The formats of a precision; those that cannot be written here are skipped."""
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.skipif(
                    find_spec(package) is None, reason=f"{package} is not installed: pip install 'ofa-deploy[{extra}]'"
                )
                for package, extra in ([EXTRAS[name]] if name in EXTRAS else [])
            ],
        )
        for name, one in FORMATS.items()
        if one.precision == precision
    ]


FP32, INT8 = those("fp32"), those("int8")


@pytest.fixture(scope="module")
def subject(space: SearchSpace) -> Subject:
    """A network of the shipped supernet, with windows of 7x7 that reach over whole feature maps."""
    weights = artifacts.shipped("supernets") / checkpoint.file_name(space)
    data = load_data(None, space)
    return Subject(specialise(checkpoint.load_supernet(weights, space), Arch.parse(SMALL), data=data), data)


@pytest.fixture(scope="module")
def contents(subject: Subject) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    return made


def content(contents: dict[str, bytes], name: str, subject: Subject) -> bytes:
    """The file of a format, written once."""
    if name not in contents:
        contents[name] = FORMATS[name].write(subject)
    return contents[name]


@pytest.mark.parametrize("name", FP32)
def test_fp32_computes_what_torch_computes(name: str, subject: Subject, contents: dict[str, bytes]) -> None:
    found = parity(FORMATS[name].session(content(contents, name, subject)), subject)
    assert found["images"] == 256
    assert found["agreement_percent"] == 100


@pytest.mark.parametrize("name", INT8)
def test_int8_is_smaller_and_hardly_worse(name: str, subject: Subject, contents: dict[str, bytes]) -> None:
    made = content(contents, name, subject)
    session = FORMATS[name].session(made)
    few = dataclasses.replace(subject.data, heldout=subject.data.heldout[:1000])
    checked = run.check_content(name, made, subject=dataclasses.replace(subject, data=few), max_drop=2.0)
    assert 90 < checked["agreement_with_torch"]["agreement_percent"] < 100
    drop = checked["accuracy"]
    assert drop["images"] == 1000
    assert drop["drop_points"] == pytest.approx(drop["torch_top1_percent"] - drop["top1_percent"])
    assert 0 < drop["interval95_points"] < 2
    assert len(made) < 0.55 * len(content(contents, name.removesuffix("-int8"), subject))
    assert session(np.zeros((1, 1, 16, 16), np.float32)).dtype == np.float32


@pytest.mark.parametrize("name", [*FP32, *INT8])
def test_a_file_says_what_it_is(name: str, subject: Subject, contents: dict[str, bytes]) -> None:
    made = content(contents, name, subject)
    assert SMALL.encode() in made
    assert subject.data.classes[0].encode() in made


@pytest.mark.parametrize("name", INT8[1:])
def test_tflite_int8_is_one_partition(name: str, subject: Subject, contents: dict[str, bytes]) -> None:
    made = tflite.interpreter_class()(model_content=content(contents, name, subject), num_threads=1)
    made.allocate_tensors()
    kinds = Counter(op["op_name"] for op in made._get_ops_details())
    assert kinds["DELEGATE"] == 1
    assert kinds["HARD_SWISH"] == 0
    assert kinds["QUANTIZE"] == kinds["DEQUANTIZE"] == 1


def test_onnx_int8_has_unsigned_activations_and_weights_by_channel(
    subject: Subject, contents: dict[str, bytes]
) -> None:
    graph = onnx.load_from_string(content(contents, "onnx-int8", subject)).graph
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    quantised = [arrays[node.input[2]].dtype for node in graph.node if node.op_type == "QuantizeLinear"]
    assert set(quantised) == {np.dtype(np.uint8)}
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in arrays]
    windows = [node for node in weights if arrays[node.input[0]].ndim == 4]
    assert len(windows) > 20
    for node in windows:
        weight, scale = arrays[node.input[0]], arrays[node.input[1]]
        assert weight.dtype == np.int8
        assert scale.shape == weight.shape[:1]


ALONE = {
    "onnx": "onnxruntime",
    "onnx-int8": "onnxruntime",
    "tflite": "ai-edge-litert",
    "tflite-int8": "ai-edge-litert",
    "pt2": "torch",
}
FENCE = """
import importlib.machinery, json, sys
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in blocked:
            return importlib.machinery.PathFinder.find_spec(name, path, target)
blocked = set(json.loads({blocked!r}))
builtin = importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter
if blocked:
    sys.meta_path[:] = [*builtin, Fence()]
{lines}
np.save("logits.npy", logits)
"""


def required(distribution: str) -> set[str]:
    """A distribution and all that it requires, as far as that is installed."""
    found: set[str] = set()
    left = [distribution]
    while left:
        name = left.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines = importlib.metadata.requires(name) or []
            left += [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return found


def others_than(runtime: str) -> list[str]:
    """Names of all packages that are installed, but numpy, a runtime, and what that requires."""
    kept = {"numpy", *required(runtime)}
    packages = importlib.metadata.packages_distributions()
    other = [name for name, of in packages.items() if not kept & {one.lower().replace("_", "-") for one in of}]
    return [*other, "ofa_deploy"]


@pytest.mark.parametrize("name", [*FP32, *INT8])
def test_the_five_lines_of_the_card_run_with_numpy_and_the_runtime_alone(
    name: str, subject: Subject, contents: dict[str, bytes], tmp_path: Path
) -> None:
    made, file = content(contents, name, subject), f"model{FORMATS[name].suffix}"
    (tmp_path / file).write_bytes(made)
    card = make_card(subject, name, file=file, content=made, checks={"agreement_with_torch": {}})
    assert len(card["run"]) == 5
    blocked = others_than(ALONE[name]) if name in ALONE else []
    if name in ALONE:
        assert {"ofa_deploy", "scipy", "safetensors", "pandas"} < set(blocked)
    pixels = subject.data.heldout.pixels[:1, :, :16, :16]
    np.save(tmp_path / "pixels.npy", pixels[0].transpose(1, 2, 0))
    lines = "\n".join(card["run"])
    assert "np.zeros((16, 16, 1), np.uint8)" in lines
    lines = lines.replace("np.zeros((16, 16, 1), np.uint8)", 'np.load("pixels.npy")')
    code = FENCE.format(blocked=json.dumps(blocked), lines=lines)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    x = subject.data.tensor(pixels, 16)
    expected = subject.net(x).detach().numpy()
    got = np.load(tmp_path / "logits.npy")
    assert np.abs(got - expected).max() < (1e-4 if FORMATS[name].precision == "fp32" else 0.1 * np.abs(expected).max())


def test_pt2_takes_any_batch(subject: Subject, contents: dict[str, bytes]) -> None:
    session = FORMATS["pt2"].session(content(contents, "pt2", subject))
    x = subject.data.tensor(subject.data.heldout.pixels[:7], 16)
    assert np.allclose(session(x.numpy()), subject.net(x).detach().numpy(), atol=1e-5)


def test_a_subnetwork_file_must_be_one(subject: Subject, space: SearchSpace, tmp_path: Path) -> None:
    good = checkpoint.subnet_content(subject.net, {})
    (tmp_path / "good.safetensors").write_bytes(good)
    assert checkpoint.load_subnet(tmp_path / "good.safetensors").arch == subject.net.arch
    state = subject.net.state_dict()
    bad = {
        "torn": (good[:-9], "is damaged"),
        "supernet": (atomic.read(artifacts.shipped("supernets") / "fmnist.safetensors"), "is no subnetwork"),
        "other": (good.replace(b"k3e3-k7e4_k3e3", b"k3e3-k7e3_k3e3"), "does not match its own checksum"),
        "another": (
            checkpoint.content(state, {"arch": str(space.extreme(largest=False)), "space": "fmnist"}),
            "not fit its architecture",
        ),
    }
    for name, (made, words) in bad.items():
        (tmp_path / name).write_bytes(made)
        with pytest.raises(ArtifactError, match=words):
            checkpoint.load_subnet(tmp_path / name)


@pytest.mark.parametrize("name", ["onnx-int8", "tflite-int8"])
def test_too_few_images_to_calibrate_on(name: str, subject: Subject) -> None:
    few: Dataset = dataclasses.replace(subject.data, train=subject.data.train[:31])
    with pytest.raises(DataError, match="at least 32; Fashion-MNIST has 31"):
        FORMATS[name].write(dataclasses.replace(subject, data=few))


def test_a_missing_quantizer_says_how_to_install_it(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MeasureError, match=r"pip install 'ofa-deploy\[quant\]'"):
        FORMATS["tflite-int8"].write(subject)


def test_the_page_of_a_card(subject: Subject, tmp_path: Path) -> None:
    checks = {
        "agreement_with_torch": {"images": 256, "max_difference": 0.123, "agreement_percent": 98.4375},
        "accuracy": {
            "images": 2000,
            "torch_top1_percent": 90.0,
            "top1_percent": 89.75,
            "drop_points": 0.25,
            "interval95_points": 0.31,
        },
    }
    origin = {"file": "w.safetensors", "sha256": "ab", "licence": "BSD"}
    predicted = {"top1_percent": 90.5, "limits": [{"name": "latency", "unit": "ms", "predicted": 1.5, "of": "a phone"}]}
    exported = dataclasses.replace(subject, origin=origin, predicted=predicted)
    card = make_card(exported, "tflite-int8", file="m.tflite", content=b"123", checks=checks)
    write_card(tmp_path / "m.tflite", card)
    assert json.loads((tmp_path / "m.json").read_text())["arch"] == SMALL
    page = (tmp_path / "m.md").read_text()
    assert page == markdown(card)
    for words in (
        SMALL,
        "98.44 % of 256",
        "89.75 %, 0.25 points (95 % interval ±0.31)",
        "1.5 ms (a phone)",
        "90.50 %",
        "BSD",
        "Zalando",
        "10 classes, in this order: T-shirt/top, Trouser",
        "256 training images",
        "\n".join(card["run"]),
    ):
        assert words in page
    assert card["input"]["shape"] == [1, 16, 16, 1]
    assert card["macs"] == sum(op.macs for op in subject.net.space.ops(subject.net.arch))


@pytest.mark.parametrize(
    ("device", "name"),
    [("cpu", "onnx"), ("openvino", "onnx"), ("tensorrt", "onnx"), ("cpu-int8", "onnx-int8"), ("tflite", "tflite")],
)
def test_a_device_is_served_with_files_of_its_format(device: str, name: str) -> None:
    assert format_for(DEVICES[device]) == name
    assert FORMATS[name].runs_on(DEVICES[device])


@pytest.mark.parametrize("device", ["torch", "gpu", "gpu-fp16"])
def test_a_device_whose_files_nobody_could_use_is_one_line(device: str) -> None:
    served = "cpu, tflite, ort-cuda, tensorrt, cpu-int8, tflite-int8, openvino"
    words = f"models for {served}, not for {device}: what it runs \\(torch-npz\\) is no format of export"
    with pytest.raises(MeasureError, match=words):
        format_for(DEVICES[device])
