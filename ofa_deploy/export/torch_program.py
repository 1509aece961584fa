"""PyTorch's exported programs (`.pt2`), for any batch."""

from __future__ import annotations

import io

import torch

from ofa_deploy.device.timing import Run
from ofa_deploy.export.modules import run_of
from ofa_deploy.export.subject import Subject


def write(subject: Subject) -> bytes:
    """The file of a subnetwork."""
    net, size = subject.net, subject.net.arch.resolution
    example = torch.zeros(2, net.space.in_channels, size, size)
    batch = torch.export.Dim("batch")
    program = torch.export.export(net.eval(), (example,), dynamic_shapes={"x": {0: batch}})
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=dict(subject.notes))
    return buffer.getvalue()


def start(content: bytes, threads: int) -> Run:
    """What runs a file's content; PyTorch's number of threads is that of the process."""
    return run_of(torch.export.load(io.BytesIO(content)).module())
