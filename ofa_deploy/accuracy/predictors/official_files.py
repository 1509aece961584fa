"""Reading the once-for-all project's own accuracy predictors."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ofa_deploy.accuracy.predictors.model import Array
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.errors import ArtifactError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.files.torch_files import tensors
from ofa_deploy.spaces.official import codec_of
from ofa_deploy.spaces.space import SearchSpace


def read(file: Path, space: SearchSpace) -> dict[str, Array]:
    """Arrays of the model `official` from a file of the once-for-all project.

    Two forms are known: that of the tutorial (keys `0.weight`, `0.bias`, ..., resolution last) and that of its `nas`
    package (keys `layers.0.0.weight`, ..., `base_acc`, resolution first, no last bias); their outputs are fractions.

    Raises:
        ArtifactError: the file is no such predictor, or not of this space; nothing in it is run.
    """
    stored = tensors(file)
    if not all(value.is_floating_point() for value in stored.values()):
        raise ArtifactError(f"{file} is no official accuracy predictor: it holds no dictionary of real tensors")
    state = {key: value.detach().float().numpy() for key, value in stored.items()}
    nas = "base_acc" in state
    layers = _layers(file, state)
    arrays: dict[str, Array] = {}
    for i, (weight, bias) in enumerate(layers):
        arrays |= {f"weight{i}": weight.T[None], f"bias{i}": bias[None, None]}
    width = arrays["weight0"].shape[1]
    resolutions = _resolutions(file, space, width)
    if nas:
        arrays["weight0"] = np.roll(arrays["weight0"], -len(resolutions), axis=1)
    if len(layers[-1][0]) != 1:
        raise ArtifactError(f"{file} is no official accuracy predictor: it has more than one output")
    return {key: np.ascontiguousarray(value, np.float32) for key, value in arrays.items()} | {
        "resolutions": np.array(resolutions),
        "shift": np.zeros(width),
        "scale": np.ones(width),
        "target": np.array([0.0, 100.0]),
        "noise": np.full(1, np.nan),
    }


def _layers(file: Path, state: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    """Weight, shape (outputs, inputs), and bias, shape (outputs,), of each layer.

    Raises:
        ArtifactError: an entry is unknown or missing, is not finite, or has another shape than its neighbours need.
    """
    pattern = r"layers\.(\d+)(?:\.0)?\.(weight|bias)" if "base_acc" in state else r"(\d+)\.(weight|bias)"
    entries: dict[int, dict[str, Array]] = {}
    for key, value in state.items():
        if key == "base_acc":
            continue
        if (match := re.fullmatch(pattern, key)) is None:
            raise ArtifactError(f"{file} is no official accuracy predictor: it has the entry {key[:60]!r}")
        entries.setdefault(int(match[1]), {})[match[2]] = value
    layers: list[tuple[Array, Array]] = []
    for i, (_, layer) in enumerate(sorted(entries.items())):
        weight = layer.get("weight")
        if weight is None or weight.ndim != 2 or not np.isfinite(weight).all():
            raise ArtifactError(f"{file} is no official accuracy predictor: layer {i} has no weights, or not numbers")
        bias = layer.get("bias", state.get("base_acc") if i == len(entries) - 1 else None)
        if bias is None or bias.shape != weight.shape[:1] or not np.isfinite(bias).all():
            raise ArtifactError(f"{file} is no official accuracy predictor: layer {i} has no bias of its width")
        layers.append((weight, bias))
    if not layers or any(len(a) != b.shape[1] for (a, _), (b, _) in itertools.pairwise(layers)):
        raise ArtifactError(f"{file} is no official accuracy predictor: its layers do not follow one another")
    return layers


def _resolutions(file: Path, space: SearchSpace, width: int) -> tuple[int, ...]:
    """The resolutions that a first layer of this width knows."""
    codec = codec_of(space)
    choices = codec.predictor_inputs(space, space.genes([space.extreme(largest=True)])).shape[1]
    fits = [r for r in (codec.predictor_resolutions, space.resolutions) if choices + len(r) == width]
    if not fits:
        raise ArtifactError(f"{file} takes {width} inputs, which is not {space.name}'s encoding; choose with --space")
    return fits[0]


def convert(file: Path, space: SearchSpace, out: Path) -> None:
    """Convert a file of the once-for-all project to a predictor that every command takes.

    Args:
        file: as torch.save wrote it; nothing in it is run.
        space: the search space that it predicts.
        out: file to write.

    Raises:
        ArtifactError: the file is no such predictor, or not of this space.
    """
    outputs.check_output(out, ".safetensors")
    arrays = read(file, space)
    Predictor(space, (("official", arrays),)).save(out, {"source": file.name, "source_sha256": atomic.sha256(file)})
