"""The supernet, and the plain subnetworks that are cut out of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa_deploy.errors import ArchError
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet.elastic import Elastic, supernet_layer
from ofa_deploy.supernet.layers import plain_layer


class Supernet(nn.Module):
    """One network that contains every network of a space.

    Its state dict has the official once-for-all names and shapes.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        ops = dict(space.walk(space.extreme(largest=True)))
        for place in space.places:
            _attach(self, place.name, supernet_layer(place, ops[place.name], space.bn_eps))
        self._by_name = {place.name: self.get_submodule(place.name) for place in space.places}

    def initialise(self, seed: int) -> Supernet:
        """Draw initial weights: He's normal by fan-out for convolutions, PyTorch's default for the classifier."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 4 and not name.endswith("matrix"):
                nn.init.kaiming_normal_(parameter, mode="fan_out", generator=generator)
            elif parameter.ndim == 2 and not name.endswith("matrix"):
                nn.init.kaiming_uniform_(parameter, a=5**0.5, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        return self

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """Logits of the subnetwork `arch`.

        Args:
            x: images, shape (n, channels, arch.resolution, arch.resolution).
            arch: the subnetwork's architecture.

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
            kept: a part of the space whose networks must keep computing the same, because they are trained already;
                None keeps only the largest network.
        """
        largest = self.space.extreme(largest=True)
        places = {place.name: place for place in kept.places} if kept else {}
        for name, op in self.space.walk(largest):
            layer = self._by_name[name]
            if isinstance(layer, Elastic):
                ops = places[name].all_ops(largest.resolution) if kept else ()
                layer.sort_channels(op, ops)

    def subnet(self, arch: Arch) -> Subnet:
        """A plain, independent network that computes what `forward(x, arch)` computes."""
        net = Subnet(self.space, arch)
        state: dict[str, Tensor] = {}
        for name, op in self.space.walk(arch):
            state |= {f"{name}.{key}": value for key, value in self._extract(name, op).items()}
        _assign(net, state)
        return net.train(self.training)

    def layer(self, name: str, op: Op) -> nn.Module:
        """A plain, independent layer of subnetworks: the one at the place `name` that computes `op`."""
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
    """Do what `load_state_dict(state, assign=True)` does to a network on the meta device, in a tenth of the time.

    Args:
        net: the network.
        state: its tensors by their names; it is emptied.
    """
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
