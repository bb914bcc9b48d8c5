"""`relay serve`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import psycopg

from relay.commands.common import database, refuse_demo, say, say_waiting
from relay.errors import SchemaError, StoreUnavailable
from relay.monitoring.channels import channels
from relay.server.supervisor import REFUSED, LogOptions, serve
from relay.settings import load_settings
from relay.store import preflight
from relay.store.database import connect
from relay.store.failures import unavailable
from relay.store.migrate import migrate
from relay.store.open_schema import open_facts, open_schema
from relay.store.sizing import shortage
from relay.telemetry.log_sink import Format  # noqa: TC001 - beside LogOptions

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.command("serve")
@click.option("--bind", metavar="HOST:PORT", help="Address to listen on (RELAY_BIND, default 127.0.0.1:8788).")
@click.option("--workers", type=int, metavar="N", help="Worker processes (RELAY_WORKERS, default 1).")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(bind: str | None, workers: int | None, log_format: Format, log_level: str) -> None:
    """Receive Chatwoot's webhooks, store them, forward them to the Agent SDK.

    Stops on SIGTERM, SIGHUP or Ctrl+C: it accepts no more, finishes what is in flight or hands it back, within 25 s.
    """
    settings = load_settings(relay_bind=bind, relay_workers=workers)
    channels(settings)  # a wrong one is refused here, and not when the first alert is sent
    with database(settings, create=True) as place:
        try:
            try:
                asyncio.run(_prepare(place, settings.relay_workers, roles=settings.database_url is None))
            except StoreUnavailable as error:
                say(f"relay: {error}. Webhooks wait in the spool until it is there.", err=True)
            options = LogOptions(log_format, log_level)
            status = serve(settings, place.dsn, options, server=place.server)
        except SchemaError as error:
            say(f"relay: {error}", err=True)
            status = REFUSED
    click.get_current_context().exit(status)


async def _prepare(place: Place, workers: int, *, roles: bool) -> None:
    """Bring the schema up to date, and refuse a demo's database. A worker that finds Postgres away now does so later.

    Raises:
        ConfigurationError: the database is a demo's.
        StoreUnavailable: Postgres is away.
        SchemaError: the schema cannot be brought up to date.
    """
    await migrate(place.dsn, roles=roles, on_wait=say_waiting)
    await preflight.check(place.dsn)
    try:
        async with await connect(place.dsn, "hotdash-relay start") as connection:
            await refuse_demo(connection, place)
            warnings = await shortage(connection, workers), await open_schema(connection), await open_facts(connection)
            for sentence in warnings:
                if sentence is not None:
                    say(f"relay: {sentence}", err=True)
    except psycopg.OperationalError as error:
        raise unavailable(error) from error
