"""Measured accuracies of architectures: what a predictor is fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import artifacts, atomic
from ofa_deploy.files.csv_text import csv_text
from ofa_deploy.files.json_text import Json
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

KIND = "accuracy-samples"


@dataclass(frozen=True)
class Samples:
    """Networks and their measured accuracies.

    Attributes:
        space: the search space.
        genes: of the networks, shape (n, columns).
        top1_percent: top-1 accuracies, shape (n,).
        sha256: of the file that they were read from; empty where there is none.
        weights_sha256: of the supernet whose subnetworks they are; None where that is not known.
        label_noise: what `groups.label_noise` measured of them; empty where it was not measured.
    """

    space: SearchSpace
    genes: Genes
    top1_percent: Floats
    sha256: str = ""
    weights_sha256: str | None = None
    label_noise: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "genes", np.asarray(self.genes))
        object.__setattr__(self, "top1_percent", np.asarray(self.top1_percent, np.float64))
        if self.top1_percent.shape != (len(self.genes),):
            raise ArtifactError(f"{len(self.genes)} architectures do not go with {self.top1_percent.size} accuracies")

    def __len__(self) -> int:
        return len(self.top1_percent)

    def to_frame(self) -> pd.DataFrame:
        """A row a network, with the columns `arch` (its text) and `top1_percent`."""
        import pandas as pd

        archs = list(map(str, self.space.archs(self.genes)))
        return pd.DataFrame({"arch": archs, "top1_percent": self.top1_percent})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, space: SearchSpace) -> Samples:
        """Samples of a frame with the columns `arch` and `top1_percent`; others are left out.

        Raises:
            ArtifactError: a column is missing, or holds what is no accuracy; the message names the row, from 0.
            ArchError: an architecture is not of the space.
        """
        if missing := {"arch", "top1_percent"} - set(frame.columns):
            raise ArtifactError(
                f"the frame has no column {' and no column '.join(sorted(missing))}; add what is missing"
            )
        percents = frame["top1_percent"].to_numpy(np.float64)
        for row in np.flatnonzero(~((percents >= 0) & (percents <= 100))).tolist():
            raise ArtifactError(f"row {row}: an accuracy is 0 to 100 percent, not {percents[row]}; correct that row")
        return cls(space, space.genes(list(map(str, frame["arch"]))), percents)

    def save(self, path: Path | str, details: Mapping[str, Any] | None = None) -> Json:
        """Write a CSV of `arch,top1_percent` and its JSON, with `details`."""
        percents = [f"{percent:.4f}".rstrip("0").rstrip(".") for percent in self.top1_percent.tolist()]
        text = csv_text(["arch", "top1_percent"], zip(self.space.archs(self.genes), percents, strict=True))
        return artifacts.save(Path(path), text.encode(), kind=KIND, space=self.space.name, details=details or {})

    @classmethod
    def load(cls, path: Path | str, space: SearchSpace | None = None) -> Samples:
        """Read what `save` wrote, or a CSV measured elsewhere that has no JSON beside it.

        Such a CSV has the column `top1_percent` and one of the forms of `arch_lists.read`.

        Args:
            path: of the CSV file.
            space: that the networks must be of; None takes the one that the JSON names.

        Raises:
            ArtifactError: it is missing, damaged, of another space, or holds what is no accuracy; it names the row.
        """
        path, description = Path(path), Json()
        if path.name and path.with_suffix(".json").exists():
            data, description = artifacts.load(path, KIND, space=space.name if space else None)
            space = space or get_space(description["space"])
        else:
            data = atomic.read(path)
            if space is None:
                raise ArtifactError(f"{path} has no JSON beside it that names its space; name the space")
        archs, rows = arch_lists.parse(data, path, space)
        percent = np.full(len(rows), np.nan)
        for number, row in enumerate(rows, 1):
            try:
                percent[number - 1] = float(row["top1_percent"])
            except (KeyError, TypeError, ValueError) as error:
                raise ArtifactError(f"{path}, row {number} has no number in the column top1_percent") from error
            if not 0 <= percent[number - 1] <= 100:
                raise ArtifactError(f"{path}, row {number}: an accuracy is 0 to 100 percent, not {row['top1_percent']}")
        return cls(
            space,
            space.genes(archs),
            percent,
            hashlib.sha256(data).hexdigest(),
            description.get("weights_sha256"),
            description.get("label_noise", {}),
        )


def file_name(space: SearchSpace) -> str:
    """Name of a space's samples inside `predictors/`."""
    return f"{space.name}_samples.csv"
