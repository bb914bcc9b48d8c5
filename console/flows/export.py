"""Exports what a screen lists as a file in the working directory: asks for the format, reads, writes, says where."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.content import Content

from console.data.readings import WINDOW
from console.flows.requests import Say
from console.render.export import FORMATS, ROW_FIELDS, exported, row_values
from console.widgets.prompt import Kind, Prompt
from relay.domain.delivery import State
from relay.domain.format import plural
from relay.errors import RelayError
from relay.store import browse, sorted_rows
from relay.store.filters import compile_filter
from relay.store.sorted_rows import MOST_SORTED, Order
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from console.data.row_window import RowWindow
    from console.flows.host import Host
    from relay.store.browse import Row

    Values = Callable[[], Awaitable[Sequence[Sequence[Any]]]]
    """Reads what is to be exported."""

MOST_EXPORTED = 100_000


def ask_export(host: Host, name: str, fields: Sequence[str], values: Values, *, most: int = MOST_EXPORTED) -> None:
    """Ask for the format, then write a file whose name begins with `name`. `values` returns at most `most` rows."""
    try:
        here = Path.cwd()
    except OSError:
        host.request(Say("The working directory does not exist any more: start the console in another", bad=True))
        return
    into = clean(str(here), limit=200)
    lines = [Content(f"Export {name.replace('-', ' ')} that are listed, without payloads, into {into}")]
    lines += [Content(f"  {number}  {form}") for number, form in enumerate(FORMATS, start=1)]
    prompt = Prompt(title="export", lines=lines, kind=Kind.CHOICE, choices=FORMATS)

    def begin(form: str) -> None:
        host.in_background(_export(host, here / name, form, fields, values, most), group="export")

    host.dialog.ask(prompt, begin)


def ask_export_of_rows(host: Host, name: str, window: RowWindow) -> None:
    """Ask for the format, then export every delivery that the filter matches, in the order of the list."""
    most = MOST_EXPORTED if window.order is Order.NEWEST else MOST_SORTED
    ask_export(host, name, ROW_FIELDS, partial(_rows, host, window.filter, window.states, window.order), most=most)


async def _export(host: Host, stem: Path, form: str, fields: Sequence[str], values: Values, most: int) -> None:
    found = await values()
    path = stem.with_name(f"{stem.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form.lower()}")
    await asyncio.to_thread(_write, path, form, fields, found)
    cut = f", the first {most:,} at most," if len(found) >= most else ""
    host.request(Say(f"Exported {plural(len(found), 'row')}{cut} to {clean(str(path))}"))


def _write(path: Path, form: str, fields: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    try:
        # A new file, never one that another user has put there, whatever it may point to.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(exported(form, fields, values))
    except OSError as error:
        raise RelayError(f"{path}: the export cannot be written ({error.strerror})") from error


async def _rows(host: Host, text: str, states: tuple[State, ...] | None, order: Order) -> list[tuple[Any, ...]]:
    """Read the rows page by page, each page with an index."""
    condition = compile_filter(text)
    rows: list[Row] = []
    async with host.context.session.report_connection() as connection:
        if order is not Order.NEWEST:
            rows, _ = await sorted_rows.sorted_page(
                connection, condition, states=states, order=order, limit=MOST_SORTED
            )
            return [row_values(row) for row in rows]
        anchor = None
        while len(rows) < MOST_EXPORTED:
            page = await browse.window(connection, condition, states=states, anchor=anchor, limit=5 * WINDOW)
            fresh = page[1:] if anchor is not None else page
            rows += fresh
            if not fresh:
                break
            anchor = page[-1].dead_key if states == (State.DEAD,) else page[-1].key
    return [row_values(row) for row in rows[:MOST_EXPORTED]]
