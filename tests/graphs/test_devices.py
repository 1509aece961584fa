"""What every device must do."""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_deploy.device import onnxruntime, openvino
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import DEVICES, PRECISIONS, Device, get_device, with_precision
from ofa_deploy.device.timing import Array, Run, Session
from ofa_deploy.errors import MeasureError
from ofa_deploy.graphs import weights
from ofa_deploy.graphs.formats import FILE_FORMATS, format_of
from ofa_deploy.spaces.ops import Op
from tests.conftest import Run as Command
from tests.conftest import refused
from tests.graphs.test_onnx import reference

OP = Op("mbconv", 8, 8, 16, 24, 5, 2, "hswish", 8)


def reason(device: Device) -> str:
    """Why a device cannot be used here; nothing where it can."""
    try:
        device.check()
    except MeasureError as error:
        return str(error)
    return ""


every = pytest.mark.parametrize(
    "device",
    [
        pytest.param(device, id=name, marks=pytest.mark.skipif(bool(reason(device)), reason=reason(device)))
        for name, device in DEVICES.items()
    ],
)


def emitted(device: Device, drawn: weights.Weights, batch: int = 1) -> bytes:
    """The file of one block for a device."""
    return format_of(device).emit([("block", OP)], {"block": drawn}, batch=batch)


def taking_nchw(device: Device, model: bytes, threads: int = 1) -> Run:
    return format_of(device).taking_nchw(device.session(model, threads))


def close(device: Device, got: Array, expected: Array) -> bool:
    """Whether a device computed what it should, in its precision."""
    tolerance = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.05}[device.precision]
    return bool(np.abs(got - expected).max() < tolerance * np.abs(expected).max())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A run of PyTorch sets the threads of the process."""
    yield
    torch.set_num_threads(1)


@every
@pytest.mark.parametrize("threads", [1, 2])
def test_it_computes_what_torch_computes(device: Device, threads: int) -> None:
    rng = np.random.default_rng(0)
    drawn = weights.draw(OP, rng)
    x = rng.standard_normal((3, 8, 8, 8)).astype(np.float32)
    model, native = emitted(device, drawn, 3), format_of(device).native
    expected = native(reference(OP, drawn, torch.from_numpy(x)).numpy())
    for got in (device.session(model, threads)(native(x)), taking_nchw(device, model, threads)(x)):
        assert got.shape == expected.shape
        assert close(device, got, expected)


@every
def test_a_result_stays_when_the_session_runs_again(device: Device) -> None:
    rng = np.random.default_rng(0)
    session = taking_nchw(device, emitted(device, weights.draw(OP, rng)))
    x = rng.standard_normal((1, 8, 8, 8)).astype(np.float32)
    first = session(x)
    kept = first.copy()
    session(2 * x)
    assert (first == kept).all()


@every
@pytest.mark.parametrize("threads", [1, 2])
def test_it_can_be_timed(device: Device, threads: int) -> None:
    rng = np.random.default_rng(0)
    session = device.session(emitted(device, weights.draw(OP, rng)), threads)
    x = format_of(device).native(np.zeros((1, 8, 8, 8), np.float32))
    visit = session.time(x, runs=5, seconds=0.1, threads=threads)
    assert 0 < visit.minimum_ms <= visit.median_ms


@every
def test_one_thread_is_the_callers(device: Device) -> None:
    """Preempted samples are told by the CPU time of the thread that calls."""
    if device.gpu_name is not None:
        pytest.skip("a GPU computes")
    op = dataclasses.replace(OP, size=112)
    model = format_of(device).emit([("block", op)], {"block": weights.draw(op, np.random.default_rng(0))})
    session = device.session(model, 1)
    x = format_of(device).native(np.zeros((1, 8, 112, 112), np.float32))
    session(x)
    thread, process = time.thread_time(), time.process_time()
    for _ in range(20):
        session(x)
    thread, process = time.thread_time() - thread, time.process_time() - process
    assert thread > 0.9 * process


@every
@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_what_is_no_model_is_refused(device: Device, content: bytes) -> None:
    with pytest.raises(MeasureError, match="does not take the graph"):
        device.session(content, 1)


@pytest.mark.parametrize(
    ("name", "modules", "words"),
    [
        ("cpu", ["onnxruntime"], "onnxruntime is not installed; pip install onnxruntime"),
        ("torch", ["torch"], "torch is not installed; pip install torch"),
        ("gpu", ["torch"], "torch is not installed; pip install torch"),
        ("ort-cuda", ["onnxruntime"], "onnxruntime is not installed; pip install onnxruntime-gpu"),
        (
            "tflite",
            ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"],
            "LiteRT is not installed; pip install ai-edge-litert",
        ),
        ("openvino", ["openvino"], "OpenVINO is not installed; pip install openvino"),
    ],
)
def test_a_missing_library_says_how_to_install_it(
    name: str, modules: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino._core.cache_clear()
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    device = DEVICES[name]
    for use in (lambda: device.session(b"", 1), device.check):
        with pytest.raises(MeasureError) as refusal:
            use()
        assert str(refusal.value) == words


def test_a_broken_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(content: bytes, threads: int) -> Session:
        raise ImportError("libblas.so.3: cannot open shared object file\nmore")

    broken = dataclasses.replace(DEVICES["cpu"], start=start)
    with pytest.raises(MeasureError, match="installed but cannot be loaded: libblas.so.3: cannot .* file; pip install"):
        broken.session(b"", 1)


def test_without_openvino_everything_else_works() -> None:
    code = """
import sys
sys.modules["openvino"] = None
from ofa_deploy.cli import main
from ofa_deploy.device.devices import DEVICES
from ofa_deploy.export.formats import FORMATS
from ofa_deploy.views.doctor import examine
print(examine(0)["runtimes"]["OpenVINO"]["problem"])
DEVICES["cpu"].check()
"""
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == "OpenVINO is not installed; pip install openvino"


def test_openvino_computes_with_the_threads_that_are_asked_for_and_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = pytest.importorskip("openvino", reason="pip install openvino")
    settings: list[dict[str, object]] = []
    compiled = installed.Core.compile_model

    def compile_model(core: object, model: object, name: str, config: dict[str, object]) -> object:
        network = compiled(core, model, name, config)
        settings.append({key: network.get_property(key) for key in config})
        return network

    monkeypatch.setattr(installed.Core, "compile_model", compile_model)
    model = emitted(DEVICES["openvino"], weights.draw(OP, np.random.default_rng(0)))
    for threads in (1, 2):
        DEVICES["openvino"].session(model, threads)
        assert settings[-1]["INFERENCE_PRECISION_HINT"] == installed.Type.f32
    one, two = settings
    assert (one["NUM_STREAMS"], two["NUM_STREAMS"], two["INFERENCE_NUM_THREADS"]) == (0, 1, 2)


def test_many_sessions_of_openvino_start_no_threads() -> None:
    """A table has thousands of operators, each with a session of its own."""
    pytest.importorskip("openvino", reason="pip install openvino")
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the system does not tell")

    def threads() -> int:
        return int(next(line for line in status.read_text().splitlines() if line.startswith("Threads:")).split()[1])

    device, x = DEVICES["openvino"], np.zeros((1, 8, 8, 8), np.float32)
    model = emitted(device, weights.draw(OP, np.random.default_rng(0)))
    sessions = [device.session(model, 1)]
    sessions[0](x)
    before = threads()
    for _ in range(20):
        sessions.append(device.session(model, 1))
        sessions[-1](x)
    assert threads() < before + 5


def test_every_device_has_a_format_and_conditions_with_a_version() -> None:
    assert {name: device.name for name, device in DEVICES.items()} == {name: name for name in DEVICES}
    assert len({device.runtime for device in DEVICES.values()}) == len(DEVICES)
    for name, device in DEVICES.items():
        assert (device.file_format, device.precision) in FILE_FORMATS
        if not reason(device):
            about = conditions(name, 1)
            assert (about["device"], about["runtime"], about["precision"]) == (name, device.runtime, device.precision)
            assert about["runtime_version"][0].isdigit()


def test_names_in_tables_stay() -> None:
    """Tables of releases record them."""
    assert {name: (device.runtime, device.precision) for name, device in DEVICES.items()} == {
        "cpu": ("onnxruntime", "fp32"),
        "tflite": ("tflite", "fp32"),
        "torch": ("torch", "fp32"),
        "gpu": ("torch-cuda", "fp32"),
        "gpu-fp16": ("torch-cuda-fp16", "fp16"),
        "ort-cuda": ("onnxruntime-cuda", "fp32"),
        "tensorrt": ("onnxruntime-tensorrt", "fp32"),
        "cpu-int8": ("onnxruntime-int8", "int8"),
        "tflite-int8": ("tflite-int8", "int8"),
        "openvino": ("openvino", "fp32"),
    }


def test_a_device_is_checked() -> None:
    with pytest.raises(MeasureError, match=f"cpu must compute in one of {', '.join(PRECISIONS)}, not 'bf16'"):
        dataclasses.replace(DEVICES["cpu"], precision="bf16")
    with pytest.raises(MeasureError, match="unknown device 'abacus'; choose one of cpu, tflite"):
        get_device("abacus")


@pytest.mark.parametrize(
    ("device", "words"),
    [("gpu", "pip install torch"), ("gpu-fp16", "pip install torch"), ("ort-cuda", "pip install onnxruntime-gpu")],
)
def test_a_gpu_that_is_not_here_is_one_line(ofa: Command, device: str, words: str) -> None:
    if not reason(DEVICES[device]):
        pytest.skip("there is one")
    refused(ofa("build-lut", "--device", device, "--resolutions", 16), words)


def test_a_session_on_a_device_computes_and_times_itself() -> None:
    """The session of onnxruntime's GPU providers, with the CPU for the device."""
    model = emitted(DEVICES["cpu"], weights.draw(OP, np.random.default_rng(0)), 2)
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 8)).astype(np.float32)
    made = onnxruntime._session(model, 1, [onnxruntime.CPU], {})
    session = onnxruntime.BoundSession(made, "cpu")
    assert (session(x) == onnxruntime.start(model, 1)(x)).all()
    visit = session.time(x, runs=5, seconds=10.0, threads=1)
    assert visit.runs + visit.dropped == 5
    with pytest.raises(MeasureError, match="not finite"):
        session.time(np.full_like(x, np.nan), runs=5, seconds=0.1, threads=1)


def test_the_cpu_does_not_stand_in_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime goes on with the CPU where a provider's libraries do not load."""
    import onnxruntime as installed

    listed = [onnxruntime.CUDA, onnxruntime.CPU]
    monkeypatch.setattr(installed, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "_session", lambda *args: installed.InferenceSession(args[0]))
    with pytest.raises(MeasureError, match="does not load here"):
        DEVICES["ort-cuda"].session(emitted(DEVICES["cpu"], weights.draw(OP, np.random.default_rng(0))), 1)


@every
def test_a_batch_takes_a_model_of_its_size(device: Device) -> None:
    drawn = weights.draw(OP, np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 8)).astype(np.float32)
    one, three = (taking_nchw(device, emitted(device, drawn, batch)) for batch in (1, 3))
    apart = np.concatenate([one(image[None]) for image in x])
    assert close(device, apart, three(x))


def test_a_precision_is_part_of_a_device() -> None:
    assert with_precision("tflite", "int8") == "tflite-int8"
    assert with_precision("gpu", "fp16") == "gpu-fp16"
    for device, precision in (("cpu", None), ("cpu", "fp32"), ("cpu-int8", None), ("cpu-int8", "int8")):
        assert with_precision(device, precision) == device
    assert DEVICES["tflite-int8"].precision == "int8"


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [("torch", "int8", "with it go cpu-int8, tflite-int8"), ("cpu", "int4", "choose fp32, fp16 or int8")],
)
def test_a_precision_that_a_device_lacks_is_one_line(ofa: Command, device: str, precision: str, words: str) -> None:
    refused(ofa("build-lut", "--device", device, "--precision", precision), device, precision, words)
