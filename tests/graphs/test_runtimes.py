"""What every runtime must do."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ofa_deploy.device import conditions as now
from ofa_deploy.device import onnxruntime
from ofa_deploy.device.timing import Array, visit
from ofa_deploy.errors import MeasureError
from ofa_deploy.graphs import weights
from ofa_deploy.graphs.runtimes import RUNTIMES, Runtime
from ofa_deploy.spaces.ops import Op
from tests.conftest import Run, refused
from tests.graphs.test_onnx import reference

OP = Op("mbconv", 8, 8, 16, 24, 5, 2, "hswish", 8)


def here(name: str) -> bool:
    """Whether this machine has what a runtime needs."""
    try:
        now.conditions(next(device for device, served in now.DEVICES.items() if served == name), 1)
    except MeasureError:
        return False
    return True


every = pytest.mark.parametrize(
    "runtime",
    [
        pytest.param(runtime, id=name, marks=pytest.mark.skipif(not here(name), reason="no GPU or no runtime for it"))
        for name, runtime in RUNTIMES.items()
    ],
)


def close(runtime: Runtime, got: Array, expected: Array) -> bool:
    """Whether a runtime computed what it should, in its precision."""
    tolerance = 1e-5 if runtime.quantise is None else 0.05
    return bool(np.abs(got - expected).max() < tolerance * np.abs(expected).max())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A run of PyTorch sets the threads of the process."""
    yield
    torch.set_num_threads(1)


@every
@pytest.mark.parametrize("threads", [1, 2])
def test_it_computes_what_torch_computes(runtime: Runtime, threads: int) -> None:
    rng = np.random.default_rng(0)
    drawn = weights.draw(OP, rng)
    x = rng.standard_normal((3, 8, 8, 8)).astype(np.float32)
    model = runtime.emit([("block", OP)], {"block": drawn}, batch=3)
    expected = runtime.native(reference(OP, drawn, torch.from_numpy(x)).numpy())
    for got in (runtime.start(model, threads)(runtime.native(x)), runtime.session(model, threads)(x)):
        assert got.shape == expected.shape
        assert close(runtime, got, expected)


@every
def test_a_result_stays_when_the_session_runs_again(runtime: Runtime) -> None:
    rng = np.random.default_rng(0)
    session = runtime.session(runtime.emit([("block", OP)], {"block": weights.draw(OP, rng)}), 1)
    x = rng.standard_normal((1, 8, 8, 8)).astype(np.float32)
    first = session(x)
    kept = first.copy()
    session(2 * x)
    assert (first == kept).all()


@every
def test_it_can_be_timed(runtime: Runtime) -> None:
    rng = np.random.default_rng(0)
    session = runtime.start(runtime.emit([("block", OP)], {"block": weights.draw(OP, rng)}), 1)
    found = visit(session, runtime.native(np.zeros((1, 8, 8, 8), np.float32)), 1, 5, 0.1)
    assert 0 < found.minimum_ms <= found.median_ms


@every
@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_what_is_no_model_is_refused(runtime: Runtime, content: bytes) -> None:
    with pytest.raises(MeasureError, match="does not take the graph"):
        runtime.start(content, 1)


@pytest.mark.parametrize(
    ("name", "modules", "words"),
    [
        ("onnxruntime", ["onnxruntime"], "pip install onnxruntime"),
        ("torch", ["torch"], "pip install torch"),
        ("onnxruntime-cuda", ["onnxruntime"], "pip install onnxruntime"),
        ("tflite", ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"], "pip install ai-edge-litert"),
    ],
)
def test_a_missing_runtime_says_how_to_install_it(
    name: str, modules: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MeasureError, match=words):
        RUNTIMES[name].start(b"", 1)


def test_every_device_has_a_runtime_whose_version_is_recorded() -> None:
    assert set(now.DEVICES.values()) == set(RUNTIMES) == set(now.PACKAGES)
    for device, runtime in now.DEVICES.items():
        if not here(runtime):
            continue
        assert now.conditions(device, 1)["runtime_version"][0].isdigit()


@pytest.mark.parametrize(
    ("device", "words"),
    [("gpu", "pip install torch"), ("gpu-fp16", "pip install torch"), ("ort-cuda", "pip install onnxruntime-gpu")],
)
def test_a_gpu_that_is_not_here_is_one_line(ofa: Run, device: str, words: str) -> None:
    if here(now.DEVICES[device]):
        pytest.skip("there is one")
    refused(ofa("build-lut", "--device", device, "--resolutions", 16), words)


def test_a_session_on_a_device_computes_and_times_itself() -> None:
    """The session of onnxruntime's GPU providers, with the CPU for the device."""
    drawn = {"block": weights.draw(OP, np.random.default_rng(0))}
    model = RUNTIMES["onnxruntime"].emit([("block", OP)], drawn, batch=2)
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 8)).astype(np.float32)
    made = onnxruntime._session(model, 1, [onnxruntime.CPU], {})
    session = onnxruntime.Bound(made, "cpu")
    assert (session(x) == onnxruntime.start(model, 1)(x)).all()
    found = visit(session, x, 1, 5, 10.0)
    assert found.runs + found.dropped == 5
    with pytest.raises(MeasureError, match="not finite"):
        visit(session, np.full_like(x, np.nan), 1, 5, 0.1)


def test_the_cpu_does_not_stand_in_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime goes on with the CPU where a provider's libraries do not load."""
    import onnxruntime as installed

    listed = [onnxruntime.CUDA, onnxruntime.CPU]
    monkeypatch.setattr(installed, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "_session", lambda *args: installed.InferenceSession(args[0]))
    drawn = {"block": weights.draw(OP, np.random.default_rng(0))}
    with pytest.raises(MeasureError, match="does not load here"):
        RUNTIMES["onnxruntime-cuda"].start(RUNTIMES["onnxruntime"].emit([("block", OP)], drawn), 1)


@every
def test_a_batch_takes_a_model_of_its_size(runtime: Runtime) -> None:
    drawn = {"block": weights.draw(OP, np.random.default_rng(0))}
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 8)).astype(np.float32)
    one, three = (runtime.session(runtime.emit([("block", OP)], drawn, batch=n), 1) for n in (1, 3))
    apart = np.concatenate([one(image[None]) for image in x])
    assert close(runtime, apart, three(x))


def test_a_precision_is_part_of_a_device() -> None:
    assert now.with_precision("tflite", "int8") == "tflite-int8"
    assert now.with_precision("gpu", "fp16") == "gpu-fp16"
    for device, precision in (("cpu", None), ("cpu", "fp32"), ("cpu-int8", None), ("cpu-int8", "int8")):
        assert now.with_precision(device, precision) == device
    assert now.precision_of(now.DEVICES["tflite-int8"]) == "int8"


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [("torch", "int8", "with it go cpu-int8, tflite-int8"), ("cpu", "int4", "choose fp32, fp16 or int8")],
)
def test_a_precision_that_a_device_lacks_is_one_line(ofa: Run, device: str, precision: str, words: str) -> None:
    refused(ofa("build-lut", "--device", device, "--precision", precision), device, precision, words)
