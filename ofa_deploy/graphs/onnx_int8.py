"""ONNX graphs in int8, quantised after training by onnxruntime.quantization."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ofa_deploy.graphs.onnx import emit
from ofa_deploy.graphs.weights import INPUT, Weights
from ofa_deploy.ops import Op


def quantised(
    parts: Sequence[tuple[str, Op]], weights: Mapping[str, Weights], images: npt.NDArray[np.float32],
    notes: Mapping[str, str] | None = None,
) -> bytes:  # fmt: skip
    """The ONNX file of operators in sequence, int8 inside, with float32 input and output and a batch of 1.

    Activations are unsigned, which x86 processors multiply fastest; weights are signed with a scale a channel. Ranges
    cover every value that occurs with the images.

    Args:
        parts: as in `graphs.onnx.emit`.
        weights: likewise.
        images: normalised ones to calibrate with, (n, channels, height, width).
        notes: what becomes the file's metadata.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives the images one by one."""

        def __init__(self) -> None:
            self.left: Iterator[npt.NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: image[None]}

    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder) / "quantised.onnx"
        quantization.quantize_static(
            emit(parts, weights), path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        model = onnx.load(path)
    helper.set_model_props(model, dict(notes or {}))
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the advice to fold batch norms and infer shapes, which the emitter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
