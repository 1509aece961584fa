"""Training of a supernet: the largest network first, then sampled subnetworks that are distilled from it.

The loss of a subnetwork is cross entropy with smoothed labels plus the soft-label cross entropy against the largest
network as it was after the first phase (Cai et al., arXiv 1908.09791, section 3; Hinton et al., arXiv 1503.02531).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy import artifacts
from ofa_deploy.accuracy.data import Dataset
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.progress import Progress, Report
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet, recalibrate


@dataclass(frozen=True)
class Recipe:
    """How a supernet is trained.

    Attributes:
        largest_epochs: passes over the training images with the largest network.
        subnet_epochs: passes with sampled subnetworks.
        batch: images a step.
        subnets: subnetworks a step in the second phase; their gradients are summed.
        lr: highest learning rate; linear warm-up over 5 % of a phase, then a cosine to zero.
        momentum: of SGD with Nesterov's correction.
        weight_decay: of convolutions and dense layers; norms, biases and kernel matrices have none.
        smoothing: label smoothing.
        distill: weight of the distillation term.
        seed: of everything random.
    """

    largest_epochs: int = 12
    subnet_epochs: int = 20
    batch: int = 128
    subnets: int = 2
    lr: float = 0.08
    momentum: float = 0.9
    weight_decay: float = 1e-4
    smoothing: float = 0.05
    distill: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.largest_epochs < 0 or self.subnet_epochs < 0 or self.largest_epochs + self.subnet_epochs < 1:
            raise OfaDeployError("training needs at least one epoch")
        if self.batch < 2 or self.subnets < 1 or not self.lr > 0:
            raise OfaDeployError("batch must be at least 2, subnets at least 1, and the learning rate positive")


@dataclass
class _State:
    """Where a run is: everything that a checkpoint holds."""

    net: Supernet
    optimizer: torch.optim.SGD
    teacher: Supernet | None
    epoch: int
    seconds: float
    log: list[dict[str, Any]]


def train(
    space: SearchSpace, data: Dataset, recipe: Recipe, out: Path, report: Report, stop_after: int | None = None
) -> artifacts.Json:
    """Train a supernet and save it; a run that was killed goes on from its last finished epoch.

    Args:
        space: what to train.
        data: all training images.
        recipe: how.
        out: the weight file to write; beside it lies `<stem>.checkpoint` while the run lasts.
        report: receives a line of progress now and then.
        stop_after: end after this many epochs in all, leaving the checkpoint (for runs in instalments).

    Returns:
        the description that was saved, or the progress so far where `stop_after` ended the run.

    Raises:
        OfaDeployError: the checkpoint beside `out` is of another run, or the loss is no longer finite.
    """
    saved = out.with_suffix(".checkpoint")
    if recipe.batch > len(data.train):
        raise OfaDeployError(f"a batch of {recipe.batch} is more than the {len(data.train)} training images")
    artifacts.check_output(out, ".safetensors")
    about = {"space": space.name, "recipe": asdict(recipe), "images_sha256": data.sha256()}
    state = _resume(space, recipe, about, saved, report) if saved.exists() else _start(space, recipe)
    epochs = recipe.largest_epochs + recipe.subnet_epochs
    images = (epochs - state.epoch) * (len(data.train) // recipe.batch) * recipe.batch
    progress = Progress(images, "images", report, seconds=10)
    while state.epoch < epochs:
        if state.epoch == stop_after:
            return {"epochs": state.epoch, "of": epochs, "log": state.log}
        if state.epoch == recipe.largest_epochs > 0:
            state.teacher = _blank(space)
            state.teacher.load_state_dict(state.net.state_dict())
        _epoch(state, data, recipe, progress, report)
        _save(state, about, saved)
    details = {
        "recipe": asdict(recipe), "dataset": data.name, "source": data.source, "data_licence": data.licence,
        "training_images": len(data.train), "seconds": round(state.seconds), "threads": torch.get_num_threads(),
        "log": state.log, "note": "batch-norm statistics must be recalibrated for each subnetwork",
    }  # fmt: skip
    description = checkpoint.save(out, state.net, details)
    saved.unlink()
    return description


def _start(space: SearchSpace, recipe: Recipe) -> _State:
    net = _blank(space).initialise(recipe.seed)
    return _State(net, _optimizer(net, recipe), None, 0, 0.0, [])


def _blank(space: SearchSpace) -> Supernet:
    net = Supernet(space)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _optimizer(net: Supernet, recipe: Recipe) -> torch.optim.SGD:
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, p in net.named_parameters():
        groups[p.ndim > 1 and not name.endswith("matrix")].append(p)
    return torch.optim.SGD(
        [{"params": groups[True], "weight_decay": recipe.weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0,
    )  # fmt: skip


def _epoch(state: _State, data: Dataset, recipe: Recipe, progress: Progress, report: Report) -> None:
    """One pass over the training images; everything random depends only on the seed and the epoch."""
    rng = np.random.default_rng([recipe.seed, state.epoch])
    elastic = state.epoch >= recipe.largest_epochs
    started = time.perf_counter()
    steps, losses = len(data.train) // recipe.batch, []
    state.net.train()
    for step, (pixels, labels) in enumerate(_batches(data, recipe.batch, rng)):
        for group in state.optimizer.param_groups:
            group["lr"] = recipe.lr * _schedule(state.epoch + step / steps, recipe)
        archs = _draw(state.net.space, recipe.subnets if elastic else 0, rng)
        losses.append(_step(state, data, recipe, pixels, labels, archs))
        if not math.isfinite(losses[-1]):
            raise OfaDeployError(f"the loss is no longer finite in epoch {state.epoch + 1}; lower --lr and start anew")
        progress.add(recipe.batch, f"epoch {state.epoch + 1}, loss {np.mean(losses[-50:]):.3f}")
    row = {
        "epoch": state.epoch + 1,
        "phase": "subnets" if elastic else "largest",
        "loss": round(float(np.mean(losses)), 4),
        "largest_top1_percent": _quick_top1(state.net, data, largest=True),
        "smallest_top1_percent": _quick_top1(state.net, data, largest=False),
    }
    state.seconds += time.perf_counter() - started
    state.epoch += 1
    state.log.append(row)
    report(", ".join(f"{key} {value}" for key, value in row.items()))


def _step(
    state: _State, data: Dataset, recipe: Recipe, pixels: npt.NDArray[np.uint8], labels: Tensor, archs: list[Arch]
) -> float:
    x = data.tensor(pixels, archs[0].resolution)
    soft = None
    if state.teacher is not None and recipe.distill:
        largest = Arch(archs[0].resolution, state.net.space.extreme(True).stages)
        with torch.no_grad():
            soft = F.softmax(state.teacher.train()(x, largest), dim=1)
    state.optimizer.zero_grad()
    total = 0.0
    for arch in archs:
        logits = state.net(x, arch)
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
        if soft is not None:
            loss = loss + recipe.distill * F.cross_entropy(logits, soft)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    state.optimizer.step()
    return total / len(archs)


def _draw(space: SearchSpace, subnets: int, rng: np.random.Generator) -> list[Arch]:
    """Architectures of a step, all of one random resolution: `subnets` random ones, or the largest for 0."""
    resolution = int(rng.choice(space.resolutions))
    if not subnets:
        return [Arch(resolution, space.extreme(True).stages)]
    return space.archs(space.sample(rng, subnets, [resolution]))


def _batches(data: Dataset, batch: int, rng: np.random.Generator) -> Iterator[tuple[npt.NDArray[np.uint8], Tensor]]:
    """Shuffled batches, each image shifted by up to 2 pixels a 28 and flipped half the time."""
    order = rng.permutation(len(data.train))
    size = data.train.pixels.shape[2:]
    reach = max(1, round(size[0] / 14))
    for i in range(0, len(order) - batch + 1, batch):
        images = data.train[order[i : i + batch]]
        padded = np.pad(images.pixels, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, (2, 3))
        shift = rng.integers(0, 2 * reach + 1, (2, batch))
        pixels = windows[np.arange(batch), :, shift[0], shift[1]]
        flip = rng.random(batch) < 0.5
        pixels[flip] = pixels[flip][..., ::-1]
        yield pixels, torch.from_numpy(images.labels)


def _schedule(epoch: float, recipe: Recipe) -> float:
    """Share of the highest learning rate: a warm-up and a cosine in each phase."""
    first = recipe.largest_epochs
    share = epoch / first if epoch < first else (epoch - first) / recipe.subnet_epochs
    return min(share / 0.05, 1.0) * 0.5 * (1 + math.cos(math.pi * share))


def _quick_top1(net: Supernet, data: Dataset, largest: bool, images: int = 1000) -> float:
    """Top-1 in percent on the first held-out images after a short recalibration: for the log only."""
    arch = net.space.extreme(largest)
    plain = net.subnet(arch)
    with torch.inference_mode():
        recalibrate(plain, data.recalibration(arch.resolution, min(images, len(data.train))))
        some = data.heldout[:images]
        right = plain(data.tensor(some.pixels, arch.resolution)).argmax(1) == torch.from_numpy(some.labels)
    return round(100 * float(right.float().mean()), 2)


def _save(state: _State, about: dict[str, Any], path: Path) -> None:
    tensors = {f"net.{k}": v for k, v in state.net.state_dict().items()}
    if state.teacher is not None:
        tensors |= {f"teacher.{k}": v for k, v in state.teacher.state_dict().items()}
    for name, p in state.net.named_parameters():
        if "momentum_buffer" in state.optimizer.state[p]:
            tensors[f"momentum.{name}"] = state.optimizer.state[p]["momentum_buffer"]
    about = about | {"epoch": state.epoch, "seconds": state.seconds, "log": state.log}
    with artifacts.writing(path) as temporary:
        contiguous = {k: v.detach().contiguous() for k, v in tensors.items()}
        safetensors.torch.save_file(contiguous, temporary, {"ofa_deploy": json.dumps(about)})


def _resume(space: SearchSpace, recipe: Recipe, run: dict[str, Any], path: Path, report: Report) -> _State:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["ofa_deploy"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is damaged; remove it to start anew") from error
    if any(about.get(key) != value for key, value in run.items()):
        raise ArtifactError(
            f"{path} is of another run (space, recipe or images differ); repeat that run's options, remove the file, "
            "or choose another --out"
        )
    part = {
        p: {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)}
        for p in ("net.", "teacher.", "momentum.")
    }
    state = _start(space, recipe)
    checkpoint.fill(state.net, part["net."], path)
    if part["teacher."]:
        state.teacher = _blank(space)
        checkpoint.fill(state.teacher, part["teacher."], path)
    for name, p in state.net.named_parameters():
        if name in part["momentum."]:
            buffer = torch.empty_like(p).copy_(part["momentum."][name])
            state.optimizer.state[p]["momentum_buffer"] = buffer
    state.epoch, state.seconds, state.log = about["epoch"], about["seconds"], about["log"]
    report(f"resuming after epoch {state.epoch}, {state.seconds / 60:.0f} minutes in")
    return state
