"""The command line: each command parses, calls one library function, and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.families import get_space

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=__doc__)

Space = Annotated[str | None, typer.Option(help="Search space; default: $OFA_DEPLOY_SPACE, else fmnist.")]
Data = Annotated[str | None, typer.Option(help="fmnist, a folder of images by class, or an .npz file.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Threads = Annotated[int, typer.Option(help="Processor threads.", min=1)]


@app.callback()
def _root() -> None:
    """Search, specialise and deploy once-for-all networks."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@app.command()
def train(
    space: Space = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Weight file; default: supernets/SPACE.safetensors.")] = None,
    largest_epochs: Annotated[int, typer.Option(help="Epochs of the largest network.")] = 12,
    subnet_epochs: Annotated[int, typer.Option(help="Epochs of sampled subnetworks.")] = 20,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    subnets: Annotated[int, typer.Option(help="Subnetworks a step.")] = 2,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.08,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Train a supernet. Killed at any moment, it goes on from its last finished epoch."""
    import torch

    from ofa_deploy.accuracy.data import load
    from ofa_deploy.supernet.checkpoint import file_name
    from ofa_deploy.supernet.train import Recipe
    from ofa_deploy.supernet.train import train as run

    torch.set_num_threads(threads)
    chosen = get_space(space)
    recipe = Recipe(largest_epochs, subnet_epochs, batch, subnets, lr, seed=seed)
    path = out or Path("supernets") / file_name(chosen)
    run(chosen, load(data, chosen, training=True), recipe, path, _say)
    print(path)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        app()
    except OfaDeployError as error:
        print(f"ofa-deploy: {error}", file=sys.stderr)
        sys.exit(2)
