"""The run that measures: a kill loses nothing, damage is found, workers agree, and it knows when to stop."""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ofa_deploy.accuracy import groups, sampling
from ofa_deploy.accuracy.designs import draw
from ofa_deploy.accuracy.measure import classified
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.accuracy.sampling import SamplingPlan
from ofa_deploy.accuracy.workers import Workers
from ofa_deploy.data.dataset import RECALIBRATION, Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import atomic
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from tests.conftest import Run, killed

ONE = Workers(1)
THREE = SamplingPlan(3, seed=0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fewer images than other tests have: 84 for recalibration, 16 held out."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("images") / "few.npz"
    np.savez(path, images=rng.integers(0, 256, (100, 28, 28), np.uint8), labels=np.arange(100) % 10)
    return path


@pytest.fixture(scope="module")
def dataset(images: Path, space: SearchSpace) -> Dataset:
    return load_data(str(images), space)


@pytest.fixture
def command(weights: Path, images: Path) -> list[str]:
    options = f"--number 12 --seed 4 --jobs 1 --data {images} --weights {weights}"
    return [sys.executable, "-m", "ofa_deploy", "sample", *options.split(), "--out"]


def test_killed_run_resumes_to_the_same_file(command: list[str], tmp_path: Path) -> None:
    """Of the trie design; test_faults.py kills the other."""
    command = [word if word != "12" else "120" for word in command]
    command = [*command[:-1], "--design", "trie", "--out"]
    partial = tmp_path / "killed.partial"
    killed([*command, "killed.csv"], tmp_path, partial, 2)
    with partial.open("a") as file:
        file.write("[3, [1, 2")  # a line torn by the kill
    again = subprocess.run([*command, "killed.csv"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming: " in again.stderr
    two = [word if word != "1" else "2" for word in command]  # two processes measure the same
    subprocess.run([*two, "whole.csv"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"killed.csv", "killed.json", "whole.csv", "whole.json"}


def test_results_of_other_networks_are_not_taken(
    weights: Path, images: Path, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.csv"
    options = {"plan": THREE, "data": str(images), "workers": ONE, "out": out}
    measured = functools.partial(sampling.sample_accuracies, weights, space, **options)
    monkeypatch.setattr(sampling.Samples, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        measured()
    monkeypatch.undo()
    monkeypatch.setattr(
        sampling, "draw", lambda space, design, number, seed: draw(space, design, number=number, seed=seed + 1)
    )
    with pytest.raises(ArtifactError, match=r"s\.partial is of other networks"):
        measured()


def test_flipped_byte_is_found(weights: Path, images: Path, space: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    options = {"plan": THREE, "data": str(images), "workers": ONE, "out": out}
    measured = functools.partial(sampling.sample_accuracies, weights, space, **options)
    original = sampling.Samples.save
    try:  # as if it were killed after the last group
        sampling.Samples.save = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            measured()
    finally:
        sampling.Samples.save = original  # type: ignore[method-assign]
    partial = out.with_suffix(".partial")
    good = partial.read_text()
    line = good.splitlines()[1]
    digit = next(c for c in line.split("[")[2] if c.isdigit())
    partial.write_text(good.replace(line, line.replace(f"[{digit}", f"[{(int(digit) + 1) % 10}", 1)))
    with pytest.raises(ArtifactError, match=r"s\.partial is damaged"):
        measured()
    partial.write_text(good)
    assert len(measured()) == 3


def test_samples_that_are_there_are_not_replaced(
    weights: Path, images: Path, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """They may have taken days; repeating what was finished measures nothing."""
    out = tmp_path / "s.csv"
    made = sampling.sample_accuracies(weights, space, plan=THREE, data=str(images), workers=ONE, out=out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(groups, "classified", lambda *_, **__: pytest.fail("it measured again"))
    again = sampling.sample_accuracies(weights, space, plan=THREE, data=str(images), workers=ONE, out=out)
    assert again.top1_percent.tolist() == made.top1_percent.tolist()
    assert "is there already, made like this" in lines[0]
    for number, seed, what in ((4, 0, "number"), (3, 1, "seed")):
        with pytest.raises(ArtifactError, match=rf"made otherwise \(.*{what}.*\); remove it"):
            sampling.sample_accuracies(
                weights, space, plan=SamplingPlan(number, seed), data=str(images), workers=ONE, out=out
            )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    out.with_suffix(".json").unlink()
    with pytest.raises(ArtifactError, match="of somebody else's making"):
        sampling.sample_accuracies(weights, space, plan=THREE, data=str(images), workers=ONE, out=out)


def test_batch_bounds_the_images_that_are_run_at_once(
    weights: Path, images: Path, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor, sizes = Dataset.tensor, []

    def recorded(self: Dataset, pixels: np.ndarray, resolution: int) -> Tensor:
        sizes.append(len(pixels))
        return tensor(self, pixels, resolution)

    monkeypatch.setattr(Dataset, "tensor", recorded)
    found = []
    for batch, largest in ((None, 16), (3, 3)):
        sizes.clear()
        out = tmp_path / f"{batch}.csv"
        found.append(
            sampling.sample_accuracies(
                weights, space, plan=THREE, data=str(images), workers=ONE, out=out, batch=batch
            ).top1_percent
        )
        assert max(size for size in sizes if size != 84) == largest  # 84 are for recalibration
    assert (found[0] == found[1]).all()


def test_two_runs_on_one_output_refuse_each_other(
    weights: Path, images: Path, space: SearchSpace, tmp_path: Path
) -> None:
    out = tmp_path / "s.csv"
    with atomic.locked(out):
        with pytest.raises(ArtifactError, match=r"another run is writing .*s\.csv"):
            sampling.sample_accuracies(weights, space, plan=THREE, data=str(images), workers=ONE, out=out)
        assert not out.with_suffix(".partial").exists()
    assert len(sampling.sample_accuracies(weights, space, plan=THREE, data=str(images), workers=ONE, out=out)) == 3


def test_what_lies_there_must_be_of_this_run(weights: Path, images: Path, space: SearchSpace, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    out.with_suffix(".partial").write_text('{"another": "run"}\n')
    with pytest.raises(ArtifactError, match="other options"):
        sampling.sample_accuracies(weights, space, plan=THREE, data=str(images), workers=ONE, out=out)
    with pytest.raises(OfaDeployError, match="at least 1"):
        SamplingPlan(0)


def test_samples_round_trip(space: SearchSpace, tmp_path: Path) -> None:
    genes = space.sample(np.random.default_rng(0), 5)
    Samples(space, genes, np.array([90.01, 91, 92.5, 10, 100.0])).save(tmp_path / "s.csv", {})
    again = Samples.load(tmp_path / "s.csv", space)
    assert (again.genes == genes).all()
    assert again.top1_percent.tolist() == [90.01, 91, 92.5, 10, 100.0]


@pytest.mark.parametrize("percent", [[101.0], [np.nan], [-1.0]])
def test_what_is_no_accuracy_is_refused(space: SearchSpace, tmp_path: Path, percent: list[float]) -> None:
    Samples(space, space.genes([space.extreme(largest=True)]), np.array(percent)).save(tmp_path / "s.csv", {})
    with pytest.raises(ArtifactError, match="an accuracy is 0 to 100"):
        Samples.load(tmp_path / "s.csv", space)


def test_noise_of_the_labels_is_measured(
    weights: Path, images: Path, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "FEWEST_FOR_NOISE", 12)
    monkeypatch.setattr(sampling, "NOISE_NETWORKS", 6)
    plan, out = SamplingPlan(12, seed=0), tmp_path / "s.csv"
    sampling.sample_accuracies(weights, space, plan=plan, data=str(images), workers=ONE, out=out)
    noise = Samples.load(out, space).label_noise
    assert noise["networks"] == 6


def test_noise_is_what_the_images_leave_open(weights: Path, images: Path, space: SearchSpace, dataset: Dataset) -> None:
    checksum = dataset.sha256(RECALIBRATION)
    inputs = groups.Inputs(str(weights), atomic.sha256(weights), "fmnist", str(images), checksum)
    archs = space.archs(space.sample(np.random.default_rng(3), 6, [16, 28]))
    first, again, other = (groups.label_noise(inputs, archs, seed=seed, workers=ONE) for seed in (0, 0, 1))
    assert first == again
    assert first != other, "another draw of images for recalibration"
    net = checkpoint.load_supernet(weights, space)
    hits = np.concatenate([classified(net, [arch], data=dataset) for arch in archs]).astype(float)
    redrawn = np.concatenate([classified(net, [arch], data=dataset, bootstrap_seed=0) for arch in archs]).astype(float)
    images_of = len(dataset.heldout)
    apart = [np.mean((h - hits.mean(0) - np.mean(h - hits.mean(0))) ** 2) for h in hits]
    assert first["heldout_points"] == pytest.approx(100 * np.sqrt(np.mean(apart) / images_of), abs=1e-3)
    change = redrawn.mean(1) - hits.mean(1)
    assert first["recalibration_points"] == pytest.approx(100 * np.sqrt(np.mean(change**2)), abs=1e-3)


def test_it_stops_when_more_no_longer_help(
    weights: Path, images: Path, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "FIRST_BATCH", 24)

    def run(name: str, number: int) -> tuple[Samples, dict[str, object]]:
        out = tmp_path / name
        found = sampling.sample_accuracies(
            weights, space, plan=SamplingPlan(number, until_flat=True), data=str(images), workers=ONE, out=out
        )
        return found, json.loads(out.with_suffix(".json").read_text())

    found, about = run("s.csv", 400)  # an untrained network's accuracies are noise: nothing can be learned
    curve = about["learning_curve"]
    assert len(found) == about["number"] == curve[-1]["samples"]
    assert len(found) < 400
    assert [one["samples"] for one in curve] == [48, 96, 192, 384][: len(curve)]
    assert all(one["with_them"] <= 0.97 * one["without_them"] for one in curve[:-1])
    assert curve[-1]["with_them"] > 0.97 * curve[-1]["without_them"]
    archs = space.archs(found.genes)
    assert len(set(archs)) == len(found)
    for batch in (archs[:24], archs[24:48]):
        assert {arch.resolution for arch in batch} == set(space.resolutions)
    assert len(run("few.csv", 20)[0]) == 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Address of a Dask scheduler on this machine, and its two workers."""
    pytest.importorskip("distributed")
    place = tmp_path / "cluster"
    place.mkdir()
    file = place / "scheduler.json"
    start = [sys.executable, "-m", "dask"]
    options = ["--scheduler-file", str(file), "--no-dashboard"]
    with (place / "log").open("w") as log:
        started = [
            subprocess.Popen(
                [*start, "scheduler", "--host", "127.0.0.1", "--port", "0", *options], stdout=log, stderr=log, cwd=place
            )
        ]
        worker = ["worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", *options]
        started += [subprocess.Popen([*start, *worker], stdout=log, stderr=log, cwd=place) for _ in range(2)]
        try:
            for _ in range(600):
                if "Starting established connection" in (place / "log").read_text() and file.exists():
                    break
                time.sleep(0.1)
            yield json.loads(file.read_text())["address"], started[1:]
        finally:
            for process in started:
                process.kill()
                process.wait()


def test_a_cluster_that_loses_a_worker_gives_the_same_file(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], command: list[str], tmp_path: Path
) -> None:
    address, workers = cluster
    command = [word if word != "12" else "66" for word in command]
    on_cluster = [*command[:-1], "--backend", "dask", "--address", address, "--out"]
    process = subprocess.Popen([*on_cluster, "cluster.csv"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "cluster.partial"
    while not partial.exists() or partial.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    workers[0].kill()
    number_of_groups = len(draw(get_space("fmnist"), "uniform", number=66, seed=4))
    assert partial.read_bytes().count(b"\n") < 1 + number_of_groups, "it should be killed in the middle"
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    subprocess.run([*command, "here.csv"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "cluster.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--backend spark", "unknown backend 'spark'; choose one of loky, dask, ray"),
        ("--address tcp://127.0.0.1:1", "add --backend dask or --backend ray"),
        ("--backend dask", "needs the scheduler's --address"),
        ("--backend ray --address 127.0.0.1:1", "Ray"),
        ("--backend dask --address tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_a_cluster_that_is_not_there(
    ofa: Run, weights: Path, images: Path, tmp_path: Path, options: str, words: str
) -> None:
    done = ofa("sample", "--number", 4, "--weights", weights, "--data", images, *options.split(), "--out", "s.csv")
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("s.*"))
