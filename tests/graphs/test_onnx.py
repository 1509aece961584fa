"""Emitted graphs compute what torch computes, for every kind of operator."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from ofa_deploy.device import onnxruntime
from ofa_deploy.graphs import onnx as graphs
from ofa_deploy.graphs import weights
from ofa_deploy.spaces.families import SPACES, get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.supernet.folding import folded_weights
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.recalibration import recalibrate


@pytest.mark.parametrize("name", SPACES)
def test_whole_network_equals_torch(name: str) -> None:
    space = get_space(name)
    net = Supernet(space).initialise(1)
    rng = np.random.default_rng(0)
    for drawn in space.archs(space.sample(rng, 2)):
        arch = dataclasses.replace(drawn, resolution=space.resolutions[1])
        x = torch.randn(
            8, space.in_channels, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(0)
        )
        plain = net.subnet(arch)
        recalibrate(plain, [x])
        model = graphs.emit(space.walk(arch), folded_weights(plain), batch=8)
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
        got = onnxruntime.start(model, 1)(x.numpy())
        expected = plain(x).detach().numpy()
        assert np.abs(got - expected).max() < 3e-5 * max(1, np.abs(expected).max())
        assert got.std() > 1e-4


BLOCKS = [
    Op("conv", 9, 3, 8, kernel=3, stride=2, act="hswish"),
    Op("conv", 8, 3, 8, kernel=1, act="relu6"),
    Op("pool", 5, 8, 8),
    Op("linear", 1, 8, 5, act="hswish"),
    Op("linear", 1, 8, 5, bias=True),
    *(
        Op("mbconv", size, 8, 8, 8 * expand, kernel, stride, act, se, shortcut=stride == 1)
        for size in (7, 8)
        for kernel in (3, 5, 7)
        for stride in (1, 2)
        for expand, act, se in ((1, "relu", 0), (3, "hswish", 8))
    ),
]


def reference(op: Op, w: weights.Weights, x: torch.Tensor) -> torch.Tensor:
    """The operator in torch's functions, from the same folded weights."""
    f = torch.nn.functional
    t = {key: torch.from_numpy(value) for key, value in w.items()}
    act = {"none": lambda v: v, "relu": f.relu, "relu6": f.relu6, "hswish": f.hardswish}[op.act]
    if op.kind == "conv":
        return act(f.conv2d(x, t["conv.weight"], t["conv.bias"], op.stride, op.kernel // 2))
    if op.kind == "pool":
        return x.mean((2, 3), keepdim=True)
    if op.kind == "linear":
        y = act(f.linear(x.flatten(1), t["linear.weight"], t.get("linear.bias")))
        return y if op.bias else y[..., None, None]
    y = x
    if op.c_mid != op.c_in:
        y = act(f.conv2d(y, t["expand.weight"], t["expand.bias"]))
    y = f.conv2d(y, t["depthwise.weight"], t["depthwise.bias"], op.stride, op.kernel // 2, groups=op.c_mid)
    y = act(y)
    if op.se:
        gate = f.relu(f.conv2d(y.mean((2, 3), keepdim=True), t["se_reduce.weight"], t["se_reduce.bias"]))
        y = y * f.hardsigmoid(f.conv2d(gate, t["se_expand.weight"], t["se_expand.bias"]))
    y = f.conv2d(y, t["project.weight"], t["project.bias"])
    return x + y if op.shortcut else y


@pytest.mark.parametrize("op", BLOCKS, ids=lambda op: f"{op.kind}-{op.size}-k{op.kernel}s{op.stride}{op.act}{op.se}")
def test_block_equals_torch(op: Op) -> None:
    rng = np.random.default_rng(3)
    drawn = weights.draw(op, rng)
    x = rng.standard_normal((2, op.c_in, op.size, op.size)).astype(np.float32)
    got = onnxruntime.start(graphs.emit([("block", op)], {"block": drawn}, batch=2), 1)(x)
    expected = reference(op, drawn, torch.from_numpy(x)).numpy()
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 3e-5 * max(1, np.abs(expected).max())


def test_network_holds_only_what_the_runtime_fuses() -> None:
    space = get_space("mbv3-w1.0")
    arch = space.extreme(largest=True)
    parts = space.walk(arch)
    rng = np.random.default_rng(0)
    model = graphs.model_of(parts, {name: weights.draw(op, rng) for name, op in parts})
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "Relu", "HardSwish", "GlobalAveragePool", "HardSigmoid", "Mul", "Add", "Flatten", "Gemm"}
