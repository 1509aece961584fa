"""Commands for images and supernets: download, pack, train, convert."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli.options import AsJson, Data, Seed, Space, Threads
from ofa_deploy.errors import ArtifactError
from ofa_deploy.spaces.families import get_space

Licence = Annotated[str | None, typer.Option(help="Of the weights, for the cards of what is exported from them.")]


def download_data(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the four files.")] = Path("fashion-mnist"),
) -> None:
    """Download Fashion-MNIST, checking each file.

    Example: ofa-deploy download-data --out fashion-mnist
    """
    from ofa_deploy.data.fashion_mnist import download

    download(out)
    print(out)


def pack_data(
    *,
    data: Data = None,
    space: Space = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: supernets/SPACE-images.npz.")] = None,
) -> None:
    """Pack the images that measuring and exporting need. Held-out and test images, and 2,000 training images.

    Example: ofa-deploy pack-data --space fmnist-7classes --data photos
    """
    from ofa_deploy.data.loading import load_data
    from ofa_deploy.data.packing import pack, pack_name

    images_space = get_space(space)
    path = out or Path("supernets") / pack_name(images_space)
    if data is not None and Path(data).resolve() == path.resolve():
        raise ArtifactError(f"the pack would overwrite the images {data}; choose another --out")
    pack(load_data(data, images_space, training=True), path, images_space.name)
    print(path)


def train(
    *,
    space: Space = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Weight file; default: supernets/SPACE.safetensors.")] = None,
    recipe: Annotated[str, typer.Option(help="short (for small images), or imagenet (the paper's).")] = "short",
    epochs: Annotated[int | None, typer.Option(help="Epochs in all; default: the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step, over all processes.")] = None,
    lr_factor: Annotated[float, typer.Option(help="Multiplies the recipe's learning rates.")] = 1.0,
    sandwich: Annotated[
        bool, typer.Option("--sandwich", help="Also train the largest and smallest each step.")
    ] = False,
    precision: Annotated[str, typer.Option(help="float32, bf16, or auto: bf16 on GPUs that have it.")] = "auto",
    licence: Licence = None,
    seed: Seed = 0,
    threads: Threads = 2,
    as_json: AsJson = False,
) -> None:
    """Train a supernet by progressive shrinking. Killed at any moment, it goes on from its last finished epoch.

    Several GPUs or machines: torchrun --nproc-per-node N -m ofa_deploy train ...

    Example: ofa-deploy train --space fmnist-7classes --data photos
    """
    import torch

    from ofa_deploy.data.loading import load_data
    from ofa_deploy.supernet.checkpoint import file_name
    from ofa_deploy.supernet.processes import together
    from ofa_deploy.supernet.recipes import get_recipe
    from ofa_deploy.supernet.training import train_supernet

    torch.set_num_threads(threads)
    trained, training = get_space(space), get_recipe(recipe).scaled(epochs, lr_factor)
    images_a_step = training.batch if batch is None else batch
    training = replace(training, batch=images_a_step, sandwich=sandwich, precision=precision, seed=seed)
    path = out or Path("supernets") / file_name(trained)
    with together() as processes:
        images = load_data(data, trained, training=True)
        record = train_supernet(trained, images, recipe=training, out=path, processes=processes, licence=licence)
        if processes.first:
            print(json.dumps({**record, "file": str(path)}) if as_json else path)


def import_weights(
    *,
    file: Annotated[Path, typer.Argument(help="Official once-for-all weights, as torch.save wrote them.")],
    space: Annotated[str | None, typer.Option(help="Search space; default: the one that fits.")] = None,
    out: Annotated[Path | None, typer.Option(help="Weight file; default: supernets/SPACE.safetensors.")] = None,
    licence: Licence = None,
) -> None:
    """Convert official weights (.pth) to safetensors. Nothing that is in the file is run.

    Example: ofa-deploy import-weights ofa_mbv3_d234_e346_k357_w1.0
    """
    from ofa_deploy.supernet.pretrained import convert

    print(convert(file, space=get_space(space) if space else None, out=out, licence=licence))


def weights(
    *,
    space: Annotated[str | None, typer.Argument(help="Whose weights to download; without it they are listed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Weight file; default: supernets/SPACE.safetensors.")] = None,
) -> None:
    """List the official weights, or download and convert them. Cut off, it goes on where it was.

    Example: ofa-deploy weights mbv3-w1.0
    """
    from ofa_deploy.files.downloads import download
    from ofa_deploy.supernet.pretrained import FILES, convert, file_of, output

    if space is None:
        print("\n".join(f"{name:15} {address}" for name, address in FILES.items()))
        return
    address = file_of(space)
    file = output(get_space(space), out).parent / address.rpartition("/")[2]
    download(address, file, hint=f"fetch it elsewhere and run: ofa-deploy import-weights {file.name}")
    print(convert(file, space=get_space(space), out=out, source=address))
    file.unlink()
