"""Files of numpy arrays, `.npz`, from anywhere: plain arrays and nothing else, in no more memory than they need."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import DataError

_DEFLATE_RATIO = 1032
"""Of the sizes before and after packing, at most."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NO_NPZ = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""What zipfile and numpy raise of a damaged file."""


def read(data: bytes, path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of a file's content, by name; objects, which are pickled, are refused.

    Raises:
        DataError: it is no such file, or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as listed, np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for entry in listed.infolist():
                _check_size(listed, entry)
            return {key: array for key, array in archive.items() if isinstance(array, np.ndarray)}
    except _NO_NPZ as error:
        raise DataError(f"{path} is not an .npz of plain arrays: {error}") from error


def _check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an array that claims more memory than its file can hold.

    Raises:
        ValueError: it does.
    """
    if entry.file_size > _DEFLATE_RATIO * entry.compress_size + 1024 or entry.compress_type not in _METHODS:
        raise ValueError(f"{entry.filename} is packed in a way that numpy does not write")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(f"{entry.filename} is too short for its shape {shape}")
