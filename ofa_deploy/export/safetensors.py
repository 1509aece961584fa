"""Weights alone (`.safetensors`), which `checkpoint.load_subnet` makes a PyTorch module of."""

from __future__ import annotations

from pathlib import Path

from ofa_deploy.device.timing import Run
from ofa_deploy.export.modules import run_of
from ofa_deploy.export.subject import Subject
from ofa_deploy.supernet import checkpoint


def write(subject: Subject) -> bytes:
    """The file of a subnetwork."""
    return checkpoint.subnet_content(subject.net, subject.notes)


def start(content: bytes, threads: int) -> Run:
    """What runs a file's content; PyTorch's number of threads is that of the process."""
    return run_of(checkpoint.subnet_of(content, Path("the exported file")))
