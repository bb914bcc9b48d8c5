"""Shows a text in the operator's `$PAGER`, while the console is suspended."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

from textual.app import SuspendNotSupported

from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import App

_DEFAULT = "less"


def show_in_pager(app: App[Any], text: str) -> None:
    """Run the pager on `text`, which is cleaned: a pager may pass escape sequences on.

    Raises:
        RelayError: the pager cannot be run.
    """
    command = shlex.split(os.environ.get("PAGER") or _DEFAULT) or [_DEFAULT]
    cleaned = "\n".join(clean(line, limit=None) for line in text.split("\n"))
    try:
        with app.suspend():
            subprocess.run(command, input=cleaned.encode(), check=False)  # noqa: S603 - the operator's own pager
    except SuspendNotSupported as error:
        raise RelayError("This terminal cannot suspend the console, so no pager can be run") from error
    except OSError as error:
        raise RelayError(f"{clean(command[0], limit=100)}: {error.strerror}; set PAGER") from error
