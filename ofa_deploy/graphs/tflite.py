"""TFLite graphs of single operators and whole networks, emitted directly with the schema that LiteRT ships.

The layout is NHWC and the batch is fixed. Strided windows on even sizes, where PyTorch's padding is not TensorFlow's
`SAME`, are padded explicitly. The file has a signature, which quantisers ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.graphs.weights import INPUT, OUTPUT, Weights, check_activation
from ofa_deploy.optional import needing
from ofa_deploy.spaces.ops import Op

with needing("TFLite models need LiteRT", "pip install ai-edge-litert"):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

ALIGNMENT = 16
"""Bytes that the schema wants arrays aligned to; its Python code leaves that out."""
MOST_WEIGHTS = 25
"""A channel's weights, up to which XNNPACK has a depthwise kernel."""
FUSED = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
"""Activations that are a part of the operator before."""


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """An aligned array."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802
        data = None
        if self.data is not None:
            size = len(self.data)
            builder.StartVector(1, size, ALIGNMENT)
            builder.head -= size
            builder.Bytes[builder.head : builder.head + size] = self.data
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class Graph:
    """Tensors and operators of a graph that grows at its end; a tensor is an index.

    A tensor may hold a multiple of what it stands for, see `times`: what an activation would have to be divided by is
    left to the weights that come next, which costs nothing. That is linear operators' business; whatever else needs
    the values themselves asks for `plain`.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [_Buffer()]
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.times: list[float] = []
        self.end = self.tensor(INPUT, shape)

    def tensor(self, name: str, shape: Sequence[int], value: npt.NDArray[Any] | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape = name, list(map(int, shape))
        made.type = schema.TensorType.INT32 if value is not None and value.dtype == np.int32 else 0
        made.buffer = 0
        if value is not None:
            made.buffer = len(self.buffers)
            buffer = _Buffer()
            buffer.data = np.ascontiguousarray(value).tobytes()
            self.buffers.append(buffer)
        self.tensors.append(made)
        self.times.append(1.0)
        return len(self.tensors) - 1

    def array(self, name: str, value: npt.NDArray[Any]) -> int:
        return self.tensor(name, value.shape, value)

    def note(self, key: str, text: str) -> Any:
        made = schema.MetadataT()
        made.name, made.buffer = key, len(self.buffers)
        buffer = _Buffer()
        buffer.data = text.encode()
        self.buffers.append(buffer)
        return made

    def shape(self, tensor: int) -> list[int]:
        return list(self.tensors[tensor].shape)

    def multiple(self, tensor: int, times: float) -> int:
        """The tensor, which from now on stands for its values divided by `times`."""
        self.times[tensor] = times
        return tensor

    def plain(self, x: int) -> int:
        """A tensor that holds what another stands for."""
        if self.times[x] == 1.0:
            return x
        share = self.array(f"share_{len(self.operators)}", np.array([1 / self.times[x]], np.float32))
        return self.add("MUL", [x, share], self.shape(x), schema.MulOptionsT())

    def add(
        self, kind: str, inputs: Sequence[int], shape: Sequence[int], options: Any = None, times: float = 1.0
    ) -> int:
        """An operator at the end: its builtin's name, inputs, its output's shape, options, and the output's times."""
        code = getattr(schema.BuiltinOperator, kind)
        made = schema.OperatorT()
        made.opcodeIndex = self.codes.setdefault(code, len(self.codes))
        made.inputs = list(inputs)
        self.end = self.tensor(f"{kind.lower()}_{len(self.operators)}", shape)
        self.times[self.end] = times
        made.outputs = [self.end]
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(made)
        return self.end

    def padded(self, x: int, op: Op, value: float = 0.0, rows: int | None = None) -> tuple[int, int]:
        """The input of a window and TensorFlow's padding for it, so that it lies where PyTorch has it.

        With `rows`, the window spans that many rows, around the middle of the operator's own.
        """
        if op.stride == 1 or op.size % 2:
            return x, schema.Padding.SAME
        n, height, width, channels = self.shape(x)
        pad, above = op.kernel // 2, (rows or op.kernel) // 2
        sizes = self.array(
            f"paddings_{len(self.operators)}", np.array([[0, 0], [above] * 2, [pad] * 2, [0, 0]], np.int32)
        )
        shape = [n, height + 2 * above, width + 2 * pad, channels]
        if value == 0:
            return self.add("PAD", [x, sizes], shape, schema.PadOptionsT(), self.times[x]), schema.Padding.VALID
        fill = self.array(f"fill_{len(self.operators)}", np.array(value, np.float32))
        x = self.plain(x)
        return self.add("PADV2", [x, sizes, fill], shape, schema.PadV2OptionsT()), schema.Padding.VALID

    def conv(self, x: int, name: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any], act: str, op: Op | None) -> int:
        """A convolution, of an operator's window or 1x1, dense or depthwise, with its activation.

        XNNPACK has depthwise kernels for up to 25 weights; a larger window falls back to a dense convolution for each
        channel, which takes ten times longer. So a window of 7x7 is written as the sum of three: its middle rows, and
        two pairs of rows around them, which are dilated.
        """
        middle, height = weight.shape[2] // 2, self.shape(x)[1]
        if weight.shape[1] > 1 or weight.shape[2] * weight.shape[3] <= MOST_WEIGHTS:
            return self.act(self.window(x, name, weight, bias, act, op), act)
        last = min(middle, height - 1)  # rows further away than that see nothing but padding
        fused = act if act in FUSED else "none"
        near = weight[:, :, middle - 1 : middle + 2]
        y = self.window(x, f"{name}.0", near, bias, fused if last < 2 else "none", op)
        for away in range(2, last + 1):
            pair = weight[:, :, [middle - away, middle + away]]
            other = self.window(x, f"{name}.{away}", pair, np.zeros_like(bias), "none", op, 2 * away)
            y = self.sum(y, other, fused if away == last else "none")
        return self.act(y, act)

    def window(
        self,
        x: int,
        name: str,
        weight: npt.NDArray[Any],
        bias: npt.NDArray[Any],
        act: str,
        op: Op | None,
        apart: int = 1,
    ) -> int:
        """A convolution with the part of its activation that can be fused; its rows lie `apart`."""
        span = (weight.shape[2] - 1) * apart + 1
        x, padding = (x, schema.Padding.SAME) if op is None else self.padded(x, op, rows=span)
        stride = 1 if op is None else op.stride
        n, height, width, c_in = self.shape(x)
        depthwise = weight.shape[1] == 1 and weight.shape[0] == c_in > 1
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        if depthwise:
            options.depthMultiplier = 1
        options.strideH = options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = apart, 1
        options.padding = padding
        options.fusedActivationFunction = FUSED.get(act, FUSED["none"])
        if padding == schema.Padding.VALID:
            height, width = height - span + 1, width - weight.shape[3] + 1
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        weight = weight / np.float32(self.times[x])
        arrays = [self.array(f"{name}.weight", weight.transpose(order)), self.array(f"{name}.bias", bias)]
        shape = [n, -(-height // stride), -(-width // stride), weight.shape[0]]
        return self.add("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [x, *arrays], shape, options)

    def act(self, x: int, act: str) -> int:
        """The activation of a tensor, unless it is fused with the operator that makes the tensor."""
        check_activation(act, (*FUSED, *APART), "TFLite")
        return x if act in FUSED else APART[act](self, x)

    def hard_swish(self, x: int) -> int:
        """x relu6(x + 3) / 6."""
        return self.add("HARD_SWISH", [self.plain(x)], self.shape(x))

    def sum(self, x: int, y: int, act: str = "none") -> int:
        """A sum with its activation."""
        x, y = self.plain(x), self.plain(y)
        options = schema.AddOptionsT()
        options.fusedActivationFunction = FUSED.get(act, FUSED["none"])
        return self.act(self.add("ADD", [x, y], self.shape(x), options), act)

    def product(self, x: int, y: int) -> int:
        return self.add("MUL", [x, y], self.shape(x), schema.MulOptionsT(), self.times[x] * self.times[y])

    def mean(self, x: int) -> int:
        options = schema.ReducerOptionsT()
        options.keepDims = True
        n, _, _, channels = self.shape(x)
        axes = self.array(f"axes_{len(self.operators)}", np.array([1, 2], np.int32))
        return self.add("MEAN", [x, axes], [n, 1, 1, channels], options, self.times[x])

    def gate(self, x: int, name: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> int:
        """The hard-sigmoid relu6(x + 3) / 6 of a 1x1 convolution: 3 is a part of the bias, 6 of what comes next."""
        return self.multiple(self.conv(x, name, weight, bias + np.float32(3), "relu6", None), 6.0)

    def pool(self, kind: str, x: int, kernel: int, stride: int, padding: int, size: int) -> int:
        options = schema.Pool2DOptionsT()
        options.filterHeight = options.filterWidth = kernel
        options.strideH = options.strideW = stride
        options.padding = padding
        n, _, _, channels = self.shape(x)
        return self.add(kind, [x], [n, size, size, channels], options, self.times[x])

    def serialise(self, notes: Mapping[str, str]) -> bytes:
        self.end = self.plain(self.end)
        self.tensors[self.end].name = OUTPUT
        inside = schema.SubGraphT()
        inside.tensors, inside.operators = self.tensors, self.operators
        inside.inputs, inside.outputs, inside.name = [0], [self.end], "main"
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = [_named(INPUT, 0)], [_named(OUTPUT, self.end)]
        model = schema.ModelT()
        model.version, model.description = 3, "ofa-deploy"
        model.subgraphs, model.buffers, model.signatureDefs = [inside], self.buffers, [signature]
        model.metadata = [self.note(key, text) for key, text in notes.items()]
        model.operatorCodes = []
        for code in self.codes:
            one = schema.OperatorCodeT()
            one.builtinCode, one.deprecatedBuiltinCode, one.version = code, min(code, 127), 1
            model.operatorCodes.append(one)
        builder = flatbuffers.Builder(1024 + sum(len(b.data or b"") + 64 for b in self.buffers))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


APART: dict[str, Callable[[Graph, int], int]] = {"hswish": lambda graph, x: graph.hard_swish(x)}
"""Activations that are operators of their own."""


def _named(name: str, tensor: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, tensor
    return made


def _pair(weights: Weights, part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    return weights[f"{part}.weight"], weights[f"{part}.bias"]


def _conv(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x = graph.end
    y = graph.conv(x, f"{name}.conv", *_pair(weights, "conv"), op.act, op)
    if op.shortcut:
        graph.sum(x, y)


def _mbconv(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x = y = graph.end
    if op.c_mid != op.c_in:
        y = graph.conv(y, f"{name}.expand", *_pair(weights, "expand"), op.act, None)
    y = graph.conv(y, f"{name}.depthwise", *_pair(weights, "depthwise"), op.act, op)
    if op.se:
        gate = graph.mean(y)
        gate = graph.conv(gate, f"{name}.se_reduce", *_pair(weights, "se_reduce"), "relu", None)
        y = graph.product(y, graph.gate(gate, f"{name}.se_expand", *_pair(weights, "se_expand")))
    y = graph.conv(y, f"{name}.project", *_pair(weights, "project"), "none", None)
    if op.shortcut:
        graph.sum(y, x)


def _bottleneck(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x = graph.end
    y = graph.conv(x, f"{name}.conv1", *_pair(weights, "conv1"), op.act, None)
    y = graph.conv(y, f"{name}.conv2", *_pair(weights, "conv2"), op.act, op)
    y = graph.conv(y, f"{name}.conv3", *_pair(weights, "conv3"), "none", None)
    if not op.shortcut:
        if op.stride > 1:
            x = graph.pool("AVERAGE_POOL_2D", x, op.stride, op.stride, schema.Padding.SAME, op.out_size)
        x = graph.conv(x, f"{name}.downsample", *_pair(weights, "downsample"), "none", None)
    graph.sum(x, y, op.act)


def _maxpool(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    x, padding = graph.padded(graph.end, op, float(np.finfo(np.float32).min))
    graph.pool("MAX_POOL_2D", x, op.kernel, op.stride, padding, op.out_size)


def _pool(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    graph.mean(graph.end)


def _linear(graph: Graph, name: str, op: Op, weights: Weights) -> None:
    """A dense layer; with a bias it ends the network and its output is flat."""
    weight = weights["linear.weight"]
    if not op.bias:
        graph.conv(graph.end, name, weight[:, :, None, None], np.zeros(op.c_out, np.float32), op.act, None)
        return
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = FUSED.get(op.act, FUSED["none"])
    weight = weight / np.float32(graph.times[graph.end])
    arrays = [graph.array(f"{name}.weight", weight), graph.array(f"{name}.bias", weights["linear.bias"])]
    n = graph.shape(graph.end)[0]
    graph.act(graph.add("FULLY_CONNECTED", [graph.end, *arrays], [n, op.c_out], options), op.act)


_EMITTERS: dict[str, Callable[[Graph, str, Op, Weights], None]] = {
    "conv": _conv,
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "maxpool": _maxpool,
    "pool": _pool,
    "linear": _linear,
}


def emit(
    parts: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    *,
    batch: int = 1,
    notes: Mapping[str, str] | None = None,
    forms: type[Graph] = Graph,
) -> bytes:
    """The TFLite file of operators in sequence.

    Args:
        parts: name and operator of each part, as `SearchSpace.walk` gives them; a single one makes a block.
        weights: the arrays of each part by its name (see `graphs.weights.shapes`).
        batch: images a run.
        notes: more to be written into the file's metadata.
        forms: in which operators are written.

    Returns:
        a model from `image`, float32 (batch, height, width, channels), to `logits`: (batch, classes), or the
        feature map of the last operator, channels last.

    Raises:
        MeasureError: an operator has an activation that this module does not write.
    """
    first = parts[0][1]
    graph = forms([batch, first.size, first.size, first.c_in])
    for name, op in parts:
        _EMITTERS[op.kind](graph, name, op, weights[name])
    return graph.serialise(notes or {})
