"""Images by name or place: which reader reads them, and whether they fit a space."""

from __future__ import annotations

from pathlib import Path

from ofa_deploy.data import fashion_mnist, packing, readers
from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import DataError
from ofa_deploy.files import artifacts
from ofa_deploy.spaces.space import SearchSpace

FASHION_MNIST = "fmnist"
"""Name of Fashion-MNIST, and of the space that it is for."""


def load_data(data: str | None, space: SearchSpace, *, training: bool = False) -> Dataset:
    """Images by name or place.

    Args:
        data: a folder of images by class, an `.npz` with `images` and `labels` (and `test_images`, `test_labels`), a
            file that `pack` wrote, `fmnist` for Fashion-MNIST or a folder of its four files; None takes the images
            packed for the space, in the working folder or as shipped.
        space: which network they are for: its channels and largest resolution.
        training: whether all training images are needed, not only those that ship.

    Raises:
        DataError: the images are missing or do not fit the space.
    """
    if data == FASHION_MNIST or (data is None and space.name == FASHION_MNIST):
        dataset = _fashion_mnist(training=training)
    elif data is None:
        hint = "name the images with --data (and pack them with: ofa-deploy pack-data)"
        dataset = packing.read_pack(artifacts.find_artifact("supernets", packing.pack_name(space), hint=hint))
    else:
        dataset = _read(Path(data), space)
    _check_fit(dataset, space, data or "the packed images")
    if training and not dataset.complete:
        raise DataError(
            f"{data or 'the packed file'} holds only what measuring needs; all images are needed here: name them with "
            "--data"
        )
    return dataset


def _fashion_mnist(*, training: bool) -> Dataset:
    if training:
        return fashion_mnist.read_installed()
    name = f"{FASHION_MNIST}-images.npz"
    return packing.read_pack(artifacts.find_artifact("supernets", name, hint="name the images with --data"))


def _read(path: Path, space: SearchSpace) -> Dataset:
    """The dataset of a file or folder, by what it looks like."""
    if not path.exists():
        raise DataError(f"no images at {path}; name a folder of images by class, an .npz file, or fmnist")
    if path.is_file():
        return readers.read_npz(path)
    if fashion_mnist.has_files(path):
        return fashion_mnist.read_folder(path)
    return readers.read_folders(path, space)


def _check_fit(dataset: Dataset, space: SearchSpace, name: str) -> None:
    """Check that images have the channels and classes of a space; `name` is theirs in the message."""
    channels, classes = dataset.train.pixels.shape[1], len(dataset.classes)
    if channels != space.in_channels or classes != space.classes:
        family = "fmnist" if channels == 1 else "mbv3-w1.0"
        raise DataError(
            f"{name}: {classes} classes in {_colours(channels)}, the space {space.name} wants {space.classes} in "
            f"{_colours(space.in_channels)}; choose another with --space, such as {family}-{classes}classes"
        )


def _colours(channels: int) -> str:
    return {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
