"""Whether a kill loses what was measured, and whether a damaged file is noticed.

Kills: each command runs on small inputs, is killed with SIGKILL at a seeded random moment of its length, and repeated
until it ends. What was on disk must be taken up again, outputs must be whole, nothing else may be left behind, and
seeded results must be byte for byte those of a run that was not killed. With --in-a-row one run is killed again and
again before it may end, and what a kill leaves may not be less than what the one before it left. Latencies of whole
networks are measured without the pauses of half a second between rounds, in which there is nothing to lose.

Damage: files of every kind are truncated, have bits flipped, bytes overwritten or cut out, JSON values swapped, removed
or retyped, and are exchanged for files of other kinds. Each must be refused with one error of one line, or give the
values of the undamaged file; files that carry no checksum (those of others: lists, images, .pth) may give other values.
Any other exception, other values, more than 1 GB of further memory or 20 seconds are violations.

Takes half an hour. Writes benchmarks/results/faults_kills.csv and faults_damage.csv.

    python benchmarks/faults.py [--kills 50] [--in-a-row] [--mutations 1000] [--out FOLDER] [--show]
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import RESULTS, logger, make_parser, result_path, run_telling, write_table

from ofa_deploy.accuracy.predictors.fit import fit_predictor
from ofa_deploy.accuracy.predictors.official_files import convert as convert_predictor
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.shards import Shards
from ofa_deploy.cli import main as command_line
from ofa_deploy.cli.options import NOT_KEPT
from ofa_deploy.data.loading import load_data
from ofa_deploy.data.packing import pack
from ofa_deploy.device.rounds import MeasurePlan, read
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import atomic, journals
from ofa_deploy.files.torch_files import tensors
from ofa_deploy.latency import comparison
from ofa_deploy.latency.build import TableJob, build_table
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.progress import Progress
from ofa_deploy.search.limits import latency_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import load_results, write_results
from ofa_deploy.search.run import find_network
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces import arch_lists
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.official import to_ofa
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.pretrained import convert as convert_weights

SPACE = get_space("fmnist")
SMALL = "r16_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3_k3e3-k3e3"
MEMORY = 1 << 30
SECONDS = 20
WORKED = (0, NOT_KEPT)
"""Exit codes of commands that did what they should: one is for a network that was measured over its budget."""
IMAGES = 420
GENES = SPACE.sample(np.random.default_rng(7), 40)


def make_inputs(folder: Path, images: int = IMAGES) -> None:
    """Images and an untrained supernet, small."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 28, 28), np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(images) % 10)
    checkpoint.save(folder / "w.safetensors", Supernet(SPACE).initialise(0), {})


# -- kills


@dataclass(frozen=True)
class Killed:
    """A command that is killed.

    Attributes:
        arguments: of the command line.
        exact: outputs that are the same bytes in every run.
        partial: file that holds what was done so far; empty where a run begins anew.
    """

    arguments: str
    exact: tuple[str, ...] = ()
    partial: str = ""


COMMANDS = {
    "train": Killed(
        "train --data ../images.npz --epochs 6 --batch 70 --threads 1 --out s.safetensors",
        ("s.safetensors",),
        "s.checkpoint",
    ),
    "sample": Killed(
        "sample --number 12 --jobs 1 --data ../images.npz --weights ../w.safetensors --out s.csv",
        ("s.csv",),
        "s.partial",
    ),
    "build-lut": Killed("build-lut --resolutions 16 --rounds 3 --out t.csv", (), "t.partial"),
    "search --verify": Killed(
        "search --latency 50% --verify 1 --lut ../t.csv --objective macs --generations 5 --out r.json",
        (),
        "r.json.partial",
    ),
    "export": Killed(
        f"export --arch {SMALL} --data ../images.npz --weights ../w.safetensors --out m.safetensors", ("m.safetensors",)
    ),
    "export --finetune-epochs": Killed(
        f"export --arch {SMALL} --data ../images.npz --weights ../w.safetensors --finetune-epochs 4 "
        "--out f.safetensors",
        ("f.safetensors",),
        "f.finetune",
    ),
}


def started(arguments: str, folder: Path) -> int:
    """The command in a forked process; what it says goes to the file `said` outside of the folder."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        said = os.open(folder.parent / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        torch.set_num_threads(1)
        sys.argv = ["ofa-deploy", *arguments.split()]
        command_line()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def runs(child: int) -> bool:
    """Whether a process has not ended; it is left to be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def ended(child: int) -> int:
    """Exit code of a process."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def progress_of(job: Killed, work: Path) -> int:
    """How much of a command's work is on disk: lines that were appended, or 1 for a file that is replaced."""
    if not job.partial or not (work / job.partial).exists():
        return 0
    return (work / job.partial).read_bytes().count(b"\n") - 1 if job.partial.endswith(".partial") else 1


def renew(folder: Path) -> None:
    """Make a folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def contents_of(folder: Path) -> dict[str, bytes]:
    """Content of each file of a folder, by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def undisturbed(name: str, folder: Path) -> tuple[float, dict[str, bytes]]:
    """Seconds that a command takes when nobody kills it, and the files that it leaves."""
    work = folder / "work"
    renew(work)
    start = time.perf_counter()
    if (code := ended(started(COMMANDS[name].arguments, work))) not in WORKED:
        raise SystemExit(f"{name} ended with {code}: {(folder / 'said').read_text()}")
    return time.perf_counter() - start, contents_of(work)


def kill_once(job: Killed, work: Path, seconds: float | None) -> tuple[float, bool]:
    """Start a command and kill it after some seconds, or (None) as soon as something of its work is on disk.

    Returns:
        after how many seconds it was killed or had ended, and whether it was still running.
    """
    child, start = started(job.arguments, work), time.perf_counter()
    while runs(child):
        left = 0.01 if seconds is None else start + seconds - time.perf_counter()
        if left <= 0 or (seconds is None and progress_of(job, work)):
            break
        time.sleep(min(left, 0.01))
    moment = time.perf_counter() - start
    os.kill(child, signal.SIGKILL)
    return moment, ended(child) == -signal.SIGKILL


def kill(name: str, folder: Path, kills: int, *, seed: int, in_a_row: bool) -> Iterator[dict[str, Any]]:
    """Kill a command at random moments; a row a kill."""
    job, work = COMMANDS[name], folder / "work"
    length, expected = undisturbed(name, folder)
    rng = random.Random(f"{name} {seed}")
    latest = 0.7 * length if in_a_row and job.partial else length  # what goes on has less to do than at first
    rows: list[dict[str, Any]] = []  # of the run that is being killed
    for number in range(kills):
        if not rows:
            renew(work)
        drawn, before = rng.uniform(0, latest), progress_of(job, work)
        waits = in_a_row and job.partial and number == 1  # a random moment may come before anything is on disk
        moment, was_killed = kill_once(job, work, None if waits else drawn)
        if not was_killed:  # the machine has become quicker: later moments would be too late as well
            latest = min(latest, 0.7 * moment)
        kept = progress_of(job, work)
        row = {"command": name, "kill": number, "share_percent": round(100 * moment / length, 1), "killed": was_killed}
        rows.append(row | {"kept": kept > 0, "resumed": kept >= before or not was_killed})
        if in_a_row and was_killed and number + 1 < kills:
            continue
        code = ended(started(job.arguments, work))
        rows[-1]["resumed"] &= not kept or "resuming" in (folder / "said").read_text()
        files = contents_of(work) if code in WORKED else {}
        end = {
            "ended": code in WORKED,
            "outputs_whole": code in WORKED and set(expected) <= set(files),
            "nothing_left_over": set(files) <= set(expected),
            "identical": all(files.get(file) == expected[file] for file in job.exact),
        }
        yield from (row | end for row in rows)
        rows.clear()


# -- damage


@dataclass(frozen=True)
class Kind:
    """A kind of file that users load.

    Attributes:
        make: writes the files into a folder.
        load: what they hold, as something that can be compared.
        checked: whether they carry checksums, so that other values are a violation.
        grows: whether a prefix of what they hold is as good, as for results that are appended.
    """

    make: Callable[[Path], None]
    load: Callable[[Path], Any]
    checked: bool = True
    grows: bool = False


def state_of(state: Mapping[str, torch.Tensor]) -> list[Any]:
    """Tensors as something that can be compared."""
    return [[name, str(value.dtype), value.tolist()] for name, value in sorted(state.items())]


def small_table(folder: Path) -> LatencyTable:
    path = folder / "t.csv"
    build_table(
        TableJob(SPACE, (16, 20), plan=MeasurePlan(rounds=1, runs=3, seconds=0.002, networks=10)), "cpu", out=path
    )
    return LatencyTable.load(path, SPACE)


def table_values(folder: Path) -> Any:
    table = LatencyTable.load(folder / "t.csv", SPACE)
    return [
        np.nan_to_num(table.latency_ms(GENES)).tolist(),
        dict(table.error),
        dict(table.conditions),
        table.resolutions,
    ]


def make_table(folder: Path) -> None:
    small_table(folder)


def make_supernet(folder: Path) -> None:
    checkpoint.save(folder / "w.safetensors", Supernet(SPACE).initialise(0), {})


def make_partial(folder: Path) -> None:
    from ofa_deploy.latency import build as building

    original = building.TableJob.table
    try:
        building.TableJob.table = interrupted  # type: ignore[method-assign, assignment]
        with contextlib.suppress(KeyboardInterrupt):
            small_table(folder)
    finally:
        building.TableJob.table = original  # type: ignore[method-assign]


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def visits(folder: Path) -> Any:
    path = folder / "t.partial"
    header = json.loads(path.with_suffix(".header").read_text())
    return sorted([*key, *vars(visit).values()] for key, visit in read(journals.resume(path, header), path).items())


def make_samples(folder: Path) -> None:
    Samples(SPACE, GENES, np.linspace(80, 90, len(GENES))).save(folder / "s.csv", {})


def samples_values(folder: Path) -> Any:
    samples = Samples.load(folder / "s.csv", SPACE)
    return [samples.genes.tolist(), samples.top1_percent.tolist()]


def make_shards(folder: Path) -> None:
    (folder / "s.header").write_text('{"about": "a run"}')
    shards = Shards(folder / "s.partial", {"about": "a run"})
    for index in range(8):
        shards.add(
            index, SPACE.archs(GENES[5 * index : 5 * index + 5]), counts=[index * 10 + i for i in range(5)], seconds=0.5
        )


def shards_values(folder: Path) -> Any:
    shards = Shards(folder / "s.partial", json.loads((folder / "s.header").read_text()))
    return sorted([index, *counts] for index, counts in shards.counts.items())


def make_predictor(folder: Path) -> None:
    samples = Samples(SPACE, GENES, 80 + 1e-6 * SPACE.macs(GENES))
    fit_predictor([samples], "ridge", jobs=1).predictor.save(folder / "p.safetensors", {})


def predictor_values(folder: Path) -> Any:
    return [part.tolist() for part in Predictor.load(folder / "p.safetensors", SPACE).predict(GENES, return_std=True)]


def make_result(folder: Path) -> None:
    table = small_table(folder)
    problem = Problem(SPACE, [latency_limit(table, "50%", margin_percent=5.0)])
    quick, short = SearchSettings(population=8, restarts=1, recombinations=1), Stopping(generations=3)
    write_results([find_network(problem, quick, stopping=short, front=True)], folder / "r.json")
    for name in ("t.csv", "t.json"):
        (folder / name).unlink()


def make_subnet(folder: Path) -> None:
    net = Supernet(SPACE).initialise(0).subnet(SPACE.extreme(largest=False, resolution=16))
    (folder / "m.safetensors").write_bytes(checkpoint.subnet_content(net, {"mean": "0.5"}))


def make_training_state(folder: Path) -> None:
    state = {f"net.{name}": value for name, value in list(Supernet(SPACE).initialise(0).state_dict().items())[:40]}
    (folder / "s.checkpoint").write_bytes(checkpoint.content(state, {"ofa_deploy": json.dumps({"epoch": 3})}))


def training_state(folder: Path) -> Any:
    path = folder / "s.checkpoint"
    state, notes = checkpoint.parse(atomic.read(path), path)
    return [state_of(state), notes]


def make_pack(folder: Path) -> None:
    make_inputs(folder)
    pack(load_data(str(folder / "images.npz"), SPACE), folder / "p.npz", SPACE.name)
    for name in ("images.npz", "w.safetensors", "w.json"):
        (folder / name).unlink()


def images_values(name: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        data = load_data(str(folder / name), SPACE)
        return [data.sha256(), data.mean, data.std, data.classes]

    return load


def make_images(folder: Path) -> None:
    make_inputs(folder)
    (folder / "w.safetensors").unlink()
    (folder / "w.json").unlink()


def make_lists(folder: Path) -> None:
    archs = SPACE.archs(GENES[:10])
    (folder / "a.json").write_text(json.dumps([to_ofa(SPACE, arch) for arch in archs]))
    (folder / "a.csv").write_text("arch,note\n" + "".join(f"{arch},1\n" for arch in archs))


def lists_values(folder: Path) -> Any:
    return [list(map(str, arch_lists.read(folder / name, SPACE)[0])) for name in ("a.json", "a.csv")]


def make_pth(folder: Path) -> None:
    net = Supernet(get_space("mbv3-w1.0")).initialise(0)
    torch.save({"state_dict": dict(list(net.state_dict().items())[:30])}, folder / "w.pth")


def pth_values(folder: Path) -> Any:
    number = len(tensors(folder / "w.pth"))
    for convert in (
        lambda: convert_weights(folder / "w.pth", out=folder / "out.safetensors"),
        lambda: convert_predictor(folder / "w.pth", get_space("mbv3-w1.2"), folder / "out.safetensors"),
    ):
        with contextlib.suppress(OfaDeployError):
            convert()
    return number


KINDS = {
    "latency table": Kind(make_table, table_values),
    "latency table, partial": Kind(make_partial, visits, grows=True),
    "samples": Kind(make_samples, samples_values),
    "samples, partial": Kind(make_shards, shards_values, grows=True),
    "predictor": Kind(make_predictor, predictor_values),
    "supernet": Kind(
        make_supernet,
        lambda folder: checksum(checkpoint.load_supernet(folder / "w.safetensors", SPACE).state_dict()),
    ),
    "training state": Kind(make_training_state, training_state),
    "search result": Kind(make_result, lambda folder: [result.to_json() for result in load_results(folder / "r.json")]),
    "exported subnetwork": Kind(
        make_subnet, lambda folder: state_of(checkpoint.load_subnet(folder / "m.safetensors").state_dict())
    ),
    "packed images": Kind(make_pack, images_values("p.npz")),
    "a user's images": Kind(make_images, images_values("images.npz"), checked=False),
    "lists of architectures": Kind(make_lists, lists_values, checked=False),
    "official weights": Kind(make_pth, pth_values, checked=False),
}
"""What is damaged."""


def checksum(state: Mapping[str, torch.Tensor]) -> int:
    return hash(tuple((name, value.numpy().tobytes()) for name, value in sorted(state.items())))


def mutated(content: bytes, name: str, others: Sequence[bytes], rng: random.Random) -> tuple[str, bytes]:
    """What was done to a file's content, and the content after."""
    ways: dict[str, Callable[[], bytes]] = {
        "truncated": lambda: content[: rng.randrange(len(content))],
        "bit flipped": lambda: flipped(content, rng),
        "overwritten": lambda: overwritten(content, rng),
        "cut out": lambda: cut(content, rng),
        "of another kind": lambda: rng.choice(others),
        "grown": lambda: content + rng.randbytes(rng.randrange(1, 100)),
    }
    if name.endswith(".json") and content.lstrip()[:1] in (b"{", b"["):
        ways |= {f"JSON {i}": lambda: edited(content, rng) for i in range(4)}
    way = rng.choice(list(ways))
    return way.split(" ")[0] if way.startswith("JSON") else way, ways[way]()


def flipped(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content)
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwritten(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    garbage = rng.choice([b"\xff" * 8, b"\x00" * 8, b"\x7f\xff\xff\xff", b"999999999999", b"NaN", b"-1", b'"', b"\n"])
    return content[:start] + garbage + content[start + len(garbage) :]


def cut(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 200) :]


def edited(content: bytes, rng: random.Random) -> bytes:
    """A JSON value replaced, removed or retyped."""
    value = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []:
            places.append((node, key))
            walk(node[key])

    walk(value)
    node, key = rng.choice(places)
    if rng.random() < 0.25:
        del node[key]
    else:
        strange = [None, -1, 0, 1e308, 10**30, "x", "", [], {}, True, [[]], "mbv3-w1.0", 2, float("nan"), float("inf")]
        node[key] = rng.choice(strange)
    return json.dumps(value).encode()


def damage(name: str, mutations: int, seed: int) -> list[dict[str, Any]]:
    """Rows of what came of each mutation, from a process of its own with little memory."""
    with tempfile.TemporaryDirectory() as name_of_folder:
        original = Path(name_of_folder)
        KINDS[name].make(original)
        if (partial := original / "t.partial").exists():
            partial.with_suffix(".header").write_text(partial.read_text().split("\n", 1)[0])
        out = original.parent / f"{original.name}.rows"
        child = os.fork()
        if not child:
            try:
                resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + MEMORY, resource.RLIM_INFINITY))
                rows = damaged(name, original, mutations, seed)
                out.write_text(json.dumps(rows))
            finally:
                os._exit(0)
        code = ended(child)
        if not out.exists():
            return [{"kind": name, "file": "", "way": "", "outcome": f"the process ended with {code}"}]
        rows = json.loads(out.read_text())
        out.unlink()
        return list(rows)


def virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def damaged(name: str, original: Path, mutations: int, seed: int) -> list[dict[str, Any]]:
    kind, rng = KINDS[name], random.Random(f"{name} {seed}")
    expected = kind.load(original)
    files = sorted(path for path in original.iterdir() if path.suffix != ".header")
    contents = {path.name: path.read_bytes() for path in files}
    others = [b"", b"{}", b"[]", b"\x80\x04.", b"a,b\n1,2\n", *contents.values()]
    rows = []
    for _ in range(mutations):
        with tempfile.TemporaryDirectory() as copied:
            folder = Path(copied)
            for path in original.iterdir():
                shutil.copy(path, folder)
            file = rng.choice(list(contents))
            way, content = mutated(contents[file], file, others, rng)
            (folder / file).write_bytes(content)
            rows.append({"kind": name, "file": file, "way": way, "outcome": outcome(kind, folder, expected)})
    return rows


def outcome(kind: Kind, folder: Path, expected: Any) -> str:
    """`refused`, `harmless`, or what is wrong."""
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        values = kind.load(folder)
    except OfaDeployError as error:
        lines = str(error).strip().splitlines()
        return "refused" if len(lines) == 1 else f"an error of {len(lines)} lines"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:150]
    finally:
        signal.alarm(0)
    part = kind.grows and all(value in expected for value in values)
    same = values == expected or part or not kind.checked
    return "harmless" if same else "other values"


def too_long(*_: object) -> None:
    raise TimeoutError(f"it took longer than {SECONDS} s")


# -- both


def run(
    commands: Sequence[str], results: Path, *, kills: int, in_a_row: bool, mutations: int, seed: int, images: int
) -> None:
    torch.set_num_threads(1)
    if mutations:
        rows: list[dict[str, Any]] = []
        for name in KINDS:
            rows += damage(name, mutations, seed)
            logger.info(f"{name}: {dict(Counter(row['outcome'] for row in rows if row['kind'] == name))}")
        numbers = pd.DataFrame(rows).groupby(["kind", "way", "outcome"], sort=False).size().rename("number")
        write_table(result_path("faults", "damage", folder=results), numbers.reset_index())
    if kills:
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            work = partial(killed_often, kills=kills, in_a_row=in_a_row, seed=seed, images=images)
            tables = list(pool.map(work, commands))
        path = result_path("faults", "kills", folder=results)
        if path.exists():
            before = pd.read_csv(path)
            tables.insert(0, before[~before.command.isin(commands)])
        write_table(path, pd.concat(tables))


def killed_often(name: str, *, kills: int, in_a_row: bool, seed: int, images: int) -> pd.DataFrame:
    """A row for each kill of a command."""
    comparison.DEFAULT_PLAN = comparison.ComparisonPlan(rounds=4, pause_seconds=0.0, passes=1)
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        make_inputs(folder, images)
        if "--verify" in name:
            build_table(TableJob(SPACE, (16,), plan=MeasurePlan(rounds=2)), "cpu", out=folder / "t.csv")
        progress, rows = Progress(kills, f"kills of {name}", seconds=30), []
        for row in kill(name, folder, kills, seed=seed, in_a_row=in_a_row):
            rows.append(row)
            progress.add()
    return pd.DataFrame(rows)


def show(results: Path) -> None:
    """Print what `run` wrote."""
    for name, print_ in (("faults_kills.csv", show_kills), ("faults_damage.csv", show_damage)):
        if (results / name).exists():
            print_(pd.read_csv(results / name))
    print("\nkept: something was on disk when it was killed; resumed: it was taken up. refused: one error of one line;")
    print("harmless: the same values (for files without a checksum: any). Run again with: python benchmarks/faults.py")


def show_kills(kills: pd.DataFrame) -> None:
    columns = ["killed", "kept", "resumed", "ended", "outputs_whole", "nothing_left_over", "identical"]
    print("Commands killed at random moments and repeated (numbers of kills):")
    table = kills.groupby("command", sort=False)[columns].sum().astype(int)
    table.insert(0, "kills", kills.groupby("command", sort=False).size())
    print(table.to_string())


def show_damage(damage: pd.DataFrame) -> None:
    outcomes = damage.outcome.where(damage.outcome.isin(["refused", "harmless"]), "violations")
    table = damage.assign(outcome=outcomes).pivot_table(
        index="kind", columns="outcome", values="number", aggfunc="sum", fill_value=0, sort=False
    )
    for column in ("refused", "harmless", "violations"):
        if column not in table:
            table[column] = 0
    table.insert(0, "mutations", table.sum(axis=1))
    print("\nFiles damaged at random:")
    print(table[["mutations", "refused", "harmless", "violations"]].astype(int).to_string())


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--command",
        action="append",
        choices=list(COMMANDS),
        help="that is killed, the rows of others stay; default: all",
    )
    parser.add_argument("--kills", type=int, default=50, help="of each command; 0 kills none")
    parser.add_argument("--in-a-row", action="store_true", help="kill one run as often, instead of as many runs once")
    parser.add_argument("--mutations", type=int, default=1000, help="of each kind of file; 0 damages none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=IMAGES, help="that commands which are killed work on")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    if not arguments.show:
        run(
            arguments.command or list(COMMANDS),
            arguments.out,
            kills=arguments.kills,
            in_a_row=arguments.in_a_row,
            mutations=arguments.mutations,
            seed=arguments.seed,
            images=arguments.images,
        )
    show(arguments.out)


if __name__ == "__main__":
    run_telling(main)
