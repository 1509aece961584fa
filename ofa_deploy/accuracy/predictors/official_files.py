"""Reading the once-for-all project's own accuracy predictors."""

from __future__ import annotations

import itertools
import re
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
    pattern = r"layers\.(\d+)(?:\.0)?\.(weight|bias)" if nas else r"(\d+)\.(weight|bias)"
    layers: dict[int, dict[str, Array]] = {}
    for key, value in state.items():
        if key == "base_acc":
            continue
        if (match := re.fullmatch(pattern, key)) is None:
            raise ArtifactError(f"{file} is no official accuracy predictor: it has the entry {key[:60]!r}")
        layers.setdefault(int(match[1]), {})[match[2]] = value
    out: dict[str, Array] = {}
    ordered = [layers[i] for i in sorted(layers)]
    for i, layer in enumerate(ordered):
        if "weight" not in layer or layer["weight"].ndim != 2 or not np.isfinite(layer["weight"]).all():
            raise ArtifactError(f"{file} is no official accuracy predictor: layer {i} has no weights, or not numbers")
        bias = layer.get("bias", state["base_acc"] if nas and i == len(ordered) - 1 else None)
        if bias is None or bias.shape != layer["weight"].shape[:1] or not np.isfinite(bias).all():
            raise ArtifactError(f"{file} is no official accuracy predictor: layer {i} has no bias of its width")
        out |= {f"weight{i}": layer["weight"].T[None], f"bias{i}": bias[None, None]}
    if not ordered or any(len(a["weight"]) != b["weight"].shape[1] for a, b in itertools.pairwise(ordered)):
        raise ArtifactError(f"{file} is no official accuracy predictor: its layers do not follow one another")
    resolutions = _resolutions(file, space, out["weight0"].shape[1])
    if nas:
        out["weight0"] = np.roll(out["weight0"], -len(resolutions), axis=1)
    if out[f"weight{len(ordered) - 1}"].shape[2] != 1:
        raise ArtifactError(f"{file} is no official accuracy predictor: it has more than one output")
    width = out["weight0"].shape[1]
    return {key: np.ascontiguousarray(value, np.float32) for key, value in out.items()} | {
        "resolutions": np.array(resolutions),
        "shift": np.zeros(width),
        "scale": np.ones(width),
        "target": np.array([0.0, 100.0]),
        "noise": np.full(1, np.nan),
    }


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

    Raises:
        ArtifactError: see `read`.
    """
    outputs.check_output(out, ".safetensors")
    arrays = read(file, space)
    Predictor(space, (("official", arrays),)).save(out, {"source": file.name, "source_sha256": atomic.sha256(file)})
