"""The state of a run of training or fine-tuning: what a killed run goes on from, and its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import atomic
from ofa_deploy.files.csv_text import records_csv
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Subnet, Supernet
from ofa_deploy.supernet.processes import Processes, on_device

logger = logging.getLogger(__name__)


@dataclass
class RunState:
    """Where a run is.

    Attributes:
        net: the network that learns.
        optimizer: what moves its weights; its momenta are saved.
        teacher: the network that teaches, where it cannot be made anew from a file. It is in training mode, so that
            its norms use the statistics of each batch.
        epoch: finished epochs.
        seconds: what they took.
        log: a row for each finished epoch.
    """

    net: Supernet | Subnet
    optimizer: torch.optim.SGD
    teacher: Supernet | None = None
    epoch: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)

    def finish_epoch(self, row: Mapping[str, Any], seconds: float) -> None:
        """Count an epoch, and add its row to the log and to what the package logs.

        Args:
            row: figures of the epoch by their names.
            seconds: what its steps took.
        """
        self.epoch += 1
        self.seconds += seconds
        self.log.append(dict(row))
        logger.info(", ".join(f"{name} {value}" for name, value in row.items()))

    def log_csv(self) -> str:
        """The log as the text of a CSV file."""
        return records_csv(self.log)


def save_state(state: RunState, path: Path, *, identity: Mapping[str, Any], processes: Processes) -> None:
    """Save the state of a run, whole or not at all.

    Args:
        state: where the run is.
        path: file to write.
        identity: what makes it this run and no other (space, recipe, images, ...); JSON values.
        processes: who trains.

    Raises:
        ArtifactError: the file cannot be written.
    """
    tensors = {f"net.{name}": value for name, value in state.net.state_dict().items()}
    if state.teacher is not None:
        tensors |= {f"teacher.{name}": value for name, value in state.teacher.state_dict().items()}
    tensors |= {f"momentum.{name}": momentum for name, momentum in _momenta(state)}
    progress = {"epoch": state.epoch, "seconds": state.seconds, "log": state.log, "machines": processes.machines}
    atomic.write(path, checkpoint.content(tensors, {"ofa_deploy": json.dumps({**identity, **progress})}))


def resume(state: RunState, path: Path, *, identity: Mapping[str, Any], processes: Processes) -> None:
    """Bring a run, in place, to where `save_state` left it.

    Args:
        state: a run that has just begun.
        path: file that `save_state` wrote.
        identity: what makes it this run and no other; it must be what was saved.
        processes: who trains.

    Raises:
        ArtifactError: the file is damaged, or of another run.
    """
    tensors, progress = _read(path, identity)
    checkpoint.fill(state.net, _part(tensors, "net."), path)
    if teacher := _part(tensors, "teacher."):
        state.teacher = on_device(Supernet(state.net.space), processes)
        checkpoint.fill(state.teacher, teacher, path)
    momenta = _part(tensors, "momentum.")
    for name, parameter in state.net.named_parameters():
        if name in momenta:
            momentum = torch.empty_like(parameter).copy_(momenta[name])
            state.optimizer.state[parameter]["momentum_buffer"] = momentum
    state.epoch, state.seconds, state.log = progress["epoch"], progress["seconds"], progress["log"]
    logger.info(f"resuming after epoch {state.epoch}, {state.seconds / 60:.0f} minutes in")
    machines = progress.get("machines", processes.machines)
    if machines != processes.machines:
        logger.info(f"on {processes.machines}, not {machines} as before: the result will be another one")


def _read(path: Path, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and progress of a state file, which must be of the run with this identity."""
    try:
        tensors, notes = checkpoint.parse(atomic.read(path), path)
        progress = json.loads(notes["ofa_deploy"])
        saved = {key: progress.pop(key) for key in identity}
        if not {"epoch", "seconds", "log"} <= progress.keys():
            raise ValueError("it does not say how far it is")
    except (ArtifactError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged; remove it to start anew") from error
    expected = json.loads(json.dumps(dict(identity)))
    if differing := [key.replace("_", " ") for key in identity if saved[key] != expected[key]]:
        raise ArtifactError(
            f"{path} is of another run (another {', '.join(differing)}); repeat that run's options, remove the file, "
            "or choose another --out"
        )
    return tensors, progress


def _momenta(state: RunState) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in state.net.named_parameters():
        momentum = state.optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            yield name, momentum


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
