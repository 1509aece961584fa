"""Packed images: one `.npz` of what measuring and exporting need, with its description beside it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofa_deploy.data.dataset import RECALIBRATION, Dataset, images_from_arrays
from ofa_deploy.errors import DataError
from ofa_deploy.files import artifacts, npz, outputs
from ofa_deploy.files.json_text import Json
from ofa_deploy.spaces.space import SearchSpace

KIND = "images"
SPLITS = ("train", "heldout", "test")
"""Splits of a dataset in a packed file: its arrays are `SPLIT_images` and `SPLIT_labels`."""


def pack_name(space: SearchSpace) -> str:
    """Name of a space's packed images inside `supernets/`."""
    return f"{space.name}-images.npz"


def pack(dataset: Dataset, path: Path, space: str) -> Json:
    """Save what measuring and exporting need: held-out and test images and 2,000 training images.

    Args:
        dataset: the images.
        path: `.npz` file to write; its description lies beside it.
        space: name of the space whose images they become.

    Returns:
        the description that was written.

    Raises:
        ArtifactError: the file cannot be written.
    """
    outputs.check_output(path, ".npz")
    test = dataset.test if dataset.test is not None else dataset.heldout[:0]
    splits = dict(zip(SPLITS, (dataset.train[:RECALIBRATION], dataset.heldout, test), strict=True))
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for split, images in splits.items():
        arrays |= {f"{split}_images": images.pixels, f"{split}_labels": images.labels.astype(np.uint16)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    details = {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "mean": dataset.mean,
        "std": dataset.std,
        "source": dataset.source,
        "licence": dataset.licence,
        "images": {split: len(images) for split, images in splits.items()},
        "split": "numpy default_rng(0).permutation of the training images; the last sixth (at most 10,000) held out",
    }
    return artifacts.save(path, buffer.getvalue(), kind=KIND, space=space, details=details)


def read_pack(path: Path) -> Dataset:
    """The dataset of a file that `pack` wrote.

    Raises:
        ArtifactError: the file is missing, damaged or of another kind.
        DataError: an array or a figure is missing or has another shape.
    """
    content, description = artifacts.load(path, KIND)
    arrays = npz.read(content, path)
    names = [f"{split}_{array}" for split in SPLITS for array in ("images", "labels")]
    if missing := [name for name in names if name not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}; pack it anew with: ofa-deploy pack-data")
    train, heldout, test = (
        images_from_arrays(arrays[f"{split}_images"], arrays[f"{split}_labels"], path) for split in SPLITS
    )
    _check_description(description, path.with_suffix(".json"), train.pixels.shape[1])
    return Dataset(
        name=description["dataset"],
        train=train,
        heldout=heldout,
        test=test if len(test) else None,
        classes=tuple(description["classes"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        complete=False,
        source=description["source"],
        licence=description["licence"],
    )


def _check_description(description: Json, path: Path, channels: int) -> None:
    """Check that a description names what a dataset needs, with a mean and a deviation of each channel."""
    keys = ("dataset", "classes", "mean", "std", "source", "licence")
    if missing := [key for key in keys if key not in description]:
        raise DataError(f"{path} lacks {', '.join(missing)}; pack it anew: ofa-deploy pack-data")
    for key in ("mean", "std"):
        values = description[key]
        if len(values) != channels or not all(isinstance(v, float | int) and np.isfinite(v) for v in values):
            raise DataError(f"{path}: {key} must be {channels} numbers; pack it anew")
