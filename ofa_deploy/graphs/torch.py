"""Networks for PyTorch's eager mode: the nodes of the ONNX graph as JSON, and its arrays, in one `.npz` file.

Such a file is data: `device.torch` runs it, and nothing in it is code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import helper, numpy_helper

from ofa_deploy.device.torch import NODES
from ofa_deploy.graphs import onnx
from ofa_deploy.graphs.weights import INPUT, OUTPUT, Weights
from ofa_deploy.spaces.ops import Op


def emit(
    named_ops: Sequence[tuple[str, Op]],
    weights: Mapping[str, Weights],
    *,
    batch: int = 1,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """The `.npz` file of operators in sequence.

    Args:
        named_ops: name and operator of each module, as `SearchSpace.walk` gives them; a single one makes a block.
        weights: the arrays of each module by its name (see `graphs.weights.shapes`).
        batch: images a run.
        notes: more to be kept in the file.

    Raises:
        MeasureError: an operator has an activation that `graphs.onnx` does not write.
    """
    graph = onnx.model_of(named_ops, weights, batch=batch).graph
    nodes = [
        {
            "kind": node.op_type,
            "inputs": list(node.input),
            "output": node.output[0],
            "attributes": {a.name: helper.get_attribute_value(a) for a in node.attribute},
        }
        for node in graph.node
    ]
    description = {"input": INPUT, "output": OUTPUT, "nodes": nodes, "notes": dict(notes or {})}
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays, **{NODES: np.frombuffer(json.dumps(description).encode(), np.uint8)})
    return file.getvalue()
