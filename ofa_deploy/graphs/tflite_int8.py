"""TFLite graphs in int8, quantised after training by ai-edge-quantizer, in forms that XNNPACK runs fast.

XNNPACK leaves an int8 hard-swish to slower code, at the price of copies, but takes x relu6(x + 3) as a sum and a
product; the sixth of it that a hard-swish is comes with the weights that are next.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.device.tflite import start
from ofa_deploy.graphs import tflite
from ofa_deploy.graphs.tflite_graph import Graph
from ofa_deploy.graphs.weights import Weights
from ofa_deploy.optional import needing
from ofa_deploy.spaces.ops import Op

CALIBRATION_BATCH = 8
"""Images a run while ranges are collected."""
FINEST = 2.0**-9
"""The least share of the range of a sum that a summand's may be: with less than 2**-10 XNNPACK ends the process."""
COVERED = (1.0, 0.97, 0.9)
"""Shares of the calibration images whose extremes ranges cover, each tried: `quantised` takes the best."""
Extremes = Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Of each tensor by name: its smallest and its largest value, an image each."""


class Int8Graph(Graph):
    """A graph whose operators XNNPACK also takes, and has fast code for, in int8."""

    def padded(self, x: int, op: Op, *, value: float = 0.0, rows: int | None = None) -> tuple[int, int]:
        """The input of a window, padded with zeros: a maximum is taken of what a ReLU left, which is not below them."""
        return super().padded(x, op, value=0.0, rows=rows)

    def hard_swish(self, x: int) -> int:
        """x relu6(x + 3) / 6 as a sum and a product, six times as large as it stands for."""
        three = self.array(f"three_{len(self.operators)}", np.array([3.0], np.float32))
        return self.product(x, self.multiple(self.sum(x, three, "relu6"), 6.0))


def quantised(
    named_ops: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    images: npt.NDArray[np.float32],
    *,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """The TFLite file of operators in sequence, int8 inside, with float32 input and output and a batch of 1.

    Weights have a scale a channel. A range that covers every value of every image can be wide, one that cuts off rare
    values cuts off what they mean: the model is made with several, and the one kept has the logits that are nearest
    to those of the float model, in the mean of their squared differences over the images.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        images: normalised ones to calibrate with, (n, height, width, channels).
        notes: more to be written into the file's metadata.

    Raises:
        MeasureError: ai-edge-quantizer is not installed.
    """
    observed = tflite.emit(named_ops, weights, batch=CALIBRATION_BATCH, forms=Int8Graph)
    extremes = _extremes(observed, images, CALIBRATION_BATCH)
    model = tflite.emit(named_ops, weights, notes=notes, forms=Int8Graph)
    expected = _outputs(model, images)
    sums = _sums(model)
    candidates = [_quantise(model, _ranges(extremes, share, sums)) for share in COVERED]
    return min(candidates, key=lambda candidate: float(np.square(_outputs(candidate, images) - expected).mean()))


def emit(
    named_ops: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    *,
    batch: int = 1,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """What `quantised` writes, for any batch, calibrated on noise: as fast, but not for use.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them; a single one makes a block.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        batch: images a run.
        notes: more to be written into the file's metadata.

    Raises:
        MeasureError: ai-edge-quantizer is not installed.
    """
    model = tflite.emit(named_ops, weights, batch=batch, notes=notes, forms=Int8Graph)
    first = named_ops[0][1]
    noise = np.random.default_rng(0).standard_normal((batch, first.size, first.size, first.c_in))
    extremes = _extremes(model, noise.astype(np.float32), batch)
    return _quantise(model, _ranges(extremes, 1.0, _sums(model)))


def _outputs(model: bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = start(model, 1)
    return np.concatenate([session(image[None]) for image in images])


def _extremes(model: bytes, images: npt.NDArray[np.float32], batch: int) -> Extremes:
    """The extremes of each tensor, by a model that takes `batch` images; the last that do not fill one are left out."""
    interpreter = _observed(model)
    source = interpreter.get_input_details()[0]["index"]
    tensors = [tensor for tensor in interpreter.get_tensor_details() if tensor["dtype"] == np.float32]
    lows: dict[str, list[Any]] = {tensor["name"]: [] for tensor in tensors}
    highs: dict[str, list[Any]] = {tensor["name"]: [] for tensor in tensors}
    for begin in range(0, len(images) - batch + 1, batch):
        interpreter.set_tensor(source, images[begin : begin + batch])
        interpreter.invoke()
        for tensor in tensors:
            value = interpreter.get_tensor(tensor["index"])
            value = value.reshape(batch if value.shape[:1] == (batch,) else 1, -1)
            lows[tensor["name"]].append(value.min(1))
            highs[tensor["name"]].append(value.max(1))
    return {name: (np.concatenate(lows[name]), np.concatenate(highs[name])) for name in lows}


def _observed(model: bytes) -> Any:
    """An interpreter that keeps every tensor, so that it can be looked at."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=model, num_threads=1, experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    return interpreter


def _sums(model: bytes) -> list[tuple[str, str]]:
    """Names of each summand and its sum."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    inside = graph.subgraphs[0]
    added = [code.builtinCode == schema.BuiltinOperator.ADD for code in graph.operatorCodes]
    names = [tensor.name.decode() for tensor in inside.tensors]
    return [(names[x], names[op.outputs[0]]) for op in inside.operators if added[op.opcodeIndex] for x in op.inputs]


def _ranges(extremes: Extremes, share: float, sums: Sequence[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """The range of each tensor that covers the smallest values of a share of the images, and the largest."""
    ranges = {name: (np.quantile(low, 1 - share), np.quantile(high, share)) for name, (low, high) in extremes.items()}
    for summand, total in sums:
        low, high = ranges[summand]
        least = FINEST * (ranges[total][1] - ranges[total][0])
        ranges[summand] = (low, max(high, low + least))
    return {
        name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for name, (low, high) in ranges.items()
    }


def _quantise(model: bytes, ranges: Mapping[str, Any]) -> bytes:
    """A model in int8, by the range of each tensor.

    Raises:
        MeasureError: ai-edge-quantizer is not installed.
    """
    with needing("int8 TFLite models need ai-edge-quantizer", "pip install 'ofa-deploy[quant]'"):
        from ai_edge_quantizer import quantizer, recipe
    quantiser = quantizer.Quantizer(model, recipe.static_wi8_ai8())
    for ends in ("INPUT", "OUTPUT"):  # they stay float32
        quantiser.update_quantization_recipe(".*", ends, algorithm_key="no_quantize")
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # its progress bars and memory use
        warnings.simplefilter("ignore", UserWarning)
        return bytes(quantiser.quantize(ranges, enable_progress_report=False).quantized_model)
