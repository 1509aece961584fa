"""Exporting a subnetwork: recalibrated, checked against torch, with a card beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy import artifacts
from ofa_deploy.accuracy.measure import specialise
from ofa_deploy.arch import Arch
from ofa_deploy.data import RECALIBRATION, Dataset, load
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.check import parity
from ofa_deploy.graphs.weights import INPUT, OUTPUT
from ofa_deploy.latency.runtimes import FORMATS
from ofa_deploy.official import to_ofa
from ofa_deploy.search.result import load_result
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet, folded


def export(
    net: Supernet, arch: Arch, data: Dataset, out: Path, weights: Mapping[str, Any], predicted: Mapping[str, Any] | None
) -> artifacts.Json:
    """Write the model of a subnetwork and its card.

    Args:
        net: the supernet.
        arch: which subnetwork.
        data: whose training images recalibrate the batch norms, and whose held-out images check the file.
        out: the `.onnx` or `.tflite` file to write; the card is the `.json` of the same stem.
        weights: where the supernet came from, for the card.
        predicted: figures of the search that chose it, for the card.

    Returns:
        the card.

    Raises:
        ArchError: `arch` is not of the space.
        MeasureError: the file does not compute what torch computes.
        ArtifactError: the name ends in neither, or it cannot be written.
    """
    space = net.space
    space.check(arch)
    artifacts.check_output(out, *FORMATS)
    runtime = FORMATS[out.suffix]
    plain = specialise(net, arch, data)
    shape = runtime.native(np.zeros((1, space.in_channels, arch.resolution, arch.resolution), np.float32)).shape
    preprocessing = {
        "layout": runtime.layout, "dtype": "float32", "shape": list(shape),
        "scale": "pixels / 255, then (x - mean) / std", "mean": data.mean, "std": data.std,
        "resize": "bilinear with antialiasing",
    }  # fmt: skip
    props = {"arch": str(arch), "space": space.name, "mean": data.mean, "std": data.std, "classes": data.classes}
    notes = {key: str(value) for key, value in props.items()}
    content = runtime.emit(space.walk(arch), folded(plain), notes=notes)
    checked = parity(runtime.session(content, 1), plain, data)
    genes = space.genes([arch])
    card = {
        "schema": artifacts.SCHEMA, "kind": "model-card", "space": space.name, "file": out.name,
        "format": out.suffix[1:], "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
        "arch": str(arch), "once_for_all": to_ofa(space, arch),
        "macs": int(space.macs(genes)[0]), "params": int(space.params(genes)[0]),
        "input": {"name": INPUT, **preprocessing}, "output": {"name": OUTPUT, "classes": data.classes},
        "recalibrated_on": f"{min(RECALIBRATION, len(data.train))} training images of {data.name}",
        "data_licence": data.licence, "weights": dict(weights), "agreement_with_torch": checked,
        "predicted": dict(predicted or {}), "measured": {}, "made_with": artifacts.made_with(),
    }  # fmt: skip
    artifacts.write(out, content)
    artifacts.write(out.with_suffix(".json"), artifacts.dumps(card))
    return card


def export_files(
    space: SearchSpace, arch: str | None, result: Path | None, data: str | None, weights: Path, out: Path
) -> artifacts.Json:
    """Export an architecture given as text, or as the file of a search result, from files.

    Raises:
        OfaDeployError: not exactly one of `arch` and `result` is given, or one of the inputs is unusable.
    """
    if (arch is None) == (result is None):
        raise OfaDeployError("export needs either --arch TEXT or --result FILE")
    predicted = None
    if result is not None:
        found = load_result(result)
        if found.space != space.name:
            raise OfaDeployError(f"{result} is of {found.space}, not of {space.name}; choose with --space")
        chosen = found.arch
        predicted = found.predicted()
    else:
        chosen = Arch.parse(str(arch))
    net = checkpoint.load(weights, space)
    return export(net, chosen, load(data, space), out, checkpoint.origin(weights), predicted)
