"""Measuring a device over ssh: a bundle is copied there, run there, and its results are brought back."""

from __future__ import annotations

import logging
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ofa_deploy.errors import ArtifactError, MeasureError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.latency.build import TableJob
from ofa_deploy.latency.bundle import collect, write_bundle
from ofa_deploy.latency.regression import check_cover
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.latency.table_files import check_replaces

logger = logging.getLogger(__name__)

FOLDER = ".cache/ofa-deploy"
"""Where a bundle lies on the device, below the user's home."""


def build_over_ssh(
    job: TableJob,
    device: str,
    *,
    host: str,
    python: str = "python3",
    out: Path | None = None,
    others: Sequence[LatencyTable] = (),
) -> tuple[LatencyTable, Path]:
    """Measure a table on a machine that ssh reaches, and save it here.

    There, Python 3.9, numpy and the runtime are needed, nothing else. Killed at any moment, here or there, the run goes
    on where it was when it is repeated by the same release; when it has ended well, nothing is left there.

    Args:
        job: what to measure.
        device: its name, see `device.devices.DEVICES`.
        host: as ssh takes it: `user@host`, a name from its configuration, or `ssh://user@host:port`.
        python: the interpreter there.
        out: the CSV file to write here; None names it after the device, in `lut/`.
        others: tables of other devices, for a table without blocks.

    Returns:
        the table and its file.

    Raises:
        MeasureError: ssh fails, or the run there does.
        ArtifactError: a file cannot be written.
    """
    if host.startswith("-"):
        raise MeasureError(f"{host!r} is no host; give one as ssh takes it, such as pi@raspberrypi")
    check_cover(job.resolutions, others)
    if out is not None:
        outputs.check_output(out, ".csv")
        check_replaces(out, job.resolutions, others=others)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.zip"
        logger.info("making the bundle")
        write_bundle(job, device, out=path)
        stem = f"{job.space.name}_{atomic.sha256(path)[:16]}"
        results = Path(folder) / "bundle.results"
        results.write_bytes(_run(path, stem, host=host, python=python))
        try:
            table, target = collect(path, results, out=out, others=others)
        except (ArtifactError, MeasureError) as error:
            raise type(error)(f"{error} (what was measured lies at {host}:{FOLDER}/{stem}.results)") from error
        _ssh(host, f"rm -f {FOLDER}/{stem}.zip {FOLDER}/{stem}.results")
        return table, target


def _run(bundle: Path, stem: str, *, host: str, python: str) -> bytes:
    """Copy a bundle to a machine, run it there, unless that was done before, and read what it has measured."""
    remote = f"{FOLDER}/{stem}"
    logger.info(f"copying {bundle.stat().st_size / 1e6:.1f} MB to {host}")
    _ssh(host, f"mkdir -p {FOLDER} && cat > {remote}.tmp && mv {remote}.tmp {remote}.zip", bundle.read_bytes())
    run = f"test -e {stem}.results || {shlex.quote(python)} {stem}.zip"
    _ssh(host, f"cd {FOLDER} && {{ {run}; }}", tell=True)
    return _ssh(host, f"cat {remote}.results")


def _ssh(host: str, command: str, content: bytes = b"", *, tell: bool = False) -> bytes:
    """What a command on another machine prints; with `tell`, each line of its errors is logged as it comes.

    Raises:
        MeasureError: it fails, or the machine is not reached.
    """
    try:
        process = subprocess.Popen(
            ["ssh", host, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise MeasureError(f"ssh cannot be run ({error.strerror or error}); install an OpenSSH client") from error
    last = ""
    with process:
        if tell:
            assert process.stderr is not None
            for line in process.stderr:
                last = line.decode(errors="replace").rstrip()
                logger.info(last)
        printed, errors = process.communicate(content)
    if process.returncode:
        why = last or (errors.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise MeasureError(f"on {host}: {why} (exit code {process.returncode}); mend that and repeat the command")
    return printed
