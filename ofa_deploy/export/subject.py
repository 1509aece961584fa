"""What is exported: a subnetwork, where it comes from, and the images that it is checked and calibrated with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.device.timing import Array
from ofa_deploy.errors import DataError
from ofa_deploy.files.json_text import Json
from ofa_deploy.graphs.weights import Weights
from ofa_deploy.supernet.folding import folded_weights
from ofa_deploy.supernet.network import Subnet

BATCH_PIXELS = 8 * 224 * 224
"""Pixels that the network takes at once where it is compared with files."""
CALIBRATION = 256
"""Training images that int8 is calibrated on, where there are so many."""
FEWEST = 32
"""Training images that int8 is calibrated on at least."""


@dataclass(frozen=True)
class Subject:
    """What is exported.

    Attributes:
        net: a subnetwork, recalibrated.
        data: the images that it was recalibrated on.
        recalibration: how many of the training images.
        origin: where the supernet's weights are from, see `supernet.checkpoint.provenance`.
        predicted: figures of the search that found the subnetwork.
        finetuned: how it was trained further; None where it was not.
    """

    net: Subnet
    data: Dataset
    recalibration: int = RECALIBRATION
    origin: Mapping[str, Any] = field(default_factory=dict)
    predicted: Mapping[str, Any] = field(default_factory=dict)
    finetuned: Json | None = None

    @cached_property
    def weights(self) -> dict[str, Weights]:
        """Arrays of each module, batch norms folded."""
        return folded_weights(self.net)

    @property
    def notes(self) -> dict[str, str]:
        """Metadata for inside a file."""
        data, net = self.data, self.net
        values = {
            "arch": net.arch,
            "space": net.space.name,
            "mean": data.mean,
            "std": data.std,
            "classes": data.classes,
        }
        return {key: str(value) for key, value in values.items()}

    def logits(self, number: int) -> Array:
        """What the network computes for the first held-out images, (number or fewer, classes).

        Computed once, a few images at a time: activations that leave the caches take three times as long.
        """
        size, images = self.net.arch.resolution, self.data.heldout[:number]
        batch = max(1, BATCH_PIXELS // size**2)
        batches = self._logits
        with torch.inference_mode():
            for start in range(sum(map(len, batches)), len(images), batch):
                batches.append(self.net.eval()(self.data.tensor(images.pixels[start : start + batch], size)).numpy())
        return np.concatenate(batches)[: len(images)]

    @cached_property
    def _logits(self) -> list[Array]:
        """Logits of the first held-out images, batch by batch."""
        return []

    def calibration(self) -> Array:
        """Normalised training images, (n, channels, height, width).

        Raises:
            DataError: they are too few.
        """
        pixels = self.data.train.pixels[:CALIBRATION]
        if len(pixels) < FEWEST:
            raise DataError(
                f"int8 is calibrated on training images, at least {FEWEST}; {self.data.name} has {len(pixels)}"
            )
        return np.ascontiguousarray(self.data.tensor(pixels, self.net.arch.resolution).numpy())
