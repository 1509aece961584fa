"""The weight files of the official once-for-all project: their addresses, and their conversion to ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import outputs
from ofa_deploy.files.torch_files import tensors
from ofa_deploy.spaces.families import SPACES
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

_GITHUB = "https://raw.githubusercontent.com/han-cai/files/master/ofa/ofa_nets/"
FILES = {
    "mbv3-w1.0": f"{_GITHUB}ofa_mbv3_d234_e346_k357_w1.0",
    "mbv3-w1.2": f"{_GITHUB}ofa_mbv3_d234_e346_k357_w1.2",
    "proxyless-w1.3": f"{_GITHUB}ofa_proxyless_d234_e346_k357_w1.3",
    "resnet50d": "https://huggingface.co/han-cai/ofa/resolve/main/ofa_supernet_resnet50",
}
"""Public address of the official weights of each space."""


def file_of(space: str) -> str:
    """Address of a space's official weights.

    Raises:
        OfaDeployError: there are none.
    """
    if space not in FILES:
        raise OfaDeployError(f"there are no official weights for {space!r}; there are for {', '.join(FILES)}")
    return FILES[space]


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file that `torch.save` wrote, under today's names; nothing in the file is run.

    Files of the first releases say `mobile_inverted_conv` where later code says `conv`.

    Raises:
        ArtifactError: the file is missing, damaged, or holds anything but tensors.
    """
    state = tensors(path)
    renamed = {name.replace(".mobile_inverted_conv.", ".conv."): value for name, value in state.items()}
    if len(renamed) < len(state):
        raise ArtifactError(f"{path} has the same weights under the old and the new names")
    return renamed


def space_of(state: Mapping[str, Tensor], path: Path) -> SearchSpace:
    """The space whose names and shapes a state dict has, with as many classes as its classifier.

    Args:
        state: tensors by today's names.
        path: the file that they come from, for messages.

    Raises:
        ArtifactError: the names or shapes are those of no space.
    """
    biases = (value for name, value in state.items() if name.startswith("classifier.") and name.endswith(".bias"))
    bias = next(biases, None)
    for space in SPACES.values():
        if bias is not None and bias.ndim == 1 and len(bias) not in (0, space.classes):
            space = replace(space, name=f"{space.name}-{len(bias)}classes", classes=len(bias))
        with torch.device("meta"):
            expected = Supernet(space).state_dict()
        if expected.keys() == state.keys() and all(expected[name].shape == state[name].shape for name in expected):
            return space
    raise ArtifactError(
        f"{path} has the names and shapes of none of {', '.join(SPACES)}; name one with --space to see what differs"
    )


def output(space: SearchSpace, out: Path | None) -> Path:
    """Where the weights of a space go: `out`, or `supernets/SPACE.safetensors`.

    Raises:
        ArtifactError: there is such a file already, or it cannot be written.
    """
    target = out or Path("supernets") / checkpoint.file_name(space)
    if target.exists():
        raise ArtifactError(f"{target} is there already; remove it, or name another file with --out")
    outputs.check_output(target, ".safetensors")
    return target


def convert(
    path: Path,
    *,
    space: SearchSpace | None = None,
    out: Path | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> Path:
    """Convert an official weight file to ours.

    Args:
        path: the official file.
        space: the space that it is of; None finds out.
        out: file to write; None writes `supernets/SPACE.safetensors`.
        source: where it came from, for the description.
        licence: licence of the weights, for the description; None where it is not stated.

    Returns:
        the file written.

    Raises:
        ArtifactError: the file is missing, damaged or of no space; a tensor is missing, unexpected, of another shape
            or not finite; or there is an output already.
    """
    state = read(path)
    space = space or space_of(state, path)
    net = Supernet(space)
    checkpoint.fill(net, state, path)
    target = output(space, out)
    details: dict[str, Any] = {"imported_from": checkpoint.origin(path) | {"address": source}}
    details |= {"licence": licence} if licence else {}
    checkpoint.save(target, net, details)
    return target
