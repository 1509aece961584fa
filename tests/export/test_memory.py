"""The memory that a model takes, measured in a process of its own."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.export.memory import STATUS, measure_memory


def product(size: int) -> bytes:
    """An ONNX model: a vector times a random matrix of that size."""
    matrix = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size)) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [numpy_helper.from_array(matrix, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.skipif(not STATUS.exists(), reason="the system has no /proc")
def test_a_model_with_more_weights_takes_as_much_more_memory() -> None:
    small, large = (measure_memory(product(size), "cpu", (1, size)) for size in (2, 2000))
    assert small is not None
    assert large is not None
    assert 14 < large["model_mb"] - small["model_mb"] < 80, "16 MB of weights"
    assert small["process_mb"] > 20
    assert large["process_mb"] - small["process_mb"] > 14


def test_where_it_cannot_be_told_there_is_nothing() -> None:
    assert measure_memory(b"no model", "cpu", (1, 2)) is None
    assert not Path("model").exists()
