"""Runs another program in the console's terminal, while the console is suspended."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from textual.app import SuspendNotSupported

from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import App


def command_of(*variables: str, default: str) -> list[str]:
    """Return the command that the first of `variables` in the environment names, in parts.

    Raises:
        RelayError: its quotation is not closed.
    """
    name = next((name for name in variables if os.environ.get(name)), None)
    if name is None:
        return [default]
    try:
        return shlex.split(os.environ[name]) or [default]
    except ValueError as error:
        raise RelayError(f"{name} is no command: {error}. Correct it") from error


def run_outside(app: App[Any], command: Sequence[str], *, remedy: str, given: bytes | None = None) -> None:
    """Run `command` with `given` on its standard input, or with the terminal's, until it ends.

    An interrupt (ctrl+c) is for the program: it does not end the console.

    Raises:
        RelayError: it cannot be run; `remedy` says what to set.
    """
    try:
        with app.suspend():
            before = signal.signal(signal.SIGINT, lambda *_: None)  # the program gets the default again
            try:
                subprocess.run(command, input=given, check=False)  # noqa: S603 - the operator's own program
            finally:
                signal.signal(signal.SIGINT, before)
    except SuspendNotSupported as error:
        raise RelayError("This terminal cannot suspend the console, so no other program can be run") from error
    except OSError as error:
        raise RelayError(f"{clean(command[0], limit=100)}: {error.strerror}; {remedy}") from error
