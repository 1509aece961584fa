"""Readers of a user's images: folders of images by class, and `.npz` files of arrays."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofa_deploy.data import packing
from ofa_deploy.data.dataset import Dataset, Images, images_from_arrays, split
from ofa_deploy.errors import DataError
from ofa_deploy.files import atomic, npz
from ofa_deploy.spaces.space import SearchSpace

MOST_CLASSES = 100_000
FEWEST_TRAINING_IMAGES = 60
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")
"""Endings of the files that are read as images."""
_HIDDEN = re.compile(r"\.|__MACOSX$")
"""Folders that other programs leave, which are no classes."""


def read_npz(path: Path) -> Dataset:
    """The dataset of an `.npz` file: one that `pack` wrote, or one with the arrays `images` and `labels`.

    The arrays `test_images` and `test_labels` are test images, `classes` names the classes.

    Raises:
        ArtifactError: the file cannot be read.
        DataError: an array is missing, or of another type or shape.
    """
    arrays = npz.read(atomic.read(path), path)
    if "train_images" in arrays:
        return packing.read_pack(path)
    if not {"images", "labels"} <= arrays.keys():
        raise DataError(f"{path} needs the arrays images and labels; it has {', '.join(arrays) or 'none'}")
    train, test = images_from_arrays(arrays["images"], arrays["labels"], path), None
    if {"test_images", "test_labels"} <= arrays.keys():
        test = images_from_arrays(arrays["test_images"], arrays["test_labels"], path)
    if "classes" in arrays:
        return _split_checked(path, train, test, tuple(map(str, np.atleast_1d(arrays["classes"]))))
    filled = [images for images in (train, test) if images is not None and len(images)]
    number = 1 + max((int(images.labels.max()) for images in filled), default=0)
    if number > MOST_CLASSES:
        raise DataError(f"{path} has a label {number - 1}; labels are 0, 1, ... up to {MOST_CLASSES - 1}")
    return _split_checked(path, train, test, tuple(map(str, range(number))))


def read_folders(path: Path, space: SearchSpace) -> Dataset:
    """The dataset of a folder with a folder of images for each class, or with such folders in `train` and `test`.

    Args:
        path: the folder; instead of `test` the folder may be called `val`.
        space: its channels and largest resolution are those of the pixels.

    Raises:
        DataError: there are fewer than two classes, a class without images, or an unreadable image.
    """
    root = path / "train" if (path / "train").is_dir() else path
    classes = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not _HIDDEN.match(p.name)))
    if len(classes) < 2:
        raise DataError(f"{root} has {len(classes)} class folders; images must lie in a folder for each class")
    test_root = next((path / n for n in ("test", "val") if root != path and (path / n).is_dir()), None)
    train = _read_classes(root, classes, space)
    test = _read_classes(test_root, classes, space) if test_root is not None else None
    return _split_checked(path, train, test, classes)


def _split_checked(path: Path, train: Images, test: Images | None, classes: tuple[str, ...]) -> Dataset:
    """Check that images are enough and labels are those of the classes, and split them."""
    if len(classes) < 2:
        raise DataError(f"{path} has {len(classes)} classes; at least two are needed")
    if len(train) < FEWEST_TRAINING_IMAGES:
        raise DataError(f"{path} has {len(train)} training images; at least {FEWEST_TRAINING_IMAGES} are needed")
    for images in (train, test):
        if images is not None and len(images) and images.labels.max() >= len(classes):
            raise DataError(f"{path} has a label {images.labels.max()} but only {len(classes)} classes")
    test = test if test is not None and len(test) else None
    source, licence = "the user's own images", "the user's own"
    return split(train, test, name=path.stem, classes=classes, source=source, licence=licence)


def _read_classes(root: Path, classes: tuple[str, ...], space: SearchSpace) -> Images:
    """All images of the class folders in `root`."""
    files: list[tuple[int, Path]] = []
    for label, name in enumerate(classes):
        paths = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise DataError(f"{root / name} has no images ({', '.join(SUFFIXES[:4])}, ...); remove it or fill it")
        files += [(label, path) for path in paths]
    edge = space.resolutions[-1]
    pixels = np.empty((len(files), space.in_channels, edge, edge), np.uint8)
    for image, (_, path) in zip(pixels, files, strict=True):
        image[:] = _read_image(path, edge, "L" if space.in_channels == 1 else "RGB")
    return Images(pixels, np.array([label for label, _ in files], np.int64))


def _read_image(path: Path, edge: int, mode: str) -> npt.NDArray[np.uint8]:
    """The central square of an image, resized to `edge` pixels a side: uint8 of shape (channels, edge, edge).

    Args:
        path: the image file.
        edge: in pixels.
        mode: Pillow's name of the channels: `L` for grey, `RGB` for colour.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            image = picture.convert(mode)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}; mend or remove it") from error
    scale = edge / min(image.size)
    width, height = max(edge, round(image.width * scale)), max(edge, round(image.height * scale))
    left, top = (width - edge) // 2, (height - edge) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + edge, top + edge))
    return np.asarray(image, np.uint8).reshape(edge, edge, -1).transpose(2, 0, 1)
