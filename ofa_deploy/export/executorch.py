"""ExecuTorch's programs (`.pte`), lowered to XNNPACK, for a batch of 1."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch

from ofa_deploy.device.timing import Run
from ofa_deploy.export.modules import run_of
from ofa_deploy.export.subject import Subject
from ofa_deploy.optional import needing

NEED = "models in this format need ExecuTorch", "pip install 'ofa-deploy[executorch]'"
"""Who needs the package, and how it is installed."""


def write(subject: Subject) -> bytes:
    """The file of a subnetwork.

    Raises:
        MeasureError: ExecuTorch is not installed.
    """
    net, size = subject.net, subject.net.arch.resolution
    with _quiet():
        with needing(*NEED):
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
        program = torch.export.export(net.eval(), (torch.zeros(1, net.space.in_channels, size, size),))
        partitioners = [XnnpackPartitioner()]
        lowered = to_edge_transform_and_lower(program, partitioner=partitioners, constant_methods=subject.notes)
        return bytes(lowered.to_executorch().buffer)


def start(content: bytes, threads: int) -> Run:
    """What runs a file's content; ExecuTorch chooses its threads itself.

    Raises:
        MeasureError: ExecuTorch is not installed.
    """
    with _quiet():
        with needing(*NEED):
            from executorch.runtime import Runtime
        method = Runtime.get().load_program(content).load_method("forward")
    return run_of(lambda x: method.execute([x])[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of what ExecuTorch itself uses, and that its Python interface is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
