"""The card beside an exported file: what it is, what to expect of it, how to run it; as JSON and as Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.device.devices import Device
from ofa_deploy.export.formats import FORMATS
from ofa_deploy.export.subject import CALIBRATION, Subject
from ofa_deploy.files import artifacts, atomic, json_text
from ofa_deploy.files.json_text import Json
from ofa_deploy.files.machine import made_with
from ofa_deploy.graphs.weights import INPUT, OUTPUT
from ofa_deploy.spaces.official import to_ofa

SHOWN = 20
"""Classes that the page names."""


def make_card(
    subject: Subject,
    name: str,
    *,
    file: str,
    content: bytes,
    checks: Mapping[str, Any],
    device: Device | None = None,
) -> Json:
    """The card of a file.

    Args:
        subject: what was exported.
        name: of the format.
        file: the file's name.
        content: of the file.
        checks: what its checks say, see `run.check_content`.
        device: that the file is for; None takes the format's own.

    Returns:
        JSON values.
    """
    form, data = FORMATS[name], subject.data
    calibration = f"{min(CALIBRATION, len(data.train))} training images of {data.name}"
    return {
        "schema": artifacts.SCHEMA,
        "kind": "model-card",
        **_identity(subject, name, file=file, content=content),
        "input": _input(subject, form.layout),
        "output": {"name": OUTPUT, "classes": data.classes},
        "run": run_lines(subject, name, file=file, device=device),
        "recalibrated_on": f"{min(subject.recalibration, len(data.train))} training images of {data.name}",
        "calibrated_on": calibration if form.precision == "int8" else None,
        "licences": {"data": data.licence, "weights": subject.origin.get("licence", "not stated")},
        "weights": dict(subject.origin),
        **checks,
        "predicted": dict(subject.predicted),
        "measured": {},
        "made_with": made_with(),
        **({"finetuned": subject.finetuned} if subject.finetuned else {}),
    }


def _identity(subject: Subject, name: str, *, file: str, content: bytes) -> Json:
    """What a file is: its format, its content, its architecture and what that costs."""
    space, arch = subject.net.space, subject.net.arch
    genes = space.genes([arch])
    return {
        "space": space.name,
        "file": file,
        "format": name,
        "precision": FORMATS[name].precision,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "arch": str(arch),
        "once_for_all": to_ofa(space, arch),
        "macs": int(space.macs(genes)[0]),
        "params": int(space.params(genes)[0]),
    }


def _input(subject: Subject, layout: str) -> Json:
    """What a file takes, and how images become that."""
    data, size, channels = subject.data, subject.net.arch.resolution, subject.net.space.in_channels
    return {
        "name": INPUT,
        "layout": layout,
        "dtype": "float32",
        "shape": [1, size, size, channels] if layout == "NHWC" else [1, channels, size, size],
        "scale": "pixels / 255, then (x - mean) / std",
        "mean": data.mean,
        "std": data.std,
        "resize": "bilinear with antialiasing",
    }


def run_lines(subject: Subject, name: str, *, file: str, device: Device | None = None) -> list[str]:
    """Five lines of Python that run a file on one image.

    Args:
        subject: what was exported.
        name: of the format.
        file: the file's name.
        device: that runs it; None takes the format's own.
    """
    form, data, size = FORMATS[name], subject.data, subject.net.arch.resolution
    imports, expression = (device and device.usage) or (form.imports, form.run)
    order = "" if form.layout == "NHWC" else ".transpose(2, 0, 1)"
    return [
        imports,
        "import numpy as np",
        f"pixels = np.zeros(({size}, {size}, {subject.net.space.in_channels}), np.uint8)  # your image",
        f"x = ((pixels / 255 - {list(data.mean)}) / {list(data.std)}).astype(np.float32){order}[None]",
        f"logits = {expression.replace('FILE', file)}",
    ]


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Write the card of the file at `path` beside it, as `.json` and as `.md`."""
    atomic.write(path.with_suffix(".json"), json_text.dumps(card))
    atomic.write(path.with_suffix(".md"), markdown(card))


def markdown(card: Mapping[str, Any]) -> str:
    """A card as a page."""
    expected, weights = card["input"], card["weights"]
    rows = [
        ("architecture", f"`{card['arch']}` of the space {card['space']}"),
        ("format", f"{card['format']}, {card['precision']}, {card['bytes'] / 1e6:.2f} MB"),
        ("cost", f"{card['macs'] / 1e6:.2f} million MACs, {card['params'] / 1e6:.3f} million parameters"),
        ("input", f"`{expected['name']}`, {expected['dtype']}, {_shape(expected)}: {expected['scale']}"),
        ("images", f"resized to that size, {expected['resize']}"),
        ("output", f"`{card['output']['name']}`, a score for each of {_listed(card['output']['classes'])}"),
        ("cut out of", f"{weights['file']}, SHA-256 {weights['sha256']}" if weights else "-"),
        ("batch norms recalibrated on", card["recalibrated_on"]),
        *([("int8 ranges from", card["calibrated_on"])] if card["calibrated_on"] else []),
        *_figures(card),
        ("licence of the data", card["licences"]["data"]),
        ("licence of the weights", card["licences"]["weights"]),
    ]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    lines = "\n".join(card["run"])
    return f"# {card['file']}\n\n| | |\n|---|---|\n{table}\n\nTo run it:\n\n```python\n{lines}\n```\n"


def _shape(expected: Mapping[str, Any]) -> str:
    return f"{expected['layout']} {tuple(expected['shape'])}"


def _listed(classes: Sequence[str]) -> str:
    more = ", ... (the JSON has all)" if len(classes) > SHOWN else ""
    return f"{len(classes)} classes, in this order: {', '.join(classes[:SHOWN])}{more}"


def _figures(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of what was predicted, checked and measured."""
    measured = card["measured"]
    checks = card["agreement_with_torch"]
    rows = _predictions(card["predicted"])
    if tuning := card.get("finetuned"):
        words = (
            f"{tuning['epochs']} epochs: top-1 on {tuning['heldout_images']} held-out images from "
            f"{tuning['heldout_top1_percent_before']:.2f} to {tuning['heldout_top1_percent']:.2f} %"
        )
        rows.append(("fine-tuned", words))
    rows += _measurements(measured)
    agreement = (
        f"{checks['agreement_percent']:.4g} % of {checks['images']} held-out images; logits differ by "
        f"{checks['max_difference']:.1g} at most"
    )
    rows.append(("agreement with torch", agreement))
    if drop := card.get("accuracy"):
        words = (
            f"{drop['top1_percent']:.2f} %, {drop['drop_points']:.2f} points (95 % interval "
            f"±{drop['interval95_points']:.2f}) below torch's, on {drop['images']} held-out images"
        )
        rows.append(("top-1", words))
    for key, label in (("heldout", "held-out"), ("test", "test")):
        if top1 := measured.get(key):
            words = f"{top1['top1_percent']:.2f} % (95 % interval ±{top1['interval95_points']:.2f})"
            rows.append((f"top-1 on {top1['images']} {label} images", words))
    return rows


def _predictions(predicted: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of what a search predicted."""
    rows = []
    for limit in predicted.get("limits", []):
        machine = f" ({limit['of']})" if "of" in limit else ""
        rows.append((f"predicted {limit['name']}", f"{limit['predicted']:.4g} {limit['unit']}{machine}"))
    if "top1_percent" in predicted:
        rows.append(("predicted top-1", f"{predicted['top1_percent']:.2f} %"))
    return rows


def _measurements(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of latency and memory."""
    rows = []
    if latency := measured.get("latency"):
        at = latency["conditions"]
        where = f"{at['runtime']} {at['runtime_version']}, threads: {at['threads']}, {at['machine']['cpu']}"
        rows.append(("measured latency", f"{latency['latency_ms']:.4g} ms ({where})"))
    if memory := measured.get("memory"):
        words = f"{memory['model_mb']:.3g} MB, {memory['process_mb']:.3g} MB with Python and runtime"
        rows.append(("peak memory", words))
    return rows
