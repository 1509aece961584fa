"""Fashion-MNIST: the names and checksums of its four files, where they are, and how they are read."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofa_deploy.data.dataset import Dataset, Images, split
from ofa_deploy.errors import DataError
from ofa_deploy.files import atomic
from ofa_deploy.files.downloads import download as download_file

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the uncompressed content of each file, by its name."""
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
LICENCE = "MIT, (c) 2017 Zalando SE (Xiao, Rasul, Vollgraf, arXiv 1708.07747)"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""
DOWNLOAD_FOLDER = Path("fashion-mnist")
"""Where `ofa-deploy download-data` puts the files."""


def download(folder: Path, url: str = URL) -> None:
    """Download the four files into a folder and check each; a download that was cut off goes on where it was.

    Args:
        folder: where the files go, compressed.
        url: address of their folder, ending in a slash.

    Raises:
        DataError: there is no network, or a file is not the published one.
    """
    hint = "apt-get install dataset-fashion-mnist, or name a folder with --data"
    for name in FILES:
        file = folder / f"{name}.gz"
        if file.exists():
            try:
                _read_idx(file.read_bytes(), name, file)
            except DataError as error:
                raise DataError(f"{error}; remove {file} first") from error
            continue
        download_file(f"{url}{file.name}", file, hint=hint)
        try:
            _read_idx(file.read_bytes(), name, file)
        except DataError:
            file.unlink()
            raise


def has_files(folder: Path) -> bool:
    """Whether any of the four files, compressed or not, lies in a folder."""
    return any((folder / f"{name}{end}").is_file() for name in FILES for end in ("", ".gz"))


def read_installed() -> Dataset:
    """All of Fashion-MNIST, from where `download-data` or Debian's package put it.

    Raises:
        DataError: it is in neither place, or damaged.
    """
    for folder in (DOWNLOAD_FOLDER, DEBIAN_FOLDER):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return read_folder(folder)
    raise DataError(
        "all of Fashion-MNIST is needed here: apt-get install dataset-fashion-mnist, or ofa-deploy download-data "
        "(into ./fashion-mnist), or name its folder with --data"
    )


def read_folder(folder: Path) -> Dataset:
    """All of Fashion-MNIST from a folder of its four files, compressed or not.

    Raises:
        DataError: a file is missing, or is not the published one.
    """
    arrays = {}
    for name in FILES:
        path = next((p for end in (".gz", "") if (p := folder / f"{name}{end}").is_file()), None)
        if path is None:
            raise DataError(f"{folder} lacks {name}.gz; it needs {', '.join(FILES)}")
        arrays[name] = _read_idx(atomic.read(path), name, path)
    train, test = (
        Images(arrays[f"{split}-images-idx3-ubyte"][:, None], arrays[f"{split}-labels-idx1-ubyte"].astype(np.int64))
        for split in ("train", "t10k")
    )
    source = f"Fashion-MNIST, {URL} or Debian's dataset-fashion-mnist"
    return split(train, test, name="Fashion-MNIST", classes=CLASSES, source=source, licence=LICENCE)


def _read_idx(content: bytes, name: str, path: Path) -> npt.NDArray[np.uint8]:
    """Array of an idx file: two zero bytes, the type, the number of axes, their lengths (big-endian), the values."""
    try:
        data = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if hashlib.sha256(data).hexdigest() != FILES[name]:
        raise DataError(f"{path} is not the published {name}: its checksum differs; fetch it again")
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
