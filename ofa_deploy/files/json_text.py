"""JSON text: objects from and to the content of files, and the checksum by which one tells that it was edited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_deploy.errors import ArtifactError

Json = dict[str, Any]
"""A JSON object."""


def loads(data: bytes, path: Path) -> Json:
    """A JSON object from a file's content.

    Raises:
        ArtifactError: it is not a JSON object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is damaged: it holds no JSON object")
    return value


def dumps(value: Mapping[str, Any]) -> str:
    """JSON text with a line a key, keys in the order given."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sealed(values: Mapping[str, Any]) -> Json:
    """JSON values with a checksum of themselves, as `seal`; one that is there already is replaced."""
    plain = {key: value for key, value in values.items() if key != "seal"}
    return {**plain, "seal": _checksum(plain)}


def check_seal(values: Mapping[str, Any], path: Path) -> None:
    """Find out whether JSON values are as `sealed` left them; what has no seal passes.

    Raises:
        ArtifactError: they are not.
    """
    if "seal" in values and values["seal"] != sealed(values)["seal"]:
        raise ArtifactError(f"{path} is damaged or was edited: it does not match its own checksum; make it anew")


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
