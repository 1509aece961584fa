"""The supernet as it is trained by one process: by itself, or with gradients averaged over all processes."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.processes import Processes


class Replica:
    """This process's copy of the supernet, whose gradients are those of all processes together.

    Args:
        net: the supernet.
        processes: who trains.
    """

    def __init__(self, net: Supernet, processes: Processes) -> None:
        self.net: nn.Module = net
        self.parallel: DistributedDataParallel | None = None
        if processes.number > 1:
            self.parallel = DistributedDataParallel(_AllParameters(net), forward_sync_buffers=False)

    def forward(self, x: Tensor, arch: Arch, *, last: bool) -> Tensor:
        """Logits of a subnetwork.

        Args:
            x: network inputs, shape (n, channels, arch.resolution, arch.resolution).
            arch: the subnetwork.
            last: whether it is the last subnetwork of a step, in whose backward pass gradients are exchanged.

        Returns:
            shape (n, classes).
        """
        if self.parallel is None:
            return self.net(x, arch)  # type: ignore[no-any-return]
        with nullcontext() if last else self.parallel.no_sync():
            return self.parallel(x, arch)  # type: ignore[no-any-return]


class _AllParameters(nn.Module):
    """A supernet whose every parameter takes part in the gradient.

    DistributedDataParallel exchanges only what the last backward pass of a step touched; parameters that other
    subnetworks of the step used would drift apart. So all of them are added with a factor of zero.
    """

    def __init__(self, net: Supernet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        nothing = torch.stack([p.sum() for p in self.net.parameters()]).sum() * 0
        return self.net(x, arch) + nothing  # type: ignore[no-any-return]
