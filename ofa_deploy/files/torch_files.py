"""Files that `torch.save` wrote: only tensors are taken from them, and nothing in them is run."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ofa_deploy.errors import ArtifactError


def tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, on its own or under the key `state_dict`.

    Raises:
        ArtifactError: the file is missing, damaged, or holds anything but plain tensors of real numbers.
    """
    if not path.is_file():
        raise ArtifactError(f"cannot read {path}: there is no file {path}")
    try:
        if zipfile.is_zipfile(path):  # torch does not compare the checksums in it
            with zipfile.ZipFile(path) as archive:
                if (bad := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(bad)
        with warnings.catch_warnings():  # of a pickle of another protocol, which is refused below
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle fails in any way
        raise ArtifactError(
            f"{path} cannot be loaded without running code in it: it is damaged, or holds more than tensors, which "
            f"could run code ({type(error).__name__})"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise ArtifactError(f"{path} holds no state dict, which is to say no dictionary of real tensors")
    odd = [k for k, v in state.items() if not _plain(v)]
    if odd:
        raise ArtifactError(f"{path}: {odd[0]} is not a plain tensor of real numbers")
    return dict(state)


def _plain(value: Tensor) -> bool:
    """Whether a tensor is real numbers, each stored by itself: a view that repeats few is as large as it says."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
