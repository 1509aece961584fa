"""Batch norms folded into the convolutions before them: the weights that graph emitters take.

A batch norm computes (x - mean) / sqrt(var + eps) * weight + bias of each channel, so that its scale goes into the
convolution's weights and the rest into a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ofa_deploy.graphs.weights import Weights
from ofa_deploy.spaces.ops import Op
from ofa_deploy.supernet.layers import bottleneck_convs
from ofa_deploy.supernet.network import Subnet

State = Mapping[str, Tensor]
"""State dict of a plain layer."""

_MBCONV = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}
"""Official names of the convolutions of an inverted residual block, by the names of their arrays."""


def folded_weights(net: Subnet) -> dict[str, Weights]:
    """Weights of a plain network with its batch norms folded, computed in float64.

    Returns:
        for each place of the network the arrays, float32, that `graphs.weights.shapes` lists for its operator.
    """
    state = {name: value.detach().double() for name, value in net.state_dict().items()}
    weights: dict[str, Weights] = {}
    for place, op in net.space.walk(net.arch):
        prefix = f"{place}."
        layer = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        arrays = _FOLDED[op.kind](op, layer, net.space.bn_eps) if op.kind in _FOLDED else {}
        weights[place] = {name: value.float().numpy() for name, value in arrays.items()}
    return weights


def _fold(state: State, module: str, name: str, eps: float) -> dict[str, Tensor]:
    """Weight and bias of a convolution and its batch norm, the modules `conv` and `bn` of a module."""
    prefix = f"{module}." if module else ""
    scale = state[f"{prefix}bn.weight"] / torch.sqrt(state[f"{prefix}bn.running_var"] + eps)
    return {
        f"{name}.weight": state[f"{prefix}conv.weight"] * scale.view(-1, 1, 1, 1),
        f"{name}.bias": state[f"{prefix}bn.bias"] - state[f"{prefix}bn.running_mean"] * scale,
    }


def _conv(op: Op, state: State, eps: float) -> dict[str, Tensor]:
    return _fold(state, "conv" if op.shortcut else "", "conv", eps)


def _mbconv(op: Op, state: State, eps: float) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    for name, module in _MBCONV.items():
        if f"conv.{module}.conv.weight" in state:  # the expansion is missing where a block does not widen
            arrays |= _fold(state, f"conv.{module}", name, eps)
    for name in ("reduce", "expand") if op.se else ():
        for array in ("weight", "bias"):
            arrays[f"se_{name}.{array}"] = state[f"conv.depth_conv.se.fc.{name}.{array}"]
    return arrays


def _bottleneck(op: Op, state: State, eps: float) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    for name in bottleneck_convs(op):
        arrays |= _fold(state, name, name, eps)
    return arrays


def _linear(op: Op, state: State, eps: float) -> dict[str, Tensor]:
    module = "linear" if op.bias else "conv"
    arrays = {"linear.weight": state[f"{module}.weight"].flatten(1)}
    return arrays | ({"linear.bias": state[f"{module}.bias"]} if op.bias else {})


_FOLDED: dict[str, Callable[[Op, State, float], dict[str, Tensor]]] = {
    "conv": _conv,
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "linear": _linear,
}
"""What each kind of operator with weights gives: operator, state dict of its layer, eps of its batch norms."""
