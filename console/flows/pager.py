"""Shows a text in the operator's `$PAGER`, while the console is suspended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from console.flows.outside import command_of, run_outside
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import App


async def show_in_pager(app: App[Any], text: str) -> None:
    """Run the pager on `text`, which is cleaned: a pager may pass escape sequences on.

    Raises:
        RelayError: the pager cannot be run.
    """
    cleaned = "\n".join(clean(line, limit=None) for line in text.split("\n"))
    command = command_of("PAGER", default="less")
    await run_outside(app, command, remedy="set PAGER", given=cleaned.encode(), is_pager=True)
