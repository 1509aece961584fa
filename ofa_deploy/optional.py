"""Packages that only some commands need: where one is missing, the error says how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ofa_deploy.errors import MeasureError


@contextmanager
def needing(need: str, install: str) -> Iterator[None]:
    """Turns an import that fails in the block into one line that says what to do.

    Args:
        need: what needs which package, such as "--backend ray needs Ray".
        install: the command that installs the package.

    Raises:
        MeasureError: the package is missing, or it is there and cannot be loaded.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MeasureError(f"{need}, which is not installed; {install}") from error
    except ImportError as error:  # made for another version of what it needs
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise MeasureError(f"{need}, which is installed but cannot be loaded: {reason}; {install}") from error
