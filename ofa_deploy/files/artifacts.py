"""Artifacts: a data file plus a JSON of the same stem that says how it came to be.

Reading one never runs code: formats are CSV, JSON, safetensors and `.npz` without pickles. A working folder and what
ships have the same layout (`lut/`, `predictors/`, `supernets/`); the working folder is looked at first.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import ofa_deploy

try:
    import fcntl
except ImportError:  # Windows has none; two runs on one output are the user's own care there
    fcntl = None  # type: ignore[assignment]

from ofa_deploy.errors import ArtifactError

SCHEMA = 1
FOLDERS = ("lut", "predictors", "supernets")
Json = dict[str, Any]


def shipped(folder: str) -> Path:
    """Where the artifacts of this release lie: inside the wheel, or beside the `pyproject.toml` of a checkout."""
    package = Path(ofa_deploy.__file__).parent
    checkout = package.parent
    return checkout / folder if (checkout / "pyproject.toml").exists() else package / "_shipped" / folder


def find_artifact(folder: str, name: str, hint: str = "make it, or name it") -> Path:
    """The artifact's data file `name` of `folder`: the working folder's own, else the one that ships.

    Raises:
        ArtifactError: there is none; the message ends with `hint`, the next step.
    """
    for path in (Path(folder) / name, shipped(folder) / name):
        if path.is_file():
            return path
    raise ArtifactError(f"no {folder}/{name} here, and none ships; {hint}")


def candidates(folder: str, pattern: str) -> list[Path]:
    """JSON files of a folder that match a glob pattern: the working folder's first, then what ships."""
    mine = sorted(Path(folder).glob(pattern))
    seen = {path.resolve() for path in mine}
    return [*mine, *(path for path in sorted(shipped(folder).glob(pattern)) if path.resolve() not in seen)]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the block ends well, and vanishes when it does not.

    Those that killed runs have left of the same `path` vanish as well.

    Raises:
        ArtifactError: the folder cannot be made or written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        temporary = Path(name)
        with open(handle, "rb") as alive:
            _lock(alive)
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            if fcntl is None:
                alive.close()  # an open file cannot be renamed there
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise ArtifactError(f"cannot write {path}: {reason}; choose another place") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a second run from working on the output `path` while the block lasts; a kill leaves no lock.

    Raises:
        ArtifactError: another run works on it.
    """
    lock = path.with_name(f".{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "wb") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino != lock.stat().st_ino:
                    raise BlockingIOError  # the run that just ended has removed the file that we opened
        except OSError as error:
            raise ArtifactError(f"another run is writing {path}; wait for it, or choose another --out") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:64]}."


def _lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed, or its process is killed; False where another has it, or there are no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fcntl is not None
    except OSError:
        return False


def _sweep(path: Path) -> None:
    """Remove the temporary files that killed runs have left of `path`: those that nobody has locked."""
    left = re.compile(re.escape(_prefix(path)) + "[a-z0-9_]{8}")  # as tempfile names them
    for name in os.listdir(path.parent):
        if left.fullmatch(name):
            with contextlib.suppress(OSError), open(path.with_name(name), "rb") as file:
                if _lock(file):
                    path.with_name(name).unlink(missing_ok=True)


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def save(path: Path, data: bytes, kind: str, space: str, details: Mapping[str, Any]) -> Json:
    """Save an artifact: the data at `path`, and beside it the JSON that describes it.

    Args:
        path: of the data file.
        data: its content.
        kind: what it is, e.g. `latency-table`.
        space: name of its search space.
        details: how it came to be; JSON values.

    Returns:
        the description that was written.
    """
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    description = {
        "schema": SCHEMA,
        "kind": kind,
        "space": space,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "created": today,
        **details,
        "made_with": made_with(),
    }
    description = sealed(description)
    try:
        text = dumps(description).encode()
    except UnicodeEncodeError as error:
        raise ArtifactError(f"cannot write {path}: its description holds half a character") from error
    write(path, data)
    write(path.with_suffix(".json"), text)
    return description


def load(path: Path, kind: str, space: str | None = None) -> tuple[bytes, Json]:
    """Read an artifact and check it: kind, schema, space and checksum.

    Args:
        path: of the data file.
        kind: what it must be.
        space: the space that it must belong to; None accepts any.

    Returns:
        its data and its description.

    Raises:
        ArtifactError: naming what is wrong.
    """
    description = describe(path, kind)
    if path.suffix == ".json":
        raise ArtifactError(f"{path} describes {description.get('file', 'another file')}; name that one")
    if space is not None and description["space"] != space:
        raise ArtifactError(f"{path} is of the space {description['space']}, not of {space}; choose with --space")
    data = read(path)
    if hashlib.sha256(data).hexdigest() != description.get("sha256"):
        raise ArtifactError(f"{path} is damaged or was edited: its checksum is not the one in its JSON; make it anew")
    return data, description


def describe(path: Path, kind: str) -> Json:
    """Read and check the JSON beside a data file, leaving the data alone.

    Raises:
        ArtifactError: it is missing, no JSON, of another kind or of a newer schema.
    """
    if not path.name:
        raise ArtifactError(f"{path} is no file")
    beside = path.with_suffix(".json")
    if not beside.exists():
        read(path)
        raise ArtifactError(f"{path} has no {beside.name} beside it, so it is no {kind} of ofa-deploy")
    description = loads(read(beside), beside)
    if description.get("kind") != kind or not isinstance(description.get("space"), str):
        raise ArtifactError(f"{beside} is of another kind ({description.get('kind', 'unknown')}), not of {kind}")
    schema = description.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ArtifactError(f"{beside} has schema {schema}, this release reads up to {SCHEMA}; upgrade ofa-deploy")
    check_seal(description, beside)
    return description


def sealed(about: Mapping[str, Any]) -> Json:
    """JSON values with a checksum of themselves, as `seal`; one that is there already is replaced."""
    plain = {key: value for key, value in about.items() if key != "seal"}
    return {**plain, "seal": _checksum(plain)}


def check_seal(about: Mapping[str, Any], path: Path) -> None:
    """Find out whether JSON values are as `sealed` left them; what has no seal passes.

    Raises:
        ArtifactError: they are not.
    """
    if "seal" in about and about["seal"] != sealed(about)["seal"]:
        raise ArtifactError(f"{path} is damaged or was edited: it does not match its own checksum; make it anew")


def _checksum(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> bytes:
    """Content of a file.

    Raises:
        ArtifactError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # such as half a character
        raise ArtifactError(f"{path} is no name of a file: {error}") from error


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


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    return hashlib.sha256(read(path)).hexdigest()


def made_with() -> Json:
    """Versions and machine, for an artifact's description."""
    packages = (
        "ofa-deploy",
        "torch",
        "numpy",
        "onnx",
        "onnxruntime",
        "ai-edge-litert",
        "ai-edge-quantizer",
        "scikit-learn",
        "deap",
    )
    versions = {name: version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "packages": {k: v for k, v in versions.items() if v},
        "machine": machine(),
    }


@cache
def version(package: str) -> str | None:
    """Installed version of a distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ofa_deploy.__version__ if package == "ofa-deploy" else None


@cache
def slug(text: str) -> str:
    """A text as a part of a file's name: its letters and digits, in lower case, with dashes for all between them."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def machine() -> Json:
    """This machine's processor, as far as it decides latency: model, architecture, cores, system."""
    info: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            info[key.strip()] = value.strip()
    words = {"family": "cpu family", "model": "model", "implementer": "CPU implementer", "part": "CPU part"}
    board = ""
    with contextlib.suppress(OSError):  # what boards call themselves, such as "Raspberry Pi 4 Model B Rev 1.4"
        board = Path("/proc/device-tree/model").read_text().strip("\0 \n")
    name = info.get("model name") or board or platform.processor() or "unknown processor"
    numbers = [f"{key} {info[word]}" for key, word in words.items() if word in info]
    return {
        "cpu": " ".join([name, *([f"({', '.join(numbers)})"] if numbers else [])]),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
    }
