"""ONNX graphs of single operators and whole networks, emitted directly with `onnx.helper`.

The layout is NCHW and the batch is fixed. Squeeze-and-excitation uses GlobalAveragePool, with which onnxruntime keeps
its blocked layout and fuses activations into convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.graphs.weights import INPUT, OUTPUT, Weights, check_activation
from ofa_deploy.spaces.ops import Op

OPSET = 17
IR_VERSION = 8


class _Graph:
    """Nodes and arrays of a graph that grows at its end."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.end = INPUT

    def array(self, name: str, value: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str:
        self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        self.end = name
        return name

    def conv(self, x: str, prefix: str, module: str, weights: Weights, act: str, **attributes: Any) -> str:
        names = [self.array(f"{prefix}.{module}.{what}", weights[f"{module}.{what}"]) for what in ("weight", "bias")]
        return self.act(self.node("Conv", [x, *names], **attributes), act)

    def act(self, x: str, act: str) -> str:
        check_activation(act, _ACTIVATIONS, "ONNX")
        return _ACTIVATIONS[act](self, x)


def _relu6(graph: _Graph, x: str) -> str:
    limits = [graph.array(f"{x}.{k}", np.array(v, np.float32)) for k, v in (("low", 0.0), ("high", 6.0))]
    return graph.node("Clip", [x, *limits])


_ACTIVATIONS: dict[str, Callable[[_Graph, str], str]] = {
    "none": lambda graph, x: x,
    "relu": lambda graph, x: graph.node("Relu", [x]),
    "relu6": _relu6,
    "hswish": lambda graph, x: graph.node("HardSwish", [x]),
}


def _conv(graph: _Graph, name: str, op: Op, weights: Weights) -> None:
    x = graph.end
    y = graph.conv(x, name, "conv", weights, op.act, **_window(op))
    if op.shortcut:
        graph.node("Add", [x, y])


def _mbconv(graph: _Graph, name: str, op: Op, weights: Weights) -> None:
    x = y = graph.end
    if op.c_mid != op.c_in:
        y = graph.conv(y, name, "expand", weights, op.act)
    y = graph.conv(y, name, "depthwise", weights, op.act, group=op.c_mid, **_window(op))
    if op.se:
        gate = graph.node("GlobalAveragePool", [y])
        gate = graph.conv(gate, name, "se_reduce", weights, "relu")
        gate = graph.conv(gate, name, "se_expand", weights, "none")
        y = graph.node("Mul", [y, graph.node("HardSigmoid", [gate], alpha=1 / 6, beta=0.5)])
    y = graph.conv(y, name, "project", weights, "none")
    if op.shortcut:
        graph.node("Add", [y, x])


def _bottleneck(graph: _Graph, name: str, op: Op, weights: Weights) -> None:
    x = graph.end
    y = graph.conv(x, name, "conv1", weights, op.act)
    y = graph.conv(y, name, "conv2", weights, op.act, **_window(op))
    y = graph.conv(y, name, "conv3", weights, "none")
    if not op.shortcut:
        if op.stride > 1:
            x = graph.node("AveragePool", [x], kernel_shape=[op.stride] * 2, strides=[op.stride] * 2, ceil_mode=1)
        x = graph.conv(x, name, "downsample", weights, "none")
    graph.act(graph.node("Add", [x, y]), op.act)


def _maxpool(graph: _Graph, name: str, op: Op, weights: Weights) -> None:
    graph.node("MaxPool", [graph.end], **_window(op))


def _pool(graph: _Graph, name: str, op: Op, weights: Weights) -> None:
    graph.node("GlobalAveragePool", [graph.end])


def _linear(graph: _Graph, name: str, op: Op, weights: Weights) -> None:
    """A dense layer; with a bias it ends the network and its output is flat."""
    weight = weights["linear.weight"]
    if op.bias:
        x = graph.node("Flatten", [graph.end])
        names = [graph.array(f"{name}.weight", weight), graph.array(f"{name}.bias", weights["linear.bias"])]
        graph.act(graph.node("Gemm", [x, *names], transB=1), op.act)
    else:
        names = [graph.array(f"{name}.weight", weight[:, :, None, None])]
        graph.act(graph.node("Conv", [graph.end, *names]), op.act)


_EMITTERS: dict[str, Callable[[_Graph, str, Op, Weights], None]] = {
    "conv": _conv,
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "maxpool": _maxpool,
    "pool": _pool,
    "linear": _linear,
}


def _window(op: Op) -> dict[str, Any]:
    pad = op.kernel // 2
    return {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": [pad] * 4}


def emit(
    named_ops: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    *,
    batch: int = 1,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """The ONNX file of operators in sequence.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them; a single one makes a block.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        batch: images a run.
        notes: what becomes the file's metadata.

    Raises:
        MeasureError: an operator has an activation that this module does not write.
    """
    model = model_of(named_ops, weights, batch=batch)
    helper.set_model_props(model, dict(notes or {}))
    return bytes(model.SerializeToString())


def model_of(named_ops: Sequence[tuple[str, Op]], weights: Mapping[str, Weights], *, batch: int = 1) -> onnx.ModelProto:
    """The ONNX model of operators in sequence.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them; a single one makes a block.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        batch: images a run.

    Returns:
        a model from `image`, float32 (batch, channels, height, width), to `logits`: (batch, classes), or the
        feature map of the last operator.

    Raises:
        MeasureError: an operator has an activation that this module does not write.
    """
    graph = _Graph()
    for name, op in named_ops:
        _EMITTERS[op.kind](graph, name, op, weights[name])
    first, last = named_ops[0][1], named_ops[-1][1]
    graph.nodes[-1].output[0] = OUTPUT
    flat = last.kind == "linear" and last.bias
    out_shape = [batch, last.c_out] if flat else [batch, last.c_out, last.out_size, last.out_size]
    graph_proto = helper.make_graph(
        graph.nodes,
        "ofa_deploy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [batch, first.c_in, first.size, first.size])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, out_shape)],
        graph.arrays,
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph_proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="ofa-deploy")
