"""The elastic network, and the plain networks cut out of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ofa_deploy.errors import ArchError
from ofa_deploy.graphs.weights import Weights
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet.elastic import Elastic, supernet_layer
from ofa_deploy.supernet.layers import bottleneck_convs, plain_layer


class Supernet(nn.Module):
    """One network that contains every network of a space.

    Its state dict has the official once-for-all names and shapes.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        ops = dict(space.walk(space.extreme(True)))
        for place in space.places:
            _attach(self, place.name, supernet_layer(place, ops[place.name], space.bn_eps))
        self._by_name = {place.name: self.get_submodule(place.name) for place in space.places}

    def initialise(self, seed: int) -> Supernet:
        """Draw initial weights: He's normal by fan-out for convolutions, PyTorch's default for the classifier."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 4 and not name.endswith("matrix"):
                nn.init.kaiming_normal_(p, mode="fan_out", generator=generator)
            elif p.ndim == 2 and not name.endswith("matrix"):
                nn.init.kaiming_uniform_(p, a=5**0.5, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        return self

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """Logits of the subnetwork `arch`.

        Args:
            x: images, shape (n, channels, arch.resolution, arch.resolution).
            arch: which subnetwork.

        Returns:
            logits, shape (n, classes).

        Raises:
            ArchError: `arch` is not of the space, or the images have another size.
        """
        if tuple(x.shape[2:]) != (arch.resolution, arch.resolution):
            raise ArchError(f"images are {x.shape[2]} x {x.shape[3]}, the architecture wants {arch.resolution}")
        for name, op in self.space.walk(arch):
            layer = self._by_name[name]
            x = layer(x, op) if isinstance(layer, Elastic) else layer(x)
        return x

    def sort_channels(self, kept: SearchSpace | None = None) -> None:
        """Sort each block's middle channels by importance, in place; the largest network computes the same.

        Args:
            kept: a part of the space whose networks keep computing the same, because they are trained already.
        """
        largest = self.space.extreme(True)
        places = {place.name: place for place in kept.places} if kept else {}
        for name, op in self.space.walk(largest):
            layer = self._by_name[name]
            if isinstance(layer, Elastic):
                ops = places[name].all_ops(largest.resolution) if kept else ()
                layer.sort_channels(op, ops)

    def subnet(self, arch: Arch) -> Subnet:
        """A plain, independent module that computes what `forward(x, arch)` computes."""
        net = Subnet(self.space, arch)
        state: dict[str, Tensor] = {}
        for name, op in self.space.walk(arch):
            state |= {f"{name}.{key}": value for key, value in self._extract(name, op).items()}
        _assign(net, state)
        return net.train(self.training)

    def layer(self, name: str, op: Op) -> nn.Module:
        """A plain, independent layer: the part of a subnetwork that computes `op` at the place `name`."""
        layer = plain_layer(op, self.space.bn_eps, "meta")
        _assign(layer, self._extract(name, op))
        return layer.train(self.training)

    def _extract(self, name: str, op: Op) -> dict[str, Tensor]:
        layer = self._by_name[name]
        if isinstance(layer, Elastic):
            return layer.extract(op)
        return {key: value.clone() for key, value in layer.state_dict().items()}


def _attach(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Add a layer as `name` or, inside a container made on the way, as `container.name`."""
    container, _, last = name.rpartition(".")
    if not container:
        root.add_module(last, layer)
        return
    if not hasattr(root, container):
        root.add_module(container, nn.ModuleDict())
    root.get_submodule(container).add_module(last, layer)


def _assign(net: nn.Module, state: dict[str, Tensor]) -> None:
    """What `load_state_dict(state, assign=True)` does to a network on the meta device, in a tenth of the time."""
    for prefix, module in net.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, _ in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(state.pop(start + name)))
        for name, _ in list(module.named_buffers(recurse=False)):
            setattr(module, name, state.pop(start + name))
    assert not state, f"left over: {list(state)}"


class Subnet(nn.Module):
    """A plain network of one architecture, without weights until a state dict is loaded with `assign=True`."""

    def __init__(self, space: SearchSpace, arch: Arch) -> None:
        super().__init__()
        self.space, self.arch = space, arch
        for name, op in space.walk(arch):
            _attach(self, name, plain_layer(op, space.bn_eps, "meta"))
        self.in_order = tuple(self.get_submodule(name) for name, _ in space.walk(arch))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (n, classes), of images of shape (n, channels, resolution, resolution)."""
        for layer in self.in_order:
            x = layer(x)
        return x


def folded(net: Subnet) -> dict[str, Weights]:
    """Weights of a plain network with its batch norms folded, for the graph emitters.

    Returns:
        for each part of the walk, its arrays (see `graphs.weights.shapes`).
    """
    state = {name: value.detach().double() for name, value in net.state_dict().items()}
    out: dict[str, Weights] = {}
    for name, op in net.space.walk(net.arch):
        if op.kind == "conv":
            arrays = _fold(state, f"{name}.conv" if op.shortcut else name, "conv", net.space.bn_eps)
        elif op.kind == "mbconv":
            arrays = {}
            for part, module in _PARTS.items():
                if f"{name}.conv.{module}.conv.weight" in state:
                    arrays |= _fold(state, f"{name}.conv.{module}", part, net.space.bn_eps)
            for part in ("reduce", "expand") if op.se else ():
                for what in ("weight", "bias"):
                    arrays[f"se_{part}.{what}"] = state[f"{name}.conv.depth_conv.se.fc.{part}.{what}"]
        elif op.kind == "bottleneck":
            arrays = {}
            for part in bottleneck_convs(op):
                arrays |= _fold(state, f"{name}.{part}", part, net.space.bn_eps)
        elif op.kind == "linear":
            layer = f"{name}.linear" if op.bias else f"{name}.conv"
            arrays = {"linear.weight": state[f"{layer}.weight"].flatten(1)}
            if op.bias:
                arrays["linear.bias"] = state[f"{layer}.bias"]
        else:
            arrays = {}
        out[name] = {key: value.float().numpy() for key, value in arrays.items()}
    return out


_PARTS = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}


def _fold(state: Mapping[str, Tensor], module: str, part: str, eps: float) -> dict[str, Tensor]:
    scale = state[f"{module}.bn.weight"] / torch.sqrt(state[f"{module}.bn.running_var"] + eps)
    return {
        f"{part}.weight": state[f"{module}.conv.weight"] * scale.view(-1, 1, 1, 1),
        f"{part}.bias": state[f"{module}.bn.bias"] - state[f"{module}.bn.running_mean"] * scale,
    }
