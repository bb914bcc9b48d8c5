"""What the subcommands share: settings, the database they work on, and who runs them."""

from __future__ import annotations

import asyncio
import getpass
import json
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import click
import psycopg

from relay.store.database import connection_parameters, unavailable
from relay.store.migrate import migrate
from relay.store.sessions import trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from relay.settings import Settings
    from relay.store.database import Connection

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@contextmanager
def database(settings: Settings, *, keep_up: bool = False) -> Iterator[str]:
    """The DSN to work on: `DATABASE_URL`, or the embedded server, which runs for the block at least.

    Raises:
        StoreUnavailable: the embedded server does not start.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    from relay.embedded import EmbeddedPostgres  # noqa: PLC0415 - only who has no DATABASE_URL pays for it

    server = EmbeddedPostgres(settings.relay_data_dir, keep_up=keep_up)
    try:
        yield server.dsn
    finally:
        server.close()


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """An autocommit connection to a database whose schema is up to date.

    Raises:
        StoreUnavailable: Postgres is away.
        SchemaError: the schema cannot be brought up to date.
        RelayError: the login may not do what was asked.
    """
    await migrate(dsn)
    try:
        connection = await psycopg.AsyncConnection.connect(
            autocommit=True, **connection_parameters(dsn, "relay command")
        )
    except psycopg.OperationalError as error:
        raise unavailable(error) from error
    async with connection:
        try:
            await connection.execute("SET timezone = 'UTC'")
            yield connection
        except psycopg.Error as error:
            raise trouble(error) from error


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command's coroutine and leave with the exit status that it returns."""
    status = asyncio.run(work)
    click.get_current_context().exit(status)


def print_json(document: object) -> None:
    """`document` as indented JSON on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def operator() -> str:
    """Who runs the command, for the audit: the login name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
