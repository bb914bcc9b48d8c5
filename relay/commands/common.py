"""What the subcommands share: the database they work on, what they print, and who runs them."""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from relay.domain.duration import seconds_of
from relay.domain.filters import moment_of
from relay.errors import ConfigurationError, FilterError, Refused, StatementRefused, StoreUnavailable
from relay.settings import load_settings
from relay.store import demo_history, sessions
from relay.store.databases import database
from relay.text import clean, json_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from relay.settings import Settings
    from relay.store.database import Connection
    from relay.store.databases import Place


@contextmanager
def refused_as_usage() -> Iterator[None]:
    """Turn what the database refuses of an operator's words into an error of usage: exit status 2."""
    try:
        yield
    except Refused as error:
        raise click.UsageError(f"{error}.") from None


class Finite(click.FloatRange):
    """A number in a range. NaN, which is neither below nor above any limit, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """`90s`, `30m`, `1h30m` in seconds."""
    try:
        return None if value is None else seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def since_of(value: str, now: datetime) -> datetime:
    """The time that `--since` names: so long ago (`8h`), or a time of day or date.

    Raises:
        click.UsageError: it is no time, or not in the past.
    """
    try:
        begin = now - timedelta(seconds=seconds_of(value))
    except OverflowError:
        raise click.UsageError("--since is too long ago.") from None
    except ValueError:
        try:
            begin = moment_of("since", value, now)
        except FilterError:
            raise click.UsageError(f"--since {value}: say 8h, 14:02 or 2026-11-23T14:02 (UTC).") from None
    if begin >= now:
        raise click.UsageError("--since must be in the past.")
    return begin


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@dataclass(frozen=True, slots=True)
class Source:
    """The database that a command reads: its `name` without credentials, and whether its data are invented."""

    name: str
    demo: bool

    @property
    def line(self) -> str:
        """The database in one line."""
        return f"DEMO, everything here is invented: {self.name}" if self.demo else self.name

    @property
    def document(self) -> dict[str, object]:
        """The same for `--json`."""
        return {"name": self.name, "demo": self.demo}


def connected(dsn: str, *, migrates: bool = False) -> AbstractAsyncContextManager[Connection]:
    """`relay.store.sessions.connected`; on stderr it names whom the command waits for."""
    return sessions.connected(dsn, migrates=migrates, on_wait=say_waiting)


def say_waiting(sentence: str) -> None:
    """Print on stderr for whom the command waits."""
    say(f"relay: {sentence}", err=True)


async def source_of(connection: Connection, place: Place) -> Source:
    """What the database at `place` is, as it says itself."""
    return Source(place.name, await demo_history.is_demo(connection))


async def refuse_demo(connection: Connection, place: Place) -> None:
    """Raises `ConfigurationError` if the database's data are invented: they must never reach a real system."""
    if await demo_history.is_demo(connection):
        raise ConfigurationError(demo_history.REFUSAL.replace("The database", place.name, 1))


async def or_partly(work: Coroutine[Any, Any, int], settings: Settings, dsn: str, *, as_json: bool) -> int:
    """Do `work`; while the Postgres at `dsn` is away, print what can be said without it, and return 1."""
    try:
        return await work
    except StatementRefused:
        raise
    except StoreUnavailable as error:
        from relay.incident.without_store import partial_view  # noqa: PLC0415 - it needs an HTTP client

        found = await partial_view(settings, dsn, error)
    if as_json:
        print_json(found.document)
        say(found.database_error, err=True)
    else:
        say(found.lines)
    return 1


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command's coroutine and leave with the exit status that it returns."""
    status = asyncio.run(work)
    click.get_current_context().exit(status)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did, as a document and in sentences, and its exit status."""

    document: Mapping[str, object]
    lines: Sequence[str]
    status: int = 0


def act(settings: Settings, work: Callable[[Connection], Awaitable[Done]], *, as_json: bool) -> None:
    """Let `work` change the database (a running demo's where there is no other), print what it did, and leave."""

    async def done(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            found = await work(connection)
        if as_json:
            print_json({"database": source.document, **found.document})
        else:
            say_source(source, place)
            say(found.lines)
        return found.status

    with database(settings, or_demo=True) as place:
        run(done(place))


def say(lines: str | Iterable[str], *, err: bool = False) -> None:
    """Print text, a line each: on stdout, or with `err` on stderr. What is harmful in it is made visible."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    click.echo(clean(text, limit=None, newlines=True), err=err)


def say_source(source: Source, place: Place) -> None:
    """Print which database a command reads: its first line."""
    say(f"database: {source.line}")
    if place.note:
        say(place.note, err=True)


def print_json(document: object) -> None:
    """Print `document` as indented JSON on stdout.

    It carries texts of the database as they are shown, cleaned and capped; all others are exact, and what a terminal
    must not get is a JSON escape.
    """
    click.echo(json_text(document, indent=2))


def operator() -> str:
    """Who runs the command, for the audit: `Settings.operator`."""
    return load_settings().operator


__all__ = [
    "Done", "Finite", "Source", "act", "as_json", "connected", "database", "operator", "or_partly", "print_json",
    "refuse_demo", "refused_as_usage", "run", "say", "say_source", "say_waiting", "seconds", "since_of", "source_of",
]  # fmt: skip
