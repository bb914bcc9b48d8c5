"""`relay serve`."""

from __future__ import annotations

import asyncio

import click

from relay.commands.common import database
from relay.errors import SchemaError, StoreUnavailable
from relay.logs import Format  # noqa: TC001 - beside LogOptions
from relay.serve import REFUSED, LogOptions, serve
from relay.settings import load_settings
from relay.store import preflight
from relay.store.migrate import migrate


@click.command("serve")
@click.option("--bind", metavar="HOST:PORT", help="Address to listen on (RELAY_BIND, default 127.0.0.1:8788).")
@click.option("--workers", type=int, metavar="N", help="Worker processes (RELAY_WORKERS, default 1).")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(bind: str | None, workers: int | None, log_format: Format, log_level: str) -> None:
    """Receive Chatwoot's webhooks, store them, forward them to the Agent SDK.

    Stops on SIGTERM or Ctrl+C: it accepts no more, finishes what is in flight or hands it back, within 25 s.
    """
    settings = load_settings(relay_bind=bind, relay_workers=workers)
    with database(settings) as dsn:
        try:
            try:
                asyncio.run(migrate(dsn, roles=settings.database_url is None))
                asyncio.run(preflight.check(dsn))
            except StoreUnavailable as error:
                click.echo(f"relay: {error}. Serving 503 until it is there.", err=True)
            status = serve(settings, dsn, LogOptions(log_format, log_level), embedded=settings.database_url is None)
        except SchemaError as error:
            click.echo(f"relay: {error}", err=True)
            status = REFUSED
    click.get_current_context().exit(status)
