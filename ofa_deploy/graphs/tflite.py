"""TFLite graphs of single operators and whole networks.

The layout is NHWC and the batch is fixed. Strided windows on even sizes, where PyTorch's padding is not TensorFlow's
`SAME`, are padded explicitly. The file has a signature, which quantisers ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ofa_deploy.graphs.tflite_graph import SAME, Arrays, Graph
from ofa_deploy.graphs.weights import Weights
from ofa_deploy.spaces.ops import Op


def _pair(weights: Weights, module: str) -> Arrays:
    return weights[f"{module}.weight"], weights[f"{module}.bias"]


def _conv(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x = graph.end
    y = graph.conv(x, f"{name}.conv", _pair(weights, "conv"), act=op.act, op=op)
    if op.shortcut:
        graph.sum(x, y)


def _mbconv(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x = y = graph.end
    if op.c_mid != op.c_in:
        y = graph.conv(y, f"{name}.expand", _pair(weights, "expand"), act=op.act)
    y = graph.conv(y, f"{name}.depthwise", _pair(weights, "depthwise"), act=op.act, op=op)
    if op.se:
        gate = graph.mean(y)
        gate = graph.conv(gate, f"{name}.se_reduce", _pair(weights, "se_reduce"), act="relu")
        y = graph.product(y, graph.gate(gate, f"{name}.se_expand", _pair(weights, "se_expand")))
    y = graph.conv(y, f"{name}.project", _pair(weights, "project"), act="none")
    if op.shortcut:
        graph.sum(y, x)


def _bottleneck(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x = graph.end
    y = graph.conv(x, f"{name}.conv1", _pair(weights, "conv1"), act=op.act)
    y = graph.conv(y, f"{name}.conv2", _pair(weights, "conv2"), act=op.act, op=op)
    y = graph.conv(y, f"{name}.conv3", _pair(weights, "conv3"), act="none")
    if not op.shortcut:
        if op.stride > 1:
            window = {"kernel": op.stride, "stride": op.stride, "padding": SAME}
            x = graph.pool("AVERAGE_POOL_2D", x, **window, size=op.out_size)
        x = graph.conv(x, f"{name}.downsample", _pair(weights, "downsample"), act="none")
    graph.sum(x, y, op.act)


def _maxpool(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x, padding = graph.padded(graph.end, op, value=float(np.finfo(np.float32).min))
    graph.pool("MAX_POOL_2D", x, kernel=op.kernel, stride=op.stride, padding=padding, size=op.out_size)


def _pool(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    graph.mean(graph.end)


def _linear(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    """A dense layer; with a bias it ends the network and its output is flat."""
    weight = weights["linear.weight"]
    if op.bias:
        graph.dense(graph.end, name, (weight, weights["linear.bias"]), act=op.act)
    else:
        graph.conv(graph.end, name, (weight[:, :, None, None], np.zeros(op.c_out, np.float32)), act=op.act)


_EMITTERS: dict[str, Callable[[Graph, str, Op, Weights], None]] = {
    "conv": _conv,
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "maxpool": _maxpool,
    "pool": _pool,
    "linear": _linear,
}


def emit(
    named_ops: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    *,
    batch: int = 1,
    notes: Mapping[str, str] | None = None,
    forms: type[Graph] = Graph,
) -> bytes:
    """The TFLite file of operators in sequence.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them; a single one makes a block.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        batch: images a run.
        notes: more to be written into the file's metadata.
        forms: in which operators are written.

    Returns:
        a model from `image`, float32 (batch, height, width, channels), to `logits`: (batch, classes), or the
        feature map of the last operator, channels last.

    Raises:
        MeasureError: an operator has an activation that this module does not write.
    """
    first = named_ops[0][1]
    graph = forms([batch, first.size, first.size, first.c_in])
    for name, op in named_ops:
        _EMITTERS[op.kind](graph, name, op, weights[name])
    return graph.serialise(notes or {})
