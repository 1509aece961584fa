"""Images: every form, the split, and what is refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ofa_deploy.data import fashion_mnist
from ofa_deploy.data.dataset import Dataset
from ofa_deploy.data.loading import load_data
from ofa_deploy.data.packing import pack, pack_name
from ofa_deploy.errors import ArtifactError, DataError
from ofa_deploy.files import json_text
from ofa_deploy.spaces.families import get_space
from ofa_deploy.spaces.space import SearchSpace

full = pytest.mark.skipif(
    not fashion_mnist.DEBIAN_FOLDER.exists(), reason="needs all of Fashion-MNIST: apt-get install dataset-fashion-mnist"
)


def test_shipped_images(space: SearchSpace) -> None:
    data = load_data(None, space)
    assert data.test is not None
    assert [len(part) for part in (data.train, data.heldout, data.test)] == [2_000, 10_000, 10_000]
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert not data.complete


@full
def test_shipped_images_are_those_of_the_full_split(space: SearchSpace) -> None:
    packed, whole = load_data(None, space), load_data(str(fashion_mnist.DEBIAN_FOLDER), space)
    assert (len(whole.train), len(whole.heldout)) == (50_000, 10_000)
    assert (packed.heldout.pixels == whole.heldout.pixels).all()
    assert (packed.heldout.labels == whole.heldout.labels).all()
    assert (packed.train.pixels == whole.train.pixels[:2000]).all()
    assert (packed.mean, packed.std) == (whole.mean, whole.std)


@full
def test_damaged_file_is_named(space: SearchSpace, tmp_path: Path) -> None:
    for file in fashion_mnist.DEBIAN_FOLDER.glob("*.gz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="t10k-labels"):
        load_data(str(tmp_path), space)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels"):
        load_data(str(tmp_path), space)


def test_what_pack_wrote_is_loaded(images: Path, dataset: Dataset, space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    pack(dataset, path, space.name)
    packed = load_data(str(path), space)
    assert packed.sha256() == dataset.sha256()
    assert packed.test is not None
    assert len(packed.test) == 40
    assert (packed.mean, packed.std, packed.classes) == (dataset.mean, dataset.std, dataset.classes)
    with pytest.raises(DataError, match="all images are needed here"):
        load_data(str(path), space, training=True)
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(json_text.sealed({k: about[k] for k in about if k != "mean"})))
    with pytest.raises(DataError, match="lacks mean"):
        load_data(str(path), space)


def test_images_packed_for_a_space_are_found(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = get_space("fmnist-11classes")
    with np.load(images) as content:
        arrays = dict(content)
    arrays["labels"][0] = 10
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ArtifactError, match="ofa-deploy pack-data"):
        load_data(None, own)
    pack(load_data("own.npz", own), Path("supernets") / pack_name(own), own.name)
    assert load_data(None, own).name == "own"


def test_split_is_disjoint_and_fixed(dataset: Dataset, images: Path, space: SearchSpace) -> None:
    assert (len(dataset.train), len(dataset.heldout)) == (350, 70)
    rows = {p.tobytes() for p in dataset.train.pixels}
    assert not rows & {p.tobytes() for p in dataset.heldout.pixels}
    again = load_data(str(images), space)
    assert (again.heldout.pixels == dataset.heldout.pixels).all()
    assert dataset.mean[0] == pytest.approx(dataset.train.pixels.mean() / 255, abs=1e-6)


def test_network_input(dataset: Dataset) -> None:
    pixels = dataset.heldout.pixels[:3]
    same = dataset.tensor(pixels, 28)
    expected = (pixels / 255 - dataset.mean[0]) / dataset.std[0]
    assert np.abs(same.numpy() - expected).max() < 1e-5
    half = dataset.tensor(np.full((1, 1, 28, 28), 255, np.uint8), 14)
    assert half.shape == (1, 1, 14, 14)
    assert torch.allclose(half, torch.tensor((1 - dataset.mean[0]) / dataset.std[0], dtype=torch.float32), atol=1e-5)


def test_recalibration_batches(dataset: Dataset) -> None:
    assert [len(batch) for batch in dataset.recalibration(16)] == [200, 150]


def picture(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (colour, colour, colour)).save(path)


def test_folders_of_images_by_class(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        for i in range(40):
            picture(tmp_path / "train" / name / f"{i}.png", 50 + 100 * label)
        picture(tmp_path / "test" / name / "0.jpg", 50 + 100 * label)
    for other in (".git", "__MACOSX"):
        (tmp_path / "train" / other).mkdir()
    data = load_data(str(tmp_path), get_space("fmnist-2classes"))
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    assert data.train.pixels.shape[1:] == (1, 28, 28)
    assert {(int(p.mean()), int(label)) for p, label in zip(data.train.pixels, data.train.labels, strict=True)} == {
        (50, 0),
        (150, 1),
    }
    with pytest.raises(DataError, match="fmnist-2classes"):
        load_data(str(tmp_path), get_space("fmnist"))
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png"):
        load_data(str(tmp_path), get_space("fmnist-2classes"))


def test_colour_images_for_a_colour_space(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(30):
            picture(tmp_path / name / f"{i}.png", i)
    data = load_data(str(tmp_path), get_space("mbv3-w1.0-2classes"))
    assert data.train.pixels.shape[1:] == (3, 224, 224)
    assert data.test is None


def arrays(**changes: object) -> dict[str, object]:
    fine = {"images": np.zeros((80, 28, 28), np.uint8), "labels": np.arange(80) % 10}
    return {key: value for key, value in (fine | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (arrays(labels=None), "needs the arrays"),
        (arrays(images=np.zeros((80, 28, 28))), "uint8"),
        (arrays(labels=np.arange(79)), "80 whole numbers"),
        (arrays(labels=np.arange(80) - 1), "negative"),
        (arrays(labels=np.zeros(80, int)), "1 classes"),
        (arrays(images=np.zeros((20, 28, 28), np.uint8), labels=np.arange(20) % 10), "20 training images"),
        (arrays(images=np.array([{}, 1], dtype=object)), "plain arrays"),
        (arrays(classes=np.array(["a", "b"])), "only 2 classes"),
        (arrays(labels=np.arange(80) * 10**12), "up to 99999"),
        (arrays(images=np.zeros((0, 28, 28), np.uint8), labels=np.arange(0)), "1 classes"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, space: SearchSpace, content: dict[str, object], word: str) -> None:
    np.savez(tmp_path / "x.npz", **content)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=word):
        load_data(str(tmp_path / "x.npz"), space)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: None, "no images at"),
        (lambda p: p.mkdir(), "0 class folders"),
        (lambda p: p.write_bytes(b"PK no"), "not an .npz"),
        (lambda p: [(p / name).mkdir(parents=True) for name in "ab"], "has no images"),
    ],
)
def test_bad_places_are_named(tmp_path: Path, space: SearchSpace, make: Callable[[Path], object], word: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(DataError, match=word):
        load_data(str(tmp_path / "x"), space)


@full
def test_download_brings_all_four_files(space: SearchSpace, tmp_path: Path) -> None:
    fashion_mnist.download(tmp_path, f"{fashion_mnist.DEBIAN_FOLDER.as_uri()}/")
    assert len(load_data(str(tmp_path), space, training=True).train) == 50_000


def test_download_without_a_network_says_what_else_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist.download(tmp_path, "http://127.0.0.1:9/")
    assert not list(tmp_path.iterdir())


def test_download_checks_what_it_gets(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in fashion_mnist.FILES:
        (source / f"{name}.gz").write_bytes(gzip.compress(b"another"))
    with pytest.raises(DataError, match="checksum"):
        fashion_mnist.download(tmp_path / "out", f"{source.as_uri()}/")
    assert not list((tmp_path / "out").iterdir())
