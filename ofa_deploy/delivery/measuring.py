"""What measures the networks that a search believes in: their latency beside the table, their held-out accuracy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_deploy.accuracy.intervals import share_interval95
from ofa_deploy.accuracy.measure import count_correct
from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.delivery.requests import Prepared
from ofa_deploy.device.devices import get_device
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.errors import ArtifactError, DataError
from ofa_deploy.files import artifacts
from ofa_deploy.files.journals import Journal
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.comparison import beside_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

logger = logging.getLogger(__name__)

Accuracies = Callable[[Sequence[Arch]], Sequence[tuple[float, float]]]
"""Measures networks: the top-1 accuracy of each in percent, and half the length of its 95 % interval in points."""


@dataclass(frozen=True)
class Bench:
    """What measures candidates.

    Attributes:
        table: of this machine, under whose conditions latencies are measured.
        accuracies: measures accuracies; None where predictions must do.
        journal: keeps measured latencies, or has them from a run that was killed.
    """

    table: LatencyTable
    accuracies: Accuracies | None
    journal: Journal

    def latencies(self, archs: Sequence[Arch]) -> tuple[dict[str, Any], float]:
        """Latencies of networks on this machine.

        Returns:
            for the text of each network its `latency_ms` and `spread_percent`, and by how many percent the machine is
            slower than when its table was measured.
        """
        timings, slower_percent = self.journal.step(
            ["latency", *map(str, archs)], lambda: _latencies(self.table, archs)
        )
        return timings, slower_percent


def _latencies(table: LatencyTable, archs: Sequence[Arch]) -> tuple[dict[str, Any], float]:
    """Latencies of networks, measured under the conditions of a table beside some of its own networks."""
    logger.info(f"measuring {len(archs)} candidate{'s' * (len(archs) > 1)} on this machine")
    threads, device = int(table.conditions["threads"]), get_device(table.conditions["device"])
    job = TableJob(table.space, table.resolutions, plan=MeasurePlan(threads=threads), batch=table.conditions["batch"])
    sessions = {str(arch): job.started(table.space.walk(arch), device) for arch in archs}
    return beside_table(sessions, table, threads=threads)


def accuracies_at_hand(
    prepared: Prepared, weights: Path | None, data: str | None, journal: Journal | None = None
) -> Accuracies | None:
    """What measures accuracies, where weights and images are at hand; None, with a warning, where they are not.

    Args:
        prepared: the search.
        weights: file of the supernet; None finds the space's own.
        data: name of the images; None finds the space's own.
        journal: keeps what is measured, or has it from a run that was killed.

    Raises:
        ArtifactError, DataError: weights or images that were named are not usable; the weights are not those that the
            predictor was fitted for.
    """
    space, predictor = prepared.space, prepared.predictor
    try:
        file = weights or artifacts.find_artifact("supernets", checkpoint.file_name(space), hint="")
        images = load_data(data, space)
    except (ArtifactError, DataError):
        if weights is not None or data is not None:
            raise
        logger.warning(f"accuracy is not measured, as weights or images of {space.name} are not at hand")
        return None
    sha256, steps = checkpoint.origin(file)["sha256"], journal or Journal()
    if predictor is not None and predictor.weights_sha256 not in (None, sha256):
        raise ArtifactError(f"the predictor was fitted on subnetworks of other weights than {file}; name its own")
    net = checkpoint.load_supernet(file, space)
    step = ["accuracy", sha256, images.sha256(RECALIBRATION)]

    def measure(archs: Sequence[Arch]) -> list[tuple[float, float]]:
        rows = steps.step([*step, *map(str, archs)], lambda: _accuracies(net, images, archs))
        return [(top1, half) for top1, half in rows]

    return measure


def _accuracies(net: Supernet, images: Dataset, archs: Sequence[Arch]) -> list[tuple[float, float]]:
    """Top-1 of networks on the held-out images in percent, with half of its 95 % interval (normal approximation)."""
    total = len(images.heldout)
    logger.info(f"measuring the accuracy of {len(archs)} candidates on {total} held-out images")
    correct: dict[Arch, int] = {}
    for size in sorted({arch.resolution for arch in archs}):
        same = [arch for arch in archs if arch.resolution == size]
        correct |= dict(zip(same, count_correct(net, same, data=images), strict=True))
    shares = [correct[arch] / total for arch in archs]
    return [(round(100 * s, 4), round(share_interval95(s, total), 3)) for s in shares]
