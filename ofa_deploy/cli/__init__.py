"""The command line: each command parses, calls one library function, and prints."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer

from ofa_deploy.cli import accuracy, models, searches, supernets, tables, views
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.progress import telling
from ofa_deploy.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback(invoke_without_command=True)
def _root(
    *,
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error comes from.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Search, specialise and deploy once-for-all networks: one trained network, the best subnetwork for each device.

    Example: ofa-deploy deploy --latency 30%
    """
    context.obj["verbose"] = verbose
    if version:
        print(f"ofa-deploy {__version__}")
        raise typer.Exit


for _command in (
    supernets.download_data,
    supernets.pack_data,
    supernets.train,
    supernets.import_weights,
    supernets.weights,
    accuracy.sample,
    accuracy.fit_predictor,
    accuracy.import_predictor,
    accuracy.predict,
    tables.build_lut,
    searches.search,
    models.export,
    models.deploy,
    views.report,
    views.doctor,
):
    app.command()(_command)

app.command("list")(views.list_)
app.add_typer(tables.app, name="lut")


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it; some releases of typer return it."""
Misused: type[Any] = typer.BadParameter.__bases__[0]
"""What unknown options and the like raise: click's UsageError, wherever this release of typer keeps it."""


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    with telling():
        _run()


def _run() -> None:
    state = {"verbose": False}
    try:
        if (code := app(prog_name="ofa-deploy", standalone_mode=False, obj=state) or 0) == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except Misused as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            words = str(error.format_message()).replace("\n", " ").rstrip(".")
            help_ = f"{error.ctx.command_path if error.ctx else 'ofa-deploy'} --help"
            print(f"ofa-deploy: {words}; see {help_}", file=sys.stderr)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        print("ofa-deploy: interrupted; repeat the command: what left a .partial goes on from there", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (OfaDeployError, OSError) as error:
        if state["verbose"]:
            traceback.print_exc()
        print(f"ofa-deploy: {error}", file=sys.stderr)
        sys.exit(2)
