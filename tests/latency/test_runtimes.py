"""What every runtime must do."""

import sys

import numpy as np
import pytest
import torch

from ofa_deploy.errors import MeasureError
from ofa_deploy.graphs import weights
from ofa_deploy.latency.device import conditions as now
from ofa_deploy.latency.device.timing import visit
from ofa_deploy.latency.runtimes import RUNTIMES, Runtime
from ofa_deploy.ops import Op
from tests.graphs.test_onnx import reference

OP = Op("mbconv", 8, 8, 16, 24, 5, 2, "hswish", 8)
every = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)


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
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


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
    for device in now.DEVICES:
        assert now.conditions(device, 1)["runtime_version"][0].isdigit()
