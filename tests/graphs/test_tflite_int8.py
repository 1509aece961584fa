"""The forms that int8 is made of compute the same in floating point, and ranges are what XNNPACK takes."""

import dataclasses

import numpy as np
import pytest
import torch

from ofa_deploy.device import tflite
from ofa_deploy.graphs import tflite as graphs
from ofa_deploy.graphs import tflite_int8, weights
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from tests.graphs.test_onnx import BLOCKS, reference
from tests.graphs.test_tflite import last

SEVENS = [dataclasses.replace(op, size=size) for op in BLOCKS if op.kernel == 7 for size in (2, 3, 4, 9)]


@pytest.mark.parametrize("op", [*BLOCKS, *SEVENS], ids=str)
def test_block_equals_torch(op: Op) -> None:
    rng = np.random.default_rng(3)
    drawn = weights.draw(op, rng)
    x = rng.standard_normal((2, op.c_in, op.size, op.size)).astype(np.float32)
    model = graphs.emit([("block", op)], {"block": drawn}, batch=2, forms=tflite_int8.Int8Graph)
    got = tflite.start(model, 1)(last(x))
    expected = last(reference(op, drawn, torch.from_numpy(x)).numpy())
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("size", [2, 3, 8])
def test_int8_block_is_near_torch(size: int) -> None:
    pytest.importorskip("ai_edge_quantizer", reason="pip install 'ofa-deploy[quant]'")
    op = Op("mbconv", size, 8, 8, 40, 7, 1, "hswish", 8, shortcut=True)
    rng = np.random.default_rng(0)
    drawn = weights.draw(op, rng)
    x = rng.standard_normal((64, 8, size, size)).astype(np.float32)
    session = tflite.start(tflite_int8.quantised([("block", op)], {"block": drawn}, last(x)), 1)
    expected = last(reference(op, drawn, torch.from_numpy(x)).numpy())
    got = np.concatenate([session(image[None]) for image in last(x)])
    assert np.abs(got - expected).mean() < 0.03 * expected.std()


@pytest.mark.parametrize("name", ["tiny", "proxyless-w1.3", "resnet50d"])
def test_networks_of_all_families_start(name: str, tiny: SearchSpace) -> None:
    """XNNPACK ends the process where it does not take a range."""
    pytest.importorskip("ai_edge_quantizer", reason="pip install 'ofa-deploy[quant]'")
    space = tiny if name == "tiny" else get_space(name)
    arch = space.extreme(largest=False)
    parts = space.walk(arch)
    rng = np.random.default_rng(0)
    drawn = {part: weights.draw(op, rng) for part, op in parts}
    x = rng.standard_normal((32, arch.resolution, arch.resolution, space.in_channels)).astype(np.float32)
    expected = tflite.start(graphs.emit(parts, drawn), 1)(x[:1])
    same = tflite.start(graphs.emit(parts, drawn, forms=tflite_int8.Int8Graph), 1)(x[:1])
    assert np.abs(same - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    got = tflite.start(tflite_int8.quantised(parts, drawn, x), 1)(x[:1])
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_summand_is_never_much_finer_than_its_sum() -> None:
    extremes = {
        name: (np.array([low], np.float32), np.array([high], np.float32))
        for name, low, high in (("tiny", 0, 1e-6), ("wide", -1, 1), ("sum", -1, 1))
    }
    found = tflite_int8._ranges(extremes, 1.0, [("tiny", "sum"), ("wide", "sum")])
    assert found["tiny"]["max"] - found["tiny"]["min"] == pytest.approx(2 * 2**-9)
    assert (found["wide"]["min"], found["wide"]["max"]) == (-1, 1)


def test_ranges_cover_a_share_of_the_images() -> None:
    extremes = {"x": (-np.arange(101, dtype=np.float32), np.arange(101, dtype=np.float32))}
    found = tflite_int8._ranges(extremes, 0.9, [])
    assert (found["x"]["min"], found["x"]["max"]) == (-90, 90)
