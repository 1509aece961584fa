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

from ofa_deploy.graphs.onnx import model_of
from ofa_deploy.graphs.weights import INPUT, Weights
from ofa_deploy.spaces.ops import Op


def quantised(
    named_ops: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    images: npt.NDArray[np.float32],
    *,
    notes: Mapping[str, str] | None = None,
    batch: int = 1,
) -> bytes:
    """The ONNX file of operators in sequence, int8 inside, with float32 input and output.

    Activations are unsigned, which x86 processors multiply fastest; weights are signed with a scale a channel. Ranges
    cover every value that occurs with the images.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        images: normalised ones to calibrate with, (n, channels, height, width).
        notes: what becomes the file's metadata.
        batch: images a run; of the images to calibrate with, those that do not fill one are left out.
    """
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder) / "quantised.onnx"
        quantization.quantize_static(
            model_of(named_ops, weights, batch=batch),
            path,
            _Reader(images, batch),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        model = onnx.load(path)
    helper.set_model_props(model, dict(notes or {}))
    return bytes(model.SerializeToString())


class _Reader:
    """Gives images batch by batch, as onnxruntime's quantiser asks for them; those that do not fill one are left out.

    Args:
        images: (n, channels, height, width).
        batch: images a run.
    """

    def __init__(self, images: npt.NDArray[np.float32], batch: int) -> None:
        full = len(images) // batch
        self._runs = iter(images[: full * batch].reshape(full, batch, *images.shape[1:]))

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The next run; None after the last one."""
        run = next(self._runs, None)
        return None if run is None else {INPUT: run}


def emit(
    named_ops: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    *,
    batch: int = 1,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """What `quantised` writes, calibrated on noise: as fast, but not for use.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them; a single one makes a block.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        batch: images a run.
        notes: what becomes the file's metadata.
    """
    first = named_ops[0][1]
    noise = np.random.default_rng(0).standard_normal((batch, first.c_in, first.size, first.size))
    return quantised(named_ops, weights, noise.astype(np.float32), notes=notes, batch=batch)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the advice to fold batch norms and infer shapes, which the emitter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
