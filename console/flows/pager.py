"""Shows a text in the operator's `$PAGER`, while the console is suspended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from console.flows.outside import command_of, run_outside
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import App


def show_in_pager(app: App[Any], text: str) -> None:
    """Run the pager on `text`, which is cleaned: a pager may pass escape sequences on.

    Raises:
        RelayError: the pager cannot be run.
    """
    cleaned = "\n".join(clean(line, limit=None) for line in text.split("\n"))
    run_outside(app, command_of("PAGER", default="less"), remedy="set PAGER", given=cleaned.encode())
