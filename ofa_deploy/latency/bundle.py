"""Measuring a device that is elsewhere: one zip that measures itself there, and a table from what it brings back.

The zip holds the models and those modules of ofa-deploy that measure (`device` and what it needs), so the code
that measures elsewhere is the code that measures here.
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

from ofa_deploy.device.devices import Device, get_device
from ofa_deploy.device.rounds import Key, MeasurePlan, missing, read
from ofa_deploy.device.runner import MANIFEST, RUNNERS
from ofa_deploy.device.timing import Visit
from ofa_deploy.errors import ArtifactError, MeasureError, OfaDeployError
from ofa_deploy.files import atomic, json_text, outputs
from ofa_deploy.files.json_text import Json
from ofa_deploy.graphs import weights
from ofa_deploy.graphs.formats import NamedOps, format_of
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import check_replaces, file_name
from ofa_deploy.progress import Progress
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

KIND, SCHEMA = "latency-bundle", 1
MODULES = (
    "__init__.py",
    "errors.py",
    "progress.py",
    "version.py",
    "files/__init__.py",
    "files/artifacts.py",
    "files/atomic.py",
    "files/json_text.py",
    "files/machine.py",
    "files/journals.py",
    "files/outputs.py",
    "device/*.py",
)
"""What a bundle carries of ofa-deploy."""
MANIFEST_LIMIT = 64 << 20
"""Bytes; a larger manifest is not read."""
_MAIN = """import sys

if sys.version_info < (3, 9):
    sys.exit(f"{sys.argv[0]} needs Python 3.9 or newer, this is {sys.version.split()[0]}")
try:
    import numpy
except ImportError:
    sys.exit(f"{sys.argv[0]} needs numpy; {sys.executable} -m pip install numpy")
from ofa_deploy.device.runner import main

main()
"""


def write_bundle(job: TableJob, name: str, *, out: Path, runner: str = "python") -> None:
    """Write everything that a table needs to be measured on another machine into one file.

    The same job gives the same file, byte for byte. Weights are few random numbers repeated, so that it is small.

    Args:
        job: what to measure.
        name: of a device, see `device.devices.DEVICES`.
        out: the zip to write; `python FILE` runs it.
        runner: one of `device.runner.RUNNERS`.

    Raises:
        MeasureError: there is no such device, or the runner does not serve it.
        ArtifactError: the file cannot be written.
    """
    device = get_device(name)
    if runner not in RUNNERS:
        raise MeasureError(f"unknown runner {runner!r}; choose one of {', '.join(RUNNERS)}")
    if runner == "adb" and device.runtime != "tflite":
        raise MeasureError(f"--runner adb measures TFLite models; choose --device tflite, not {name}")
    progress = Progress(len(job.entries), "graphs")
    with atomic.writing(out) as temporary, zipfile.ZipFile(temporary, "w") as file:
        entries = {}
        for number, (entry, named_ops) in enumerate(job.entries.items()):
            entries[entry] = _add_model(file, f"{number}", named_ops, job=job, device=device)
            if entry in job.operators:
                entries[entry]["operator"] = list(astuple(job.operators[entry]))
            progress.add()
        manifest = {
            "schema": SCHEMA,
            "kind": KIND,
            **job.description,
            "runner": runner,
            "device": name,
            "runtime": device.runtime,
            "entries": entries,
            "sentinel": _add_model(file, "sentinel", job.sentinel, job=job, device=device),
            "sources": _add_sources(file),
        }
        _add(file, MANIFEST, json_text.dumps(manifest))
        _add(file, "__main__.py", _MAIN)


def _add(file: zipfile.ZipFile, member: str, content: bytes | str) -> None:
    """Add a member that is dated 1980, so that the same content is the same file."""
    info = zipfile.ZipInfo(member)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    file.writestr(info, content)


def _add_model(file: zipfile.ZipFile, stem: str, named_ops: NamedOps, *, job: TableJob, device: Device) -> Json:
    """Add a model file; what the manifest says about it."""
    content, x = job.model(named_ops, device, draw=weights.tiled)
    member = f"models/{stem}{format_of(device).suffix}"
    _add(file, member, content)
    digest = hashlib.sha256(content).hexdigest()
    return {"file": member, "shape": list(x.shape), "bytes": len(content), "sha256": digest}


def _add_sources(file: zipfile.ZipFile) -> dict[str, str]:
    """Add the modules of `MODULES`; the SHA-256 of each."""
    package, digests = Path(__file__).parents[1], {}
    for path in [path for pattern in MODULES for path in sorted(package.glob(pattern))]:
        member = f"ofa_deploy/{path.relative_to(package).as_posix()}"
        _add(file, member, path.read_bytes())
        digests[member] = atomic.sha256(path)
    return digests


def needs(device: str, runner: str) -> tuple[str, str]:
    """Where a bundle runs and what must be installed there, in words; and the options that it needs there."""
    if runner == "adb":
        where = "On the computer that the phone is connected to, which needs Python 3.9, numpy and adb"
        return where, " --benchmark-model FILE  (TensorFlow's for Android)"
    packages = " or ".join(get_device(device).packages)
    return f"On the device, which needs Python 3.9, numpy and {packages}", ""


def collect(
    path: Path, results: Path, *, out: Path | None = None, others: Sequence[LatencyTable] = ()
) -> tuple[LatencyTable, Path]:
    """The table of a device from what a bundle has measured there, saved.

    Args:
        path: the bundle.
        results: the file that it wrote.
        out: the CSV file to write; None names it after the device, in `lut/`.
        others: tables of other devices, for a bundle of whole networks alone.

    Returns:
        the table and its file.

    Raises:
        MeasureError: a table cannot be fitted to the networks, see `regression.fit_table`.
        ArtifactError: one of the two is damaged, the results are of another bundle or not complete, or the table
            cannot be written.
    """
    identity, manifest = _manifest(path)
    job, device = _job(path, manifest)
    if job.blocks and others:
        raise ArtifactError(f"{path} measures every operator; leave out --from")
    _check_release(path, manifest, job)
    first, *lines = atomic.read(results).decode(errors="replace").split("\n")
    header = json_text.loads(first.encode(), results)
    if header.pop("bundle", None) != identity:
        raise ArtifactError(f"{results} was measured with another bundle than {path}; give the one that it came from")
    if not _fits(header, job, device) or lines[-1:] != [""]:
        raise ArtifactError(f"{results} is damaged; carry it back once more")
    visits = _visits(lines[:-1], results, job)
    table = job.table(visits, header, others=others)
    target = out or Path("lut") / file_name(job.space, header, blocks=job.blocks)
    outputs.check_output(target, ".csv")
    check_replaces(target, job.resolutions, others=others)
    with atomic.locked(target):
        table.save(target, {**job.details(visits), "bundle_manifest_sha256": identity})
    return table, target


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns whatever a damaged manifest leads to into one line."""
    try:
        yield
    except (OfaDeployError, KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); make it anew") from error


def _job(path: Path, manifest: Json) -> tuple[TableJob, Device]:
    """What a bundle measures, and on which device.

    Raises:
        ArtifactError: its manifest is damaged.
    """
    with _damage(path):
        space, plan = get_space(manifest["space"]), MeasurePlan(**manifest["plan"])
        job = TableJob(
            space, tuple(manifest["resolutions"]), plan=plan, blocks=manifest["blocks"], batch=manifest["batch"]
        )
        return job, get_device(manifest["device"])


def _check_release(path: Path, manifest: Json, job: TableJob) -> None:
    """Refuse a bundle whose entries are not those that this release would measure.

    Raises:
        ArtifactError: it is of another release, or damaged.
    """
    with _damage(path):
        entries = manifest["entries"]
        operators = {name: entry["operator"] for name, entry in entries.items() if "operator" in entry}
        same = job.plan.networks <= len(entries) and list(entries) == list(job.entries)
        same = same and operators == {name: list(astuple(op)) for name, op in job.operators.items()}
    if not same:
        raise ArtifactError(f"{path} is of another release of ofa-deploy; make and run it anew with this one")


def _fits(header: Json, job: TableJob, device: Device) -> bool:
    """Whether the conditions at the head of results are complete and those of the job."""
    expected = {
        "device": device.name,
        "runtime": device.runtime,
        "threads": job.plan.threads,
        "batch": job.batch,
        "precision": device.precision,
    }
    machine = header.get("machine")
    return (
        all(header.get(key) == value for key, value in expected.items())
        and isinstance(header.get("runtime_version"), str)
        and isinstance(machine, dict)
        and {"cpu", "cores"} <= set(machine)
    )


def _visits(lines: Sequence[str], results: Path, job: TableJob) -> dict[Key, Visit]:
    """All visits of a job.

    Raises:
        ArtifactError: the lines are damaged, or visits are missing.
    """
    visits, names = read(lines, results), list(job.entries)
    if strange := {name for _, name in visits} - set(names):
        raise ArtifactError(f"{results} is damaged: it has visits to {min(strange)!r}; carry it back once more")
    if lacks := missing(visits, names, job.plan):
        raise ArtifactError(f"{results} is not complete: {len(lacks)} visits are missing; repeat the run on the device")
    return visits


def space_of(path: Path) -> SearchSpace:
    """The space of a bundle.

    Raises:
        ArtifactError: it is none.
    """
    return get_space(str(_manifest(path)[1].get("space")))


def _manifest(path: Path) -> tuple[str, Json]:
    try:
        with zipfile.ZipFile(path) as file:
            if file.getinfo(MANIFEST).file_size > MANIFEST_LIMIT:
                raise ArtifactError(f"{path} is no bundle: its manifest is too large")
            text = file.read(MANIFEST)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{path} is no bundle; make one with: ofa-deploy lut bundle") from error
    manifest = json_text.loads(text, path)
    if manifest.get("kind") != KIND or manifest.get("schema") != SCHEMA:
        raise ArtifactError(f"{path} is no bundle that this release reads; make it anew with: ofa-deploy lut bundle")
    return hashlib.sha256(text).hexdigest(), manifest
