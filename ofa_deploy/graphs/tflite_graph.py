"""TFLite files, written operator by operator with the schema that LiteRT ships."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.graphs.weights import INPUT, OUTPUT, check_activation
from ofa_deploy.optional import needing
from ofa_deploy.spaces.ops import Op

with needing("TFLite models need LiteRT", "pip install ai-edge-litert"):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Weight and bias."""
ALIGNMENT = 16
"""Bytes that the schema wants arrays aligned to; its Python code leaves that out."""
MOST_WEIGHTS = 25
"""A channel's weights, up to which XNNPACK has a depthwise kernel."""
SAME = schema.Padding.SAME
"""TensorFlow's padding that leaves the size, but for the stride."""
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

    A tensor may hold a multiple of what it stands for, which `times` says: what an activation would have to be divided
    by is left to the weights that come next, which costs nothing. Linear operators take care of it; whatever else needs
    the values themselves asks for `plain`.

    Args:
        shape: of the input.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [_Buffer()]
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.times: list[float] = []
        self.end = self.tensor(INPUT, shape)

    def tensor(self, name: str, shape: Sequence[int], value: npt.NDArray[Any] | None = None) -> int:
        """A new tensor; with a value it is a constant."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, list(map(int, shape))
        tensor.type = schema.TensorType.INT32 if value is not None and value.dtype == np.int32 else 0
        tensor.buffer = 0 if value is None else self.buffer(np.ascontiguousarray(value).tobytes())
        self.tensors.append(tensor)
        self.times.append(1.0)
        return len(self.tensors) - 1

    def buffer(self, content: bytes) -> int:
        """A new buffer; its index."""
        buffer = _Buffer()
        buffer.data = content
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def array(self, name: str, value: npt.NDArray[Any]) -> int:
        """A constant tensor."""
        return self.tensor(name, value.shape, value)

    def note(self, key: str, text: str) -> Any:
        """Metadata of the file."""
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = key, self.buffer(text.encode())
        return metadata

    def shape(self, tensor: int) -> list[int]:
        """The shape of a tensor."""
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
        self, kind: str, inputs: Sequence[int], shape: Sequence[int], options: Any = None, *, times: float = 1.0
    ) -> int:
        """A new operator at the end.

        Args:
            kind: name of the builtin operator.
            inputs: tensors.
            shape: of the output.
            options: of the operator, as the schema has them.
            times: the multiple of what it stands for that the output holds.

        Returns:
            the output.
        """
        code = getattr(schema.BuiltinOperator, kind)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(code, len(self.codes))
        operator.inputs = list(inputs)
        self.end = self.tensor(f"{kind.lower()}_{len(self.operators)}", shape)
        self.times[self.end] = times
        operator.outputs = [self.end]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(operator)
        return self.end

    def padded(self, x: int, op: Op, *, value: float = 0.0, rows: int | None = None) -> tuple[int, int]:
        """The input of a window and TensorFlow's padding for it, so that the window lies where PyTorch has it.

        Args:
            x: the input, not padded.
            op: the operator, whose kernel and stride the window has.
            value: to pad with.
            rows: that the window spans, around the middle of the operator's kernel; None takes all of the kernel.
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
            return self.add("PAD", [x, sizes], shape, schema.PadOptionsT(), times=self.times[x]), schema.Padding.VALID
        fill = self.array(f"fill_{len(self.operators)}", np.array(value, np.float32))
        x = self.plain(x)
        return self.add("PADV2", [x, sizes, fill], shape, schema.PadV2OptionsT()), schema.Padding.VALID

    def conv(self, x: int, name: str, arrays: Arrays, *, act: str, op: Op | None = None) -> int:
        """A convolution, dense or depthwise, with its activation.

        Args:
            x: the input.
            name: that those of its arrays begin with.
            arrays: weight, in PyTorch's layout, and bias.
            act: the activation.
            op: the operator whose window it has; None for 1x1.

        XNNPACK has depthwise kernels for up to 25 weights; a larger window falls back to a dense convolution for each
        channel, which takes ten times longer. So a window of 7x7 is written as the sum of three: its middle rows, and
        two pairs of rows around them, which are dilated.
        """
        weight, bias = arrays
        middle, height = weight.shape[2] // 2, self.shape(x)[1]
        if weight.shape[1] > 1 or weight.shape[2] * weight.shape[3] <= MOST_WEIGHTS:
            return self.act(self.window(x, name, arrays, act=act, op=op), act)
        last = min(middle, height - 1)  # rows further away than that see nothing but padding
        fused = act if act in FUSED else "none"
        near = weight[:, :, middle - 1 : middle + 2]
        y = self.window(x, f"{name}.0", (near, bias), act=fused if last < 2 else "none", op=op)
        for away in range(2, last + 1):
            pair = weight[:, :, [middle - away, middle + away]], np.zeros_like(bias)
            other = self.window(x, f"{name}.{away}", pair, act="none", op=op, apart=2 * away)
            y = self.sum(y, other, fused if away == last else "none")
        return self.act(y, act)

    def window(self, x: int, name: str, arrays: Arrays, *, act: str, op: Op | None, apart: int = 1) -> int:
        """A convolution with its activation, as far as that can be fused.

        Args:
            x: the input.
            name: that those of its arrays begin with.
            arrays: weight, in PyTorch's layout, and bias.
            act: the activation.
            op: the operator whose window it has; None for 1x1.
            apart: rows from one row of the window to the next.
        """
        weight, bias = arrays
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
        tensors = [self.array(f"{name}.weight", weight.transpose(order)), self.array(f"{name}.bias", bias)]
        shape = [n, -(-height // stride), -(-width // stride), weight.shape[0]]
        return self.add("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [x, *tensors], shape, options)

    def dense(self, x: int, name: str, arrays: Arrays, *, act: str) -> int:
        """A dense layer of weight (out, in) and bias with its activation; its output is flat."""
        weight, bias = arrays
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = FUSED.get(act, FUSED["none"])
        weight = weight / np.float32(self.times[x])
        tensors = [self.array(f"{name}.weight", weight), self.array(f"{name}.bias", bias)]
        shape = [self.shape(x)[0], len(weight)]
        return self.act(self.add("FULLY_CONNECTED", [x, *tensors], shape, options), act)

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
        """A product; `y` may be of one pixel."""
        times = self.times[x] * self.times[y]
        return self.add("MUL", [x, y], self.shape(x), schema.MulOptionsT(), times=times)

    def mean(self, x: int) -> int:
        """The mean over all pixels."""
        options = schema.ReducerOptionsT()
        options.keepDims = True
        n, _, _, channels = self.shape(x)
        axes = self.array(f"axes_{len(self.operators)}", np.array([1, 2], np.int32))
        return self.add("MEAN", [x, axes], [n, 1, 1, channels], options, times=self.times[x])

    def gate(self, x: int, name: str, arrays: Arrays) -> int:
        """The hard-sigmoid relu6(x + 3) / 6 of a 1x1 convolution: 3 is a part of the bias, 6 of what comes next."""
        weight, bias = arrays
        return self.multiple(self.conv(x, name, (weight, bias + np.float32(3)), act="relu6"), 6.0)

    def pool(self, kind: str, x: int, *, kernel: int, stride: int, padding: int, size: int) -> int:
        """A pooling operator, whose output has `size` pixels a side."""
        options = schema.Pool2DOptionsT()
        options.filterHeight = options.filterWidth = kernel
        options.strideH = options.strideW = stride
        options.padding = padding
        n, _, _, channels = self.shape(x)
        return self.add(kind, [x], [n, size, size, channels], options, times=self.times[x])

    def serialise(self, notes: Mapping[str, str]) -> bytes:
        """The file; its output is the last operator's, and `notes` are its metadata."""
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
        model.operatorCodes = [_operator_code(code) for code in self.codes]
        builder = flatbuffers.Builder(1024 + sum(len(b.data or b"") + 64 for b in self.buffers))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


APART: dict[str, Callable[[Graph, int], int]] = {"hswish": lambda graph, x: graph.hard_swish(x)}
"""Activations that are operators of their own."""


def _named(name: str, tensor: int) -> Any:
    """A tensor of a signature."""
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, tensor
    return named


def _operator_code(number: int) -> Any:
    """A kind of operator that the file uses."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    return code
