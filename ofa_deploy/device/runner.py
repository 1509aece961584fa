"""The command of a bundle: `python BUNDLE.zip` measures what the bundle holds on the machine where it is typed.

It needs Python 3.9, numpy 1.17 and the bundle's runtime; a bundle for adb needs adb and a phone instead. Results go to
`<stem of the bundle>.results` in the working folder, to be carried back to `ofa-deploy lut collect`. Killed at any
moment, it goes on where it was when repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.device import adb
from ofa_deploy.device.conditions import conditions
from ofa_deploy.device.devices import get_device
from ofa_deploy.device.rounds import MeasurePlan, Started, measure
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import atomic, outputs
from ofa_deploy.progress import telling

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""Name of the file in a bundle that says what the bundle holds."""
RUNNERS = ("python", "adb")
"""What runs the models: this interpreter, or `adb.Phone`."""
KEEP_BYTES = 1 << 20
"""Models larger than this are read again for each visit, so that memory holds one of them at a time."""


def run(bundle: Path, out: Path, *, options: adb.Options) -> None:
    """Measure everything in a bundle, and write the results.

    Args:
        bundle: the zip file.
        out: the results: a line for the conditions, then one for each visit. Beside it lies `<name>.partial` while the
            run lasts.
        options: for a bundle that is run by way of adb.

    Raises:
        ArtifactError: what lies at the partial results is of another bundle or machine.
        MeasureError: the runtime is missing, or does not take a model.
    """
    with zipfile.ZipFile(bundle) as file:
        text = file.read(MANIFEST)
        manifest: dict[str, Any] = json.loads(text)
        identity = hashlib.sha256(text).hexdigest()
        phone = adb.Phone(options, identity[:16]) if manifest["runner"] == "adb" else None
        partial = out.with_name(out.name + ".partial")
        with atomic.locked(out):
            _measure(file, manifest, phone=phone, partial=partial, identity=identity)
            with partial.open("rb") as results:
                os.fsync(results.fileno())
            partial.replace(out)
    if phone is not None:
        phone.clean()


def _measure(
    file: zipfile.ZipFile, manifest: dict[str, Any], *, phone: adb.Phone | None, partial: Path, identity: str
) -> None:
    """Visit the models of a bundle, on a phone where there is one, appending to `partial`."""
    plan, entries, device = MeasurePlan(**manifest["plan"]), manifest["entries"], get_device(manifest["device"])
    conditions_there = conditions if phone is None else phone.conditions
    measured = conditions_there(device.name, plan.threads, batch=manifest["batch"])

    def started(entry: dict[str, Any]) -> Started:
        if phone is not None:
            return Started(phone.session(entry["file"], file.read, threads=plan.threads), np.zeros(0, np.float32))
        x = np.random.default_rng(plan.seed).standard_normal(entry["shape"]).astype(np.float32)
        return Started(device.session(file.read(entry["file"]), plan.threads), x)

    measure(
        list(entries),
        lambda name: started(entries[name]),
        sentinel=started(manifest["sentinel"]),
        plan=plan,
        partial=partial,
        header={"bundle": identity, **measured},
        keep=lambda name: phone is not None or bool(entries[name]["bytes"] <= KEEP_BYTES),
    )


def main() -> None:
    """The command line."""
    with telling():
        _main()


def _main() -> None:
    bundle = Path(sys.argv[0])
    out = Path(f"{bundle.stem}.results")
    parser = argparse.ArgumentParser(prog=f"python {bundle.name}", description=__doc__)
    parser.add_argument("--out", type=Path, default=out, help=f"file of the results; default: {out}")
    parser.add_argument("--benchmark-model", type=Path, help="a phone's: TensorFlow's benchmark_model for Android")
    parser.add_argument("--serial", help="a phone's: as adb lists it, where there are several")
    parser.add_argument("--taskset", metavar="MASK", help="a phone's: the processors to use, such as f0")
    options = parser.parse_args()
    path = options.out
    try:
        if path.exists():
            raise ArtifactError(f"{path} is there already; carry it back, or remove it to measure anew")
        outputs.check_folder(path)
        run(bundle, path, options=adb.Options(options.benchmark_model, options.serial, options.taskset))
    except OfaDeployError as error:
        logger.info(f"{bundle.name}: {error}")
        sys.exit(2)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        logger.info(f"{bundle.name} is damaged ({error}); copy it here once more")
        sys.exit(2)
    except OSError as error:
        logger.info(f"{bundle.name}: {error}; mend that and repeat the command to go on")
        sys.exit(2)
    except KeyboardInterrupt:
        logger.info(f"{bundle.name}: stopped; repeat the command to go on")
        sys.exit(130)
    logger.info(f"done: {path}")
