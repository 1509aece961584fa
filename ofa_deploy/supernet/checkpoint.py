"""Weight files: safetensors, which cannot run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.files.json_text import Json
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet.network import Subnet, Supernet

KIND = "supernet"
CHECKSUM = "sha256"
"""Name of a file's checksum in its metadata."""


def file_name(space: SearchSpace) -> str:
    """Name of a space's weight file inside `supernets/`."""
    return f"{space.name}.safetensors"


def save(path: Path, net: Supernet, details: Mapping[str, Any]) -> Json:
    """Save the weights of a supernet: contiguous float32 tensors under the official names.

    Args:
        path: `.safetensors` file to write; its description lies beside it.
        net: the supernet.
        details: how the weights came to be; JSON values.

    Returns:
        the description that was written.
    """
    state = {name: value.detach().contiguous() for name, value in net.state_dict().items()}
    return artifacts.save(path, safetensors.torch.save(state), kind=KIND, space=net.space.name, details=details)


def load_supernet(path: Path | str, space: SearchSpace | None = None) -> Supernet:
    """The supernet of a weight file, in evaluation mode.

    Args:
        path: the weight file; its description lies beside it.
        space: the space that it must be of; None takes the one that its description names.

    Raises:
        ArtifactError: the file is missing, damaged, of another space, or its tensors are not the space's.
    """
    path = Path(path)
    data, description = artifacts.load(path, KIND, space=space.name if space else None)
    net = Supernet(space or _space_named(description["space"], path))
    fill(net, tensors(data, path), path)
    return net.eval()


def _space_named(name: str, path: Path) -> SearchSpace:
    """The space that a weight file's description names."""
    try:
        return get_space(name)
    except OfaDeployError as error:
        raise ArtifactError(f"{path} is of a space that is not known here ({error}); name it as `space`") from error


def origin(path: Path) -> Json:
    """Name and checksum of a weight file, for the descriptions of artifacts that are made from it."""
    return {"file": path.name, "sha256": atomic.sha256(path)}


def provenance(path: Path) -> Json:
    """Name, checksum and licence of a supernet's file; the licence is `not stated` where the file does not say it."""
    stated = artifacts.describe(path, KIND).get("licence")
    return origin(path) | {"licence": "not stated" if stated is None else stated}


def subnet_content(net: Subnet, notes: Mapping[str, str]) -> bytes:
    """Content of a safetensors file of a subnetwork.

    Args:
        net: the subnetwork.
        notes: metadata; the architecture and the name of the space are added.
    """
    state = {name: value.detach().contiguous() for name, value in net.state_dict().items()}
    return content(state, {**notes, "arch": str(net.arch), "space": net.space.name})


def content(state: Mapping[str, Tensor], notes: Mapping[str, str]) -> bytes:
    """Content of a safetensors file.

    Args:
        state: tensors by their names, on any device.
        notes: metadata; a checksum of everything is added.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    return _ordered(safetensors.torch.save(plain, {**notes, CHECKSUM: _checksum(plain, notes)}))


def parse(data: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file that `content` made.

    Args:
        data: content of the file.
        path: the file, for messages.

    Raises:
        ArtifactError: it is no such file, or does not match its checksum; a file without a checksum passes.
    """
    state = tensors(data, path)
    notes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    checksum = notes.pop(CHECKSUM, None)
    if checksum not in (None, _checksum(state, notes)):
        raise ArtifactError(f"{path} is damaged: it does not match its own checksum")
    return state, notes


def _checksum(state: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(notes), sort_keys=True).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its metadata in order, so that the same content is the same file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_subnet(path: Path | str) -> Subnet:
    """The subnetwork of a safetensors file that `ofa-deploy export` wrote, in evaluation mode.

    Raises:
        ArtifactError: the file is missing, damaged, or no subnetwork's.
    """
    return subnet_of(atomic.read(Path(path)), Path(path))


def subnet_of(content: bytes, path: Path) -> Subnet:
    """The subnetwork of the content of a safetensors file, in evaluation mode.

    Args:
        content: content of the file.
        path: the file, for messages.

    Raises:
        ArtifactError: it is damaged, or no subnetwork's.
    """
    state, notes = parse(content, path)
    if not {"arch", "space"} <= notes.keys():
        raise ArtifactError(f"{path} is no subnetwork: its metadata lack arch and space")
    try:
        space = get_space(notes["space"])
        arch = space.check(Arch.parse(notes["arch"]))
    except OfaDeployError as error:
        raise ArtifactError(f"{path} is no subnetwork: {error}") from error
    net = Subnet(space, arch)
    expected = net.state_dict()
    if expected.keys() != state.keys() or any(
        expected[name].shape != value.shape or expected[name].dtype != value.dtype for name, value in state.items()
    ):
        raise ArtifactError(f"{path} does not fit its architecture {arch}")
    net.load_state_dict(state, assign=True)
    return net.eval()


def tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, by their names.

    Args:
        data: content of the file.
        path: the file, for messages.

    Raises:
        ArtifactError: it is no such file.
    """
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def fill(net: Supernet | Subnet, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict whole: every name and shape must be the network's, every value finite.

    Args:
        net: the network, which is changed in place.
        state: tensors by their names.
        path: the file that they come from, for messages.

    Raises:
        ArtifactError: listing what is missing, unexpected, of another shape, or not finite.
    """
    expected = net.state_dict()
    shared = expected.keys() & state.keys()
    faults = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [name for name in expected if name in shared and expected[name].shape != state[name].shape],
        "not finite": [name for name, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()],
    }
    for fault, names in faults.items():
        if names:
            rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ArtifactError(f"{path} does not fit {net.space.name}: {fault}: {', '.join(names[:5])}{rest}")
    net.load_state_dict(state)
