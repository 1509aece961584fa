"""PyTorch's modules as functions of arrays."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ofa_deploy.device.timing import Array, Run


def run_of(module: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    """A module as a function of an array."""

    def run(x: Array) -> Array:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return run
