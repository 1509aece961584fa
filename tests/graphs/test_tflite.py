"""TFLite graphs compute what torch computes, for every kind of operator, and hold nothing that slows them."""

import dataclasses

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

from ofa_deploy.device import tflite
from ofa_deploy.graphs import tflite as graphs
from ofa_deploy.graphs import weights
from ofa_deploy.graphs.tflite_graph import Graph
from ofa_deploy.graphs.tflite_int8 import Int8Graph
from ofa_deploy.spaces.families import SPACES, get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.supernet.folding import folded_weights
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.recalibration import recalibrate
from tests.graphs.test_onnx import BLOCKS, reference


def last(x: np.ndarray) -> np.ndarray:
    """Channels last."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x


@pytest.mark.parametrize("name", SPACES)
def test_whole_network_equals_torch(name: str) -> None:
    space = get_space(name)
    net = Supernet(space).initialise(1)
    for drawn, r in zip(space.archs(space.sample(np.random.default_rng(0), 2)), space.resolutions[:2], strict=True):
        arch = dataclasses.replace(drawn, resolution=r)
        x = torch.randn(4, space.in_channels, r, r, generator=torch.Generator().manual_seed(0))
        plain = net.subnet(arch)
        recalibrate(plain, [x])
        got = tflite.start(graphs.emit(space.walk(arch), folded_weights(plain), batch=4), 1)(last(x.numpy()))
        expected = plain(x).detach().numpy()
        assert np.abs(got - expected).max() < 1e-4 * max(1, np.abs(expected).max())
        assert got.std() > 1e-4


MORE = [Op("maxpool", size, 8, 8, kernel=3, stride=2) for size in (7, 8)] + [
    Op("bottleneck", size, 8, 16, 4, 3, stride, "relu", shortcut=False) for size in (7, 8) for stride in (1, 2)
]


@pytest.mark.parametrize("op", BLOCKS, ids=lambda op: f"{op.kind}-{op.size}-k{op.kernel}s{op.stride}{op.act}{op.se}")
def test_block_equals_torch(op: Op) -> None:
    rng = np.random.default_rng(3)
    drawn = weights.draw(op, rng)
    x = rng.standard_normal((2, op.c_in, op.size, op.size)).astype(np.float32)
    got = tflite.start(graphs.emit([("block", op)], {"block": drawn}, batch=2), 1)(last(x))
    expected = last(reference(op, drawn, torch.from_numpy(x)).numpy())
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("op", MORE, ids=lambda op: f"{op.kind}-{op.size}-s{op.stride}")
def test_block_of_resnet_equals_onnx(op: Op) -> None:
    from ofa_deploy.device import onnxruntime
    from ofa_deploy.graphs import onnx

    rng = np.random.default_rng(3)
    drawn = weights.draw(op, rng)
    x = rng.standard_normal((2, op.c_in, op.size, op.size)).astype(np.float32) - 3  # a padding with zeros would win
    got = tflite.start(graphs.emit([("block", op)], {"block": drawn}, batch=2), 1)(last(x))
    expected = onnxruntime.start(onnx.emit([("block", op)], {"block": drawn}, batch=2), 1)(x)
    assert np.abs(got - last(expected)).max() < 1e-5 * max(1, np.abs(expected).max())


def test_network_holds_only_what_xnnpack_takes() -> None:
    space = get_space("mbv3-w1.0")
    parts = space.walk(space.extreme(largest=True))
    rng = np.random.default_rng(0)
    content = graphs.emit(parts, {name: weights.draw(op, rng) for name, op in parts})
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    kinds = {names[code.builtinCode] for code in model.operatorCodes}
    assert kinds == {"CONV_2D", "DEPTHWISE_CONV_2D", "PAD", "HARD_SWISH", "MEAN", "ADD", "MUL", "FULLY_CONNECTED"}
    (signature,) = model.signatureDefs
    assert [one.name.decode() for one in (*signature.inputs, *signature.outputs)] == ["image", "logits"]


def test_arrays_are_aligned() -> None:
    op = Op("mbconv", 8, 8, 8, 24, 3, 1, "hswish", 8, shortcut=True)
    drawn = weights.draw(op, np.random.default_rng(0))
    content = graphs.emit([("block", op)], {"block": drawn})
    for name, times in (("expand.weight", 1), ("project.weight", 6)):  # the 6 of the gate
        share = drawn[name] / np.float32(times)
        where = content.find(np.ascontiguousarray(share.transpose(0, 2, 3, 1)).tobytes())
        assert where > 0
        assert where % 16 == 0


@pytest.mark.parametrize(
    ("forms", "activation"), [(Graph, ["HARD_SWISH"]), (Int8Graph, ["ADD", "MUL"])], ids=["float", "int8"]
)
def test_constants_of_gates_and_activations_are_in_the_weights(forms: type[Graph], activation: list[str]) -> None:
    op = Op("mbconv", 8, 8, 8, 24, 5, 1, "hswish", 8, shortcut=True)
    drawn = weights.draw(op, np.random.default_rng(0))
    content = graphs.emit([("block", op)], {"block": drawn}, forms=forms)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    kinds = [names[model.operatorCodes[one.opcodeIndex].builtinCode] for one in model.subgraphs[0].operators]
    gate = ["MEAN", "CONV_2D", "CONV_2D", "MUL"]
    assert kinds == ["CONV_2D", *activation, "DEPTHWISE_CONV_2D", *activation, *gate, "CONV_2D", "ADD"]
