"""The processes that train together: one, or those that `torchrun` started."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from ofa_deploy.errors import OfaDeployError


@dataclass(frozen=True)
class Processes:
    """Who trains: this process's rank, their number, and this process's device."""

    rank: int
    number: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and saves."""
        return self.rank == 0


def alone() -> Processes:
    """This process by itself, on the GPU where there is one."""
    return Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def gathered(value: int, processes: Processes) -> list[int]:
    """The value that each process has."""
    if processes.number == 1:
        return [value]
    mine = torch.tensor([value], device=processes.device)
    every = [torch.empty_like(mine) for _ in range(processes.number)]
    distributed.all_gather(every, mine)
    return [int(one) for one in every]


@contextmanager
def together() -> Iterator[Processes]:
    """The processes that `torchrun` started, connected while the context lasts; without torchrun this one alone.

    With GPUs each process has its own and they exchange gradients by NCCL, otherwise by Gloo.

    Raises:
        OfaDeployError: there are more processes than GPUs.
    """
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        yield alone()
        return
    if missing := [name for name in _TORCHRUN if name not in os.environ]:
        raise OfaDeployError(
            f"WORLD_SIZE is {number}, but {', '.join(missing)} not set: start with torchrun, or unset WORLD_SIZE"
        )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise OfaDeployError(f"there are {torch.cuda.device_count()} GPUs; start no more processes on a machine")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), number, device)
        distributed.barrier()  # nobody leaves while another still exchanges
    finally:
        gc.collect()  # what holds on to the connections goes before they do
        distributed.destroy_process_group()
