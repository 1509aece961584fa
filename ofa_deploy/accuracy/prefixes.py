"""Measuring many subnetworks at once: what they share is computed once.

Networks that begin with the same operators share all activations up to where they part, batch-norm statistics included,
because recalibration is a function of the beginning of a network alone. So a set of networks becomes a trie whose
nodes are operators: each node is recalibrated once and run once on the measured images. The counts are those of
measuring each network by itself with the same batches, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.ops import Op
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.recalibration import BatchStatistics, collect_statistics, norms, pieces_of


@dataclass
class Node:
    """An operator that one or more networks have after the same beginning.

    Attributes:
        name: of the operator's module.
        op: the operator.
        children: operators that follow in some of the networks, in the order of these.
        networks: indices of the networks that end here.
        layer: the module, while networks are classified.
        norms: statistics of its batch norms, while networks are classified.
    """

    name: str
    op: Op
    children: dict[tuple[str, Op], Node] = field(default_factory=dict)
    networks: list[int] = field(default_factory=list)
    layer: nn.Module | None = None
    norms: dict[nn.Module, BatchStatistics] = field(default_factory=dict)

    def nodes(self) -> Iterator[Node]:
        """This node and all that follow."""
        yield self
        for node in self.children.values():
            yield from node.nodes()


def trie(space: SearchSpace, archs: Sequence[Arch]) -> list[Node]:
    """First nodes of the tries of networks: a trie for each resolution."""
    roots: dict[tuple[str, Op], Node] = {}
    for index, arch in enumerate(archs):
        level, node = roots, None
        for name, op in space.walk(arch):
            node = level.setdefault((name, op), Node(name, op))
            level = node.children
        assert node is not None
        node.networks.append(index)
    return list(roots.values())


def macs(roots: Iterable[Node]) -> int:
    """Multiply-accumulates of all operators of some tries, for one image."""
    return sum(node.op.macs for root in roots for node in root.nodes())


def classified(
    net: Supernet, archs: Sequence[Arch], *, recalibration: Iterable[Tensor], images: Iterable[tuple[Tensor, Tensor]]
) -> npt.NDArray[np.bool_]:
    """Which images each of several networks classifies correctly, batch norms recalibrated.

    Args:
        net: the supernet.
        archs: its subnetworks, all of one resolution.
        recalibration: batches of images for recalibration, shape (n, channels, resolution, resolution) each.
        images: batches of the images that are classified, of that shape too, with their labels, shape (n,).

    Returns:
        shape (networks, images).
    """
    (root,) = trie(net.space, archs)
    hits: list[list[Tensor]] = [[] for _ in archs]
    with torch.inference_mode():
        for node in root.nodes():
            node.layer = net.layer(node.name, node.op).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            node.norms = {bn: BatchStatistics(bn) for bn in norms(node.layer)}
        for x in recalibration:
            _recalibrate(root, pieces_of(x))
        for node in root.nodes():
            for statistics in node.norms.values():
                statistics.freeze()
            assert node.layer is not None
            fold(node.layer)
        for x, labels in images:
            _classify(root, x, labels, hits)
        return torch.stack([torch.cat(batches) for batches in hits]).numpy()


def _recalibrate(node: Node, pieces: Sequence[Tensor]) -> None:
    """Run a batch through a node and what follows it, collecting statistics; ends where no norm follows."""
    if not any(descendant.norms for descendant in node.nodes()):
        return
    assert node.layer is not None
    outputs = collect_statistics(node.layer, pieces, node.norms)
    for child in node.children.values():
        _recalibrate(child, outputs)


def _classify(node: Node, x: Tensor, labels: Tensor, hits: list[list[Tensor]]) -> None:
    """Run a batch through a node and what follows it; where a network ends, add to `hits` what it has right."""
    assert node.layer is not None
    y = node.layer(x)
    if node.networks:
        correct = y.argmax(1) == labels
        for index in node.networks:
            hits[index].append(correct)
    for child in node.children.values():
        _classify(child, y, labels, hits)


def fold(layer: nn.Module) -> None:
    """Fold every batch norm of a plain layer into the convolution before it, in place."""
    for module in list(layer.modules()):
        children = dict(module.named_children())
        conv, bn = children.get("conv"), children.get("bn")
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            module.add_module("conv", fuse_conv_bn_eval(conv, bn))
            module.add_module("bn", nn.Identity())
