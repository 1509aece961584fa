"""Images: where they come from, and the split into training, held-out and test images.

Subnetworks are measured on the held-out images (at most 10,000 of the training images); test images are touched only
to report a delivered model.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import DataError
from ofa_deploy.files import artifacts, npz, outputs
from ofa_deploy.files.downloads import download as download_file
from ofa_deploy.spaces.space import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

HELD_OUT = 10_000
MOST_CLASSES = 100_000
_CHUNK = 1_000
RECALIBRATION = 2_000
RECALIBRATION_BATCH = 200

FASHION_MNIST_CLASSES = (
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
FASHION_MNIST_FILES = {  # SHA-256 of the uncompressed content
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MNIST_LICENCE = "MIT, (c) 2017 Zalando SE (Xiao, Rasul, Vollgraf, arXiv 1708.07747)"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Images:
    """Pixels, uint8 of shape (n, channels, height, width), and labels, int64 of shape (n,)."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice | npt.NDArray[np.int64]) -> Images:
        return Images(self.pixels[which], self.labels[which])


@dataclass(frozen=True)
class Dataset:
    """Images with their split and what normalises them.

    Attributes:
        name: what it is called in reports.
        train: training images in an order shuffled by a fixed seed, so that any prefix is a fair sample.
        heldout: images that subnetworks are measured on.
        test: images for the final report; None where there are none.
        classes: names of the classes.
        mean: of each channel of the training images, in 0..1.
        std: likewise.
        complete: False where `train` is only the sample that ships for recalibration.
        source: where it came from.
        licence: of the images.
    """

    name: str
    train: Images
    heldout: Images
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    complete: bool
    source: str
    licence: str

    def tensor(self, pixels: npt.NDArray[np.uint8] | Tensor, resolution: int) -> Tensor:
        """Network input from pixels: scaled to 0..1, resized (bilinear, antialiased), normalised.

        Returns:
            float32 of shape (n, channels, resolution, resolution), channels last in memory, on the pixels' device.
        """
        import torch
        from torch.nn import functional as F

        x = torch.as_tensor(pixels).float().div_(255)
        if x.shape[2:] != (resolution, resolution):
            x = F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v, device=x.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return ((x - mean) / std).contiguous(memory_format=torch.channels_last)

    def sha256(self, train_images: int | None = None) -> str:
        """Checksum of the first training images (all by default) and the held-out ones, with their labels."""
        digest = hashlib.sha256()
        for images in (self.train[:train_images], self.heldout):
            for start in range(0, len(images), _CHUNK):
                digest.update(images.pixels[start : start + _CHUNK].tobytes())
            digest.update(images.labels.tobytes())
        return digest.hexdigest()

    def recalibration(self, resolution: int, images: int = RECALIBRATION) -> list[Tensor]:
        """Batches of training images for batch-norm recalibration at a resolution."""
        pixels = self.train.pixels[:images]
        size = RECALIBRATION_BATCH
        return [self.tensor(pixels[i : i + size], resolution) for i in range(0, len(pixels), size)]


def load_data(data: str | None, space: SearchSpace, training: bool = False) -> Dataset:
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
    if data is None and space.name != "fmnist":
        hint = "name the images with --data (and pack them with: ofa-deploy pack-data)"
        dataset = _from_pack(artifacts.find_artifact("supernets", pack_name(space), hint))
    elif data in (None, "fmnist"):
        dataset = _fashion_mnist(training)
    elif not (path := Path(str(data))).exists():
        raise DataError(f"no images at {path}; name a folder of images by class, an .npz file, or fmnist")
    elif path.is_file():
        dataset = _from_npz(path)
    elif any((path / f"{name}{end}").is_file() for name in FASHION_MNIST_FILES for end in ("", ".gz")):
        dataset = _from_idx(path)
    else:
        dataset = _from_folders(path, space)
    channels, classes = dataset.train.pixels.shape[1], len(dataset.classes)
    if channels != space.in_channels or classes != space.classes:
        family = "fmnist" if channels == 1 else "mbv3-w1.0"
        raise DataError(
            f"{data or 'the packed images'}: {classes} classes in {_channels(channels)}, the space {space.name} wants "
            f"{space.classes} in {_channels(space.in_channels)}; choose another with --space, such as "
            f"{family}-{classes}classes"
        )
    if training and not dataset.complete:
        raise DataError(
            f"{data or 'the packed file'} holds only what measuring needs; all images are needed here: name them with "
            "--data"
        )
    return dataset


def split(
    name: str, train: Images, test: Images | None, classes: tuple[str, ...], source: str, licence: str
) -> Dataset:
    """Split training images by a fixed seed: a sixth, at most 10,000, are held out."""
    order = np.random.default_rng(0).permutation(len(train))
    held = min(HELD_OUT, len(train) // 6)
    kept, heldout = train[order[: len(order) - held]], train[order[len(order) - held :]]
    mean, std = _mean_and_std(kept.pixels)
    return Dataset(name, kept, heldout, test, classes, mean, std, True, source, licence)


def _mean_and_std(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel, in 0..1, from counts of the 256 values: no copy of the images."""
    counts = np.zeros((pixels.shape[1], 256))
    for start in range(0, len(pixels), _CHUNK):
        for count, channel in zip(counts, pixels[start : start + _CHUNK].swapaxes(0, 1), strict=True):
            count += np.bincount(channel.ravel(), minlength=256)
    values = np.arange(256)
    mean = counts @ values / counts.sum(1)
    var = (counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1)
    return (
        tuple(round(float(m) / 255, 6) for m in mean),
        tuple(max(round(float(v) ** 0.5 / 255, 6), 1e-6) for v in var),
    )


def _channels(number: int) -> str:
    return {1: "grey", 3: "colour"}.get(number, f"{number} channels")


def pack(dataset: Dataset, path: Path, space: str) -> artifacts.Json:
    """Save what measuring and exporting need: held-out and test images and 2,000 training images."""
    outputs.check_output(path, ".npz")
    test = dataset.test if dataset.test is not None else dataset.heldout[:0]
    parts = {"train": dataset.train[:RECALIBRATION], "heldout": dataset.heldout, "test": test}
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for key, images in parts.items():
        arrays |= {f"{key}_images": images.pixels, f"{key}_labels": images.labels.astype(np.uint16)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    details = {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "mean": dataset.mean,
        "std": dataset.std,
        "source": dataset.source,
        "licence": dataset.licence,
        "images": {key: len(images) for key, images in parts.items()},
        "split": "numpy default_rng(0).permutation of the training images; the last sixth (at most 10,000) held out",
    }
    return artifacts.save(path, buffer.getvalue(), "images", space, details)


def pack_name(space: SearchSpace) -> str:
    """Name of a space's packed images inside `supernets/`."""
    return f"{space.name}-images.npz"


def download(folder: Path) -> None:
    """Download the four Fashion-MNIST files into `folder`, checking each; cut off, it goes on where it was.

    Raises:
        DataError: there is no network, or a file is not the published one.
    """
    hint = "apt-get install dataset-fashion-mnist, or name a folder with --data"
    for name in FASHION_MNIST_FILES:
        file = folder / f"{name}.gz"
        if file.exists():
            try:
                _checked_idx(file.read_bytes(), name, file)
            except DataError as error:
                raise DataError(f"{error}; remove {file} first") from error
            continue
        download_file(f"{FASHION_MNIST_URL}{file.name}", file, hint)
        try:
            _checked_idx(file.read_bytes(), name, file)
        except DataError:
            file.unlink()
            raise


def _fashion_mnist(training: bool) -> Dataset:
    if not training:
        return _from_pack(artifacts.find_artifact("supernets", "fmnist-images.npz", "name the images with --data"))
    for folder in (Path("fashion-mnist"), DEBIAN_FOLDER):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return _from_idx(folder)
    raise DataError(
        "all of Fashion-MNIST is needed here: apt-get install dataset-fashion-mnist, or ofa-deploy download-data "
        "(into ./fashion-mnist), or name its folder with --data"
    )


def _from_pack(path: Path) -> Dataset:
    data, about = artifacts.load(path, "images")
    arrays = npz.read(data, path)
    names = ("train", "heldout", "test")
    if missing := [f"{n}_{what}" for n in names for what in ("images", "labels") if f"{n}_{what}" not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}; pack it anew with: ofa-deploy pack-data")
    parts = {key: _images(arrays[f"{key}_images"], arrays[f"{key}_labels"], path) for key in names}
    channels = parts["train"].pixels.shape[1]
    if missing := [key for key in ("dataset", "classes", "mean", "std", "source", "licence") if key not in about]:
        raise DataError(f"{path.with_suffix('.json')} lacks {', '.join(missing)}; pack it anew: ofa-deploy pack-data")
    for key in ("mean", "std"):
        values = about[key]
        if len(values) != channels or not all(isinstance(v, float | int) and np.isfinite(v) for v in values):
            raise DataError(f"{path.with_suffix('.json')}: {key} must be {channels} numbers; pack it anew")
    return Dataset(
        about["dataset"],
        parts["train"],
        parts["heldout"],
        parts["test"] if len(parts["test"]) else None,
        tuple(about["classes"]),
        tuple(about["mean"]),
        tuple(about["std"]),
        False,
        about["source"],
        about["licence"],
    )


def _from_npz(path: Path) -> Dataset:
    arrays = npz.read(artifacts.read(path), path)
    if "train_images" in arrays:
        return _from_pack(path)
    if not {"images", "labels"} <= arrays.keys():
        raise DataError(f"{path} needs the arrays images and labels; it has {', '.join(arrays) or 'none'}")
    train = _images(arrays["images"], arrays["labels"], path)
    test = None
    if {"test_images", "test_labels"} <= arrays.keys():
        test = _images(arrays["test_images"], arrays["test_labels"], path)
    if "classes" in arrays:
        return _own(path, train, test, tuple(map(str, np.atleast_1d(arrays["classes"]))))
    count = 1 + max((int(part.labels.max()) for part in (train, test) if part is not None and len(part)), default=0)
    if count > MOST_CLASSES:
        raise DataError(f"{path} has a label {count - 1}; labels are 0, 1, ... up to {MOST_CLASSES - 1}")
    return _own(path, train, test, tuple(map(str, range(count))))


def _images(pixels: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], path: Path) -> Images:
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[3] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = np.moveaxis(pixels, 3, 1)
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise DataError(f"{path}: images must be uint8 of 3 or 4 axes (n, [channels,] height, width)")
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be {len(pixels)} whole numbers, one an image")
    if len(labels) and labels.astype(np.int64).min() < 0:
        raise DataError(f"{path}: labels must not be negative")
    return Images(pixels.astype(np.uint8, copy=False), labels.astype(np.int64))


def _own(path: Path, train: Images, test: Images | None, classes: tuple[str, ...]) -> Dataset:
    if len(classes) < 2:
        raise DataError(f"{path} has {len(classes)} classes; at least two are needed")
    if len(train) < 60:
        raise DataError(f"{path} has {len(train)} training images; at least 60 are needed")
    for images in (train, test):
        if images is not None and len(images) and images.labels.max() >= len(classes):
            raise DataError(f"{path} has a label {images.labels.max()} but only {len(classes)} classes")
    test = test if test is not None and len(test) else None
    return split(path.stem, train, test, classes, "the user's own images", "the user's own")


_HIDDEN = re.compile(r"\.|__MACOSX$")
"""Folders that other programs leave, which are no classes."""


def _from_folders(path: Path, space: SearchSpace) -> Dataset:
    root = path / "train" if (path / "train").is_dir() else path
    classes = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not _HIDDEN.match(p.name)))
    if len(classes) < 2:
        raise DataError(f"{root} has {len(classes)} class folders; images must lie in a folder for each class")
    test_root = next((path / n for n in ("test", "val") if root != path and (path / n).is_dir()), None)
    train = _read_folder(root, classes, space)
    test = _read_folder(test_root, classes, space) if test_root is not None else None
    return _own(path, train, test, classes)


def _read_folder(root: Path, classes: tuple[str, ...], space: SearchSpace) -> Images:
    from PIL import Image, UnidentifiedImageError

    edge, mode = space.resolutions[-1], "L" if space.in_channels == 1 else "RGB"
    files: list[tuple[int, Path]] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"{root / name} has no images ({', '.join(SUFFIXES[:4])}, ...); remove it or fill it")
        files += [(label, file) for file in found]
    pixels = np.empty((len(files), space.in_channels, edge, edge), np.uint8)
    for out, (_, file) in zip(pixels, files, strict=True):
        try:
            with Image.open(file) as picture:
                image = picture.convert(mode)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"cannot read the image {file}: {error}; mend or remove it") from error
        scale = edge / min(image.size)
        size = (max(edge, round(image.width * scale)), max(edge, round(image.height * scale)))
        left, top = (size[0] - edge) // 2, (size[1] - edge) // 2
        image = image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + edge, top + edge))
        out[:] = np.asarray(image, np.uint8).reshape(edge, edge, -1).transpose(2, 0, 1)
    return Images(pixels, np.array([label for label, _ in files], np.int64))


def _from_idx(folder: Path) -> Dataset:
    parts = {}
    for name in FASHION_MNIST_FILES:
        path = next((p for end in (".gz", "") if (p := folder / f"{name}{end}").is_file()), None)
        if path is None:
            raise DataError(f"{folder} lacks {name}.gz; it needs {', '.join(FASHION_MNIST_FILES)}")
        parts[name] = _checked_idx(artifacts.read(path), name, path)
    pairs = [
        Images(parts[f"{p}-images-idx3-ubyte"][:, None], parts[f"{p}-labels-idx1-ubyte"].astype(np.int64))
        for p in ("train", "t10k")
    ]
    source = f"Fashion-MNIST, {FASHION_MNIST_URL} or Debian's dataset-fashion-mnist"
    return split("Fashion-MNIST", pairs[0], pairs[1], FASHION_MNIST_CLASSES, source, FASHION_MNIST_LICENCE)


def _checked_idx(content: bytes, name: str, path: Path) -> npt.NDArray[np.uint8]:
    try:
        data = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if hashlib.sha256(data).hexdigest() != FASHION_MNIST_FILES[name]:
        raise DataError(f"{path} is not the published {name}: its checksum differs; fetch it again")
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
