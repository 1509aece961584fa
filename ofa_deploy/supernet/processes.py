"""The processes that train together: this one alone, or those that `torchrun` started."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

from ofa_deploy.errors import OfaDeployError

TORCHRUN_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that `torchrun` sets besides WORLD_SIZE, the number of processes."""

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Processes:
    """Who trains.

    Attributes:
        rank: number of this process, from 0.
        number: how many processes there are.
        device: what this process computes on.
    """

    rank: int
    number: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that logs and saves."""
        return self.rank == 0

    @property
    def machines(self) -> str:
        """How many devices of which type train, such as `2 x cuda`."""
        return f"{self.number} x {self.device.type}"


def alone() -> Processes:
    """This process by itself, on the GPU where there is one."""
    return Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def on_device(net: Net, processes: Processes) -> Net:
    """A network, moved to this process's device with its weights channels last in memory."""
    return net.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def gathered(value: int, processes: Processes) -> list[int]:
    """The value of each process, in the order of their ranks."""
    if processes.number == 1:
        return [value]
    mine = torch.tensor([value], device=processes.device)
    values = [torch.empty_like(mine) for _ in range(processes.number)]
    distributed.all_gather(values, mine)
    return [int(value) for value in values]


@contextmanager
def together() -> Iterator[Processes]:
    """The processes that `torchrun` started, connected while the context lasts; without torchrun this one alone.

    With GPUs each process has one of its own and they exchange gradients by NCCL, otherwise by Gloo.

    Raises:
        OfaDeployError: a variable of torchrun's is missing, or there are more processes than GPUs.
    """
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        yield alone()
        return
    if missing := [name for name in TORCHRUN_VARIABLES if name not in os.environ]:
        raise OfaDeployError(
            f"WORLD_SIZE is {number}, but {', '.join(missing)} not set: start with torchrun, or unset WORLD_SIZE"
        )
    device = _device_of_rank()
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), number, device)
        distributed.barrier()  # nobody leaves while another still exchanges
    finally:
        gc.collect()  # what holds on to the connections goes before they do
        distributed.destroy_process_group()


def _device_of_rank() -> torch.device:
    """The GPU of this process, made the current one; the processor where there are no GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = int(os.environ["LOCAL_RANK"])
    if rank >= torch.cuda.device_count():
        raise OfaDeployError(f"there are {torch.cuda.device_count()} GPUs; start no more processes on a machine")
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    return device
