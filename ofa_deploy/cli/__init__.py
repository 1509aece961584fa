"""The command line: each command parses, calls one library function, and prints."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ofa_deploy import __version__
from ofa_deploy.cli import accuracy, models, supernets, tables, views
from ofa_deploy.errors import OfaDeployError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Search, specialise and deploy once-for-all networks: one trained network, the best subnetwork for each device."""
    if version:
        print(f"ofa-deploy {__version__}")
        raise typer.Exit


for _command in (
    supernets.download_data, supernets.pack_data, supernets.train, supernets.import_weights, supernets.weights,
    accuracy.sample, accuracy.fit_predictor, accuracy.import_predictor, accuracy.predict,
    models.build_lut, models.search, models.export, models.deploy,
    views.report, views.doctor,
):  # fmt: skip
    app.command()(_command)

app.command("list")(views.list_)
app.add_typer(tables.app, name="lut")


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        app()
    except (OfaDeployError, OSError) as error:
        print(f"ofa-deploy: {error}", file=sys.stderr)
        sys.exit(2)
