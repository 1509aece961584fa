"""Progressive shrinking: the largest network first, then ever smaller subnetworks that it teaches.

The loss of a subnetwork is cross entropy with smoothed labels plus the soft-label cross entropy against the largest
network as it was at the end of the first phase (Cai et al., arXiv 1908.09791, section 3.3).
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.data.dataset import Dataset
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.json_text import Json
from ofa_deploy.progress import Progress, silent
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.batches import batches
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.processes import Processes, alone, gathered
from ofa_deploy.supernet.recalibration import recalibrate
from ofa_deploy.supernet.recipes import Recipe
from ofa_deploy.supernet.replicas import Replica

logger = logging.getLogger(__name__)


@dataclass
class _Run:
    """A run and where it is: what a checkpoint holds, and the fixed parts."""

    space: SearchSpace
    data: Dataset
    recipe: Recipe
    processes: Processes
    net: Supernet
    optimizer: torch.optim.SGD
    teacher: Supernet | None = None  # in training mode, as it is made: its norms use each batch's statistics
    epoch: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


def train_supernet(
    space: SearchSpace,
    data: Dataset,
    recipe: Recipe,
    out: Path | str,
    stop_after: int | None = None,
    processes: Processes | None = None,
    licence: str | None = None,
) -> Json:
    """Train a supernet and save it; a run that was killed goes on from its last finished epoch.

    Args:
        space: what to train.
        data: all training images.
        recipe: how.
        out: the weight file to write; beside it lie `<stem>_log.csv`, a row an epoch, and, while the run lasts,
            `<stem>.checkpoint`.
        stop_after: end after this many epochs in all, leaving the checkpoint (for runs in instalments).
        processes: who trains; by default this process alone.
        licence: of the weights, for their description and the cards of what is cut out of them.

    Returns:
        the description that was saved, or the progress so far where `stop_after` ended the run.

    Raises:
        OfaDeployError: the checkpoint beside `out` is of another run, a second run works on it, or it diverged.
        ArtifactError: there are weights already that were made otherwise.
    """
    out, processes = Path(out), processes or alone()
    if recipe.batch > len(data.train):
        raise OfaDeployError(f"a batch of {recipe.batch} is more than the {len(data.train)} training images")
    if recipe.batch % processes.number or recipe.batch < 2 * processes.number:
        raise OfaDeployError(f"a batch of {recipe.batch} cannot be shared by {processes.number} processes alike")
    outputs.check_output(out, ".safetensors")
    with contextlib.nullcontext() if processes.first else silent():
        return _begun(space, data, recipe, out, stop_after, processes, licence)


def _begun(
    space: SearchSpace,
    data: Dataset,
    recipe: Recipe,
    out: Path,
    stop_after: int | None,
    processes: Processes,
    licence: str | None,
) -> Json:
    """Train, unless what is asked for is there already; see `train`."""
    if _alike(int(out.exists() and not out.with_suffix(".checkpoint").exists()), processes):
        asked = {
            "space": space.name,
            "recipe": json.loads(json.dumps(asdict(recipe))),
            "dataset": data.name,
            "training_images": len(data.train),
            "images_sha256": data.sha256(),
            "licence": licence,
        }
        return outputs.made_already(out, checkpoint.KIND, asked)
    if not processes.first:
        return _train(space, data, recipe, out, stop_after, processes, licence)
    with atomic.locked(out):
        return _train(space, data, recipe, out, stop_after, processes, licence)


def _alike(state: int, processes: Processes) -> int:
    """What is on disk, by a number that must be the same for all processes.

    Raises:
        OfaDeployError: it is not.
    """
    states = gathered(state, processes)
    if len(set(states)) > 1:
        raise OfaDeployError(
            f"the processes would go on from different states ({', '.join(map(str, states))}): --out must lie in a "
            "folder that all of them see"
        )
    return state


def _train(
    space: SearchSpace,
    data: Dataset,
    recipe: Recipe,
    out: Path,
    stop_after: int | None,
    processes: Processes,
    licence: str | None,
) -> Json:
    saved, log = out.with_suffix(".checkpoint"), out.with_name(f"{out.stem}_log.csv")
    images = data.sha256()
    run = _start(space, data, recipe, processes)
    if saved.exists():
        _resume(run, images, saved)
    _alike(run.epoch, processes)
    steps = len(data.train) // recipe.batch
    progress = Progress((recipe.epochs - run.epoch) * steps * recipe.batch, "images", seconds=10)
    while run.epoch < recipe.epochs:
        if run.epoch == stop_after:
            return {"epochs": run.epoch, "of": recipe.epochs, "log": run.log}
        _epoch(run, progress)
        if processes.first:
            atomic.write(log, _csv(run.log))  # first, so that a whole checkpoint has a whole log
            _save(run, images, saved)
    details = {
        "recipe": asdict(recipe),
        "dataset": data.name,
        "source": data.source,
        "data_licence": data.licence,
        "training_images": len(data.train),
        "images_sha256": images,
        "seconds": round(run.seconds),
        "device": processes.device.type,
        "processes": processes.number,
        "threads": torch.get_num_threads(),
        "log": log.name,
        "last_epoch": run.log[-1],
        "note": "batch-norm statistics must be recalibrated for each subnetwork",
        "licence": licence,
    }
    if not processes.first:
        return details
    description = checkpoint.save(out, run.net, details)
    saved.unlink()
    return description


def _start(space: SearchSpace, data: Dataset, recipe: Recipe, processes: Processes) -> _Run:
    net = _on_device(Supernet(space).initialise(recipe.seed), processes)
    return _Run(space, data, recipe, processes, net, optimizer(net, recipe))


def _on_device(net: Supernet, processes: Processes) -> Supernet:
    return net.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with Nesterov's momentum; norms, biases and kernel matrices do not decay; each step sets the rate."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, p in net.named_parameters():
        groups[p.ndim > 1 and not name.endswith("matrix")].append(p)
    return torch.optim.SGD(
        [{"params": groups[True], "weight_decay": recipe.weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr=1.0,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
    )


def _begin_phase(run: _Run, index: int) -> None:
    """What happens between phases: the teacher is set aside, channels are sorted, the momentum starts anew."""
    phase, before = run.recipe.phases[index], run.recipe.phases[index - 1] if index else None
    if run.epoch == run.recipe.teacher_epochs and run.recipe.distill:
        run.teacher = _on_device(Supernet(run.space), run.processes)
        run.teacher.load_state_dict(run.net.state_dict())
    if phase.expands > 1 and (before is None or phase.expands > before.expands):
        run.net.sort_channels(before.part_of(run.space) if before else None)
    run.optimizer = optimizer(run.net, run.recipe)


def _epoch(run: _Run, progress: Progress) -> None:
    """One pass over the training images; everything random depends only on the seed and the epoch."""
    recipe, data = run.recipe, run.data
    index, within = recipe.at(run.epoch)
    phase = recipe.phases[index]
    if within == 0:
        _begin_phase(run, index)
    part = phase.part_of(run.space)
    rng = np.random.default_rng([recipe.seed, run.epoch])
    started = time.perf_counter()
    steps, losses = len(data.train) // recipe.batch, []
    run.net.train()
    for p in run.net.parameters():  # from now on zero where a step does not use it, never missing
        p.grad = torch.zeros_like(p)
    replica = Replica(run.net, run.processes)
    for step, (pixels, labels) in enumerate(
        batches(data, recipe.batch, recipe.erase, (recipe.seed, run.epoch, 0), run.processes)
    ):
        for group in run.optimizer.param_groups:
            group["lr"] = phase.lr * recipe.batch / 64 * phase.share(within + step / steps)
        losses.append(_step(run, replica, pixels, labels, _draw(part, phase.subnets, recipe.sandwich, rng)))
        if not math.isfinite(losses[-1]):
            raise _diverged(run.epoch)
        progress.add(
            recipe.batch, f"{phase.name}, epoch {run.epoch + 1} of {recipe.epochs}, loss {np.mean(losses[-50:]):.3f}"
        )
    if not all(bool(torch.isfinite(p).all()) for p in run.net.parameters()):
        raise _diverged(run.epoch)
    seconds = time.perf_counter() - started
    row = {
        "epoch": run.epoch + 1,
        "phase": phase.name,
        "loss": round(float(np.mean(losses)), 4),
        "largest_top1_percent": _quick_top1(run, part.extreme(True)),
        "smallest_top1_percent": _quick_top1(run, part.extreme(False)),
        "seconds": round(seconds, 1),
        "images_per_second": round(steps * recipe.batch / seconds, 1),
    }
    run.seconds += seconds
    run.epoch += 1
    run.log.append(row)
    logger.info(", ".join(f"{key} {value}" for key, value in row.items()))


def _step(run: _Run, replica: Replica, pixels: Tensor, labels: Tensor, archs: list[Arch]) -> float:
    """Sum the gradients of the step's subnetworks and move; returns their mean loss."""
    recipe, device = run.recipe, run.processes.device.type
    x = run.data.tensor(pixels, archs[0].resolution)
    run.optimizer.zero_grad(set_to_none=False)
    total = 0.0
    with torch.autocast(device, torch.bfloat16, enabled=_bf16(recipe, device)):
        soft = None
        if run.teacher is not None:
            largest = run.space.extreme(True, archs[0].resolution)
            with torch.no_grad():
                soft = F.softmax(run.teacher(x, largest).float(), dim=1)
        for i, arch in enumerate(archs):
            logits = replica.forward(x, arch, last=i == len(archs) - 1).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
            if soft is not None:
                loss = loss + recipe.distill * F.cross_entropy(logits, soft)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    run.optimizer.step()
    return total / len(archs)


def _bf16(recipe: Recipe, device: str) -> bool:
    if recipe.precision == "auto":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return recipe.precision == "bf16"


def _draw(part: SearchSpace, subnets: int, sandwich: bool, rng: np.random.Generator) -> list[Arch]:
    """Subnetworks of a step, all of one random resolution."""
    resolution = int(rng.choice(part.resolutions))
    drawn = part.archs(part.sample(rng, subnets, [resolution]))
    if sandwich:
        drawn += [part.extreme(largest, resolution) for largest in (False, True)]
    return drawn


def _quick_top1(run: _Run, arch: Arch, images: int = 1000, batch: int = 200) -> float | None:
    """Top-1 in percent on the first held-out images after a short recalibration: for the log of the first process."""
    if not run.processes.first:
        return None
    data, device = run.data, run.processes.device
    plain, right, some = run.net.subnet(arch), 0, run.data.heldout[:images]
    with torch.inference_mode():
        recalibrate(plain, (b.to(device) for b in data.recalibration(arch.resolution, min(images, len(data.train)))))
        for i in range(0, len(some), batch):
            part = some[i : i + batch]
            found = plain(data.tensor(part.pixels, arch.resolution).to(device)).argmax(1).cpu()
            right += int((found == torch.from_numpy(part.labels)).sum())
    return round(100 * right / len(some), 2)


# -- checkpoints


def _save(run: _Run, images: str, path: Path) -> None:
    tensors = {f"net.{k}": v for k, v in run.net.state_dict().items()}
    if run.teacher is not None:
        tensors |= {f"teacher.{k}": v for k, v in run.teacher.state_dict().items()}
    tensors |= {f"momentum.{name}": buffer for name, buffer in _momenta(run)}
    about = {
        "space": run.space.name,
        "recipe": asdict(run.recipe),
        "images_sha256": images,
        "epoch": run.epoch,
        "seconds": run.seconds,
        "log": run.log,
        "machines": _machines(run.processes),
    }
    atomic.write(path, checkpoint.content(tensors, {"ofa_deploy": json.dumps(about)}))


def _momenta(run: _Run) -> Iterator[tuple[str, Tensor]]:
    for name, p in run.net.named_parameters():
        if "momentum_buffer" in run.optimizer.state[p]:
            yield name, run.optimizer.state[p]["momentum_buffer"]


def _resume(run: _Run, images: str, path: Path) -> None:
    try:
        tensors, notes = checkpoint.parse(atomic.read(path), path)
        about = json.loads(notes["ofa_deploy"])
        found = (about["space"], Recipe.from_json(about["recipe"]), about["images_sha256"])
    except (ArtifactError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged; remove it to start anew") from error
    if found != (run.space.name, run.recipe, images):
        raise ArtifactError(
            f"{path} is of another run (space, recipe or images differ); repeat that run's options, remove the file, "
            "or choose another --out"
        )
    part = {
        p: {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)}
        for p in ("net.", "teacher.", "momentum.")
    }
    checkpoint.fill(run.net, part["net."], path)
    if part["teacher."]:
        run.teacher = _on_device(Supernet(run.space), run.processes)
        checkpoint.fill(run.teacher, part["teacher."], path)
    for name, p in run.net.named_parameters():
        if name in part["momentum."]:
            run.optimizer.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(part["momentum."][name])
    run.epoch, run.seconds, run.log = about["epoch"], about["seconds"], about["log"]
    logger.info(f"resuming after epoch {run.epoch}, {run.seconds / 60:.0f} minutes in")
    if about.get("machines", _machines(run.processes)) != _machines(run.processes):
        logger.info(f"on {_machines(run.processes)}, not {about['machines']} as before: the result will be another one")


def _machines(processes: Processes) -> str:
    return f"{processes.number} x {processes.device.type}"


def _diverged(epoch: int) -> OfaDeployError:
    return OfaDeployError(
        f"the training diverged in epoch {epoch + 1}; remove the checkpoint and start anew with --lr-factor 0.5"
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    return "".join(",".join(map(str, line)) + "\n" for line in (rows[0], *(row.values() for row in rows)))
