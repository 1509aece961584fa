"""Measured accuracies of architectures: what a predictor is fitted on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy import artifacts
from ofa_deploy.arch import Arch
from ofa_deploy.costs import Floats, Genes
from ofa_deploy.errors import ArchError, ArtifactError
from ofa_deploy.space import SearchSpace

KIND = "accuracy-samples"


@dataclass(frozen=True)
class Samples:
    """Architectures, genes of shape (n, columns), and their top-1 accuracies in percent, shape (n,).

    `sha256` is of the file that they were read from, `weights_sha256` of the supernet, where they are known.
    """

    space: SearchSpace
    genes: Genes
    top1_percent: Floats
    sha256: str = ""
    weights_sha256: str | None = None

    def __len__(self) -> int:
        return len(self.top1_percent)

    def save(self, path: Path, details: Mapping[str, Any]) -> artifacts.Json:
        """Write a CSV of `arch,top1_percent` and its JSON."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["arch", "top1_percent"])
        for arch, percent in zip(self.space.archs(self.genes), self.top1_percent.tolist(), strict=True):
            writer.writerow([arch, f"{percent:.4f}".rstrip("0").rstrip(".")])
        return artifacts.save(path, text.getvalue().encode(), KIND, self.space.name, details)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Samples:
        """Read what `save` wrote.

        Raises:
            ArtifactError: it is missing, damaged, of another space, or holds what is no accuracy.
        """
        data, about = artifacts.load(path, KIND, space.name)
        try:
            lines = list(csv.DictReader(io.StringIO(data.decode())))
            genes = space.genes(Arch.parse(line["arch"]) for line in lines)
            percent = np.array([float(line["top1_percent"]) for line in lines])
        except (KeyError, TypeError, ValueError, ArchError) as error:
            raise ArtifactError(f"{path} is not a list of measured accuracies: {error}") from error
        if not ((percent >= 0) & (percent <= 100)).all():
            raise ArtifactError(f"{path} holds accuracies outside 0 to 100 percent")
        return cls(space, genes, percent, about["sha256"], about.get("weights_sha256"))


def file_name(space: SearchSpace) -> str:
    """Name of a space's samples inside `predictors/`."""
    return f"{space.name}_samples.csv"
