"""Weight files: safetensors, which cannot run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ofa_deploy import artifacts
from ofa_deploy.errors import ArtifactError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet.network import Supernet

KIND = "supernet"


def file_name(space: SearchSpace) -> str:
    """Name of a space's weight file inside `supernets/`."""
    return f"{space.name}.safetensors"


def save(path: Path, net: Supernet, details: Mapping[str, Any]) -> artifacts.Json:
    """Save the weights of a supernet (contiguous float32 tensors under the official names) with their provenance."""
    state = {name: value.detach().contiguous() for name, value in net.state_dict().items()}
    return artifacts.save(path, safetensors.torch.save(state), KIND, net.space.name, details)


def load(path: Path, space: SearchSpace) -> Supernet:
    """The supernet of a weight file, in evaluation mode.

    Raises:
        ArtifactError: the file is missing, damaged, of another space, or its tensors are not the space's.
    """
    data, _ = artifacts.load(path, KIND, space.name)
    net = Supernet(space)
    fill(net, tensors(data, path), path)
    return net.eval()


def origin(path: Path) -> artifacts.Json:
    """Name and checksum of a weight file, for what is made from it."""
    return {"file": path.name, "sha256": artifacts.sha256(path)}


def tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file's content.

    Raises:
        ArtifactError: it is no such file.
    """
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def fill(net: Supernet, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict whole: every name and shape must be the network's, every value finite.

    Raises:
        ArtifactError: listing what is missing, unexpected, of another shape, or not finite.
    """
    own = net.state_dict()
    wrong = {
        "missing": [n for n in own if n not in state],
        "unexpected": [n for n in state if n not in own],
        "of another shape": [n for n in own if n in state and own[n].shape != state[n].shape],
        "not finite": [n for n, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()],
    }
    for what, names in wrong.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ArtifactError(f"{path} does not fit {net.space.name}: {what}: {', '.join(names[:5])}{more}")
    net.load_state_dict(state)
