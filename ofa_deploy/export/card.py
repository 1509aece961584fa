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
    file: str,
    content: bytes,
    checked: Mapping[str, Any],
    origin: Mapping[str, Any],
    predicted: Mapping[str, Any] | None,
    device: Device | None = None,
) -> Json:
    """The card of a file, by the name of its format, the file's name and content.

    `checked` is what the checks found (see `export.check`), `origin` says whence the supernet is, and `predicted` holds
    figures of the search.
    """
    net, data, one = subject.net, subject.data, FORMATS[name]
    space, arch = net.space, net.arch
    genes = space.genes([arch])
    shape = [1, space.in_channels, arch.resolution, arch.resolution]
    shape = [shape[i] for i in (0, 2, 3, 1)] if one.layout == "NHWC" else shape
    calibrated = f"{min(CALIBRATION, len(data.train))} training images of {data.name}"
    return {
        "schema": artifacts.SCHEMA,
        "kind": "model-card",
        "space": space.name,
        "file": file,
        "format": name,
        "precision": one.precision,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "arch": str(arch),
        "once_for_all": to_ofa(space, arch),
        "macs": int(space.macs(genes)[0]),
        "params": int(space.params(genes)[0]),
        "input": {
            "name": INPUT,
            "layout": one.layout,
            "dtype": "float32",
            "shape": shape,
            "scale": "pixels / 255, then (x - mean) / std",
            "mean": data.mean,
            "std": data.std,
            "resize": "bilinear with antialiasing",
        },
        "output": {"name": OUTPUT, "classes": data.classes},
        "run": run_lines(subject, name, file, device),
        "recalibrated_on": f"{min(subject.recalibration, len(data.train))} training images of {data.name}",
        "calibrated_on": calibrated if one.precision == "int8" else None,
        "licences": {"data": data.licence, "weights": origin.get("licence", "not stated")},
        "weights": dict(origin),
        **checked,
        "predicted": dict(predicted or {}),
        "measured": {},
        "made_with": made_with(),
    }


def run_lines(subject: Subject, name: str, file: str, device: Device | None = None) -> list[str]:
    """Five lines of Python that run a file on one image, by a device where it is for one."""
    one, data, size = FORMATS[name], subject.data, subject.net.arch.resolution
    imports, expression = (device and device.usage) or (one.imports, one.run)
    order = "" if one.layout == "NHWC" else ".transpose(2, 0, 1)"
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
    what, weights = card["input"], card["weights"]
    rows = [
        ("architecture", f"`{card['arch']}` of the space {card['space']}"),
        ("format", f"{card['format']}, {card['precision']}, {card['bytes'] / 1e6:.2f} MB"),
        ("cost", f"{card['macs'] / 1e6:.2f} million MACs, {card['params'] / 1e6:.3f} million parameters"),
        ("input", f"`{what['name']}`, {what['dtype']}, {what['layout']} {tuple(what['shape'])}: {what['scale']}"),
        ("images", f"resized to that size, {what['resize']}"),
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


def _listed(classes: Sequence[str]) -> str:
    more = ", ... (the JSON has all)" if len(classes) > SHOWN else ""
    return f"{len(classes)} classes, in this order: {', '.join(classes[:SHOWN])}{more}"


def _figures(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was predicted, checked and measured."""
    checked, predicted, measured = card["agreement_with_torch"], card["predicted"], card["measured"]
    limits = predicted.get("limits", [])
    tuned = card.get("finetuned")
    rows = []
    for limit in limits:
        of = f" ({limit['of']})" if "of" in limit else ""
        rows.append((f"predicted {limit['name']}", f"{limit['predicted']:.4g} {limit['unit']}{of}"))
    if "top1_percent" in predicted:
        rows.append(("predicted top-1", f"{predicted['top1_percent']:.2f} %"))
    if tuned:
        rows.append(
            (
                "fine-tuned",
                f"{tuned['epochs']} epochs: top-1 on {tuned['heldout_images']} held-out images from "
                f"{tuned['heldout_top1_percent_before']:.2f} to {tuned['heldout_top1_percent']:.2f} %",
            )
        )
    if latency := measured.get("latency"):
        at = latency["conditions"]
        where = f"{at['runtime']} {at['runtime_version']}, threads: {at['threads']}, {at['machine']['cpu']}"
        rows.append(("measured latency", f"{latency['latency_ms']:.4g} ms ({where})"))
    if memory := measured.get("memory"):
        rows.append(
            ("peak memory", f"{memory['model_mb']:.3g} MB, {memory['process_mb']:.3g} MB with Python and runtime")
        )
    rows.append(
        (
            "agreement with torch",
            f"{checked['agreement_percent']:.4g} % of {checked['images']} held-out images; logits differ by "
            f"{checked['max_difference']:.1g} at most",
        )
    )
    if drop := card.get("accuracy"):
        rows.append(
            (
                "top-1",
                f"{drop['top1_percent']:.2f} %, {drop['drop_points']:.2f} points (95 % interval "
                f"±{drop['interval95_points']:.2f}) below torch's, on {drop['images']} held-out images",
            )
        )
    for key, label in (("heldout", "held-out"), ("test", "test")):
        if found := measured.get(key):
            rows.append(
                (
                    f"top-1 on {found['images']} {label} images",
                    f"{found['top1_percent']:.2f} % (95 % interval ±{found['interval95_points']:.2f})",
                )
            )
    return rows
