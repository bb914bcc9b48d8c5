"""The `console` command: parses, finds the database, opens the app."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from relay.errors import ConfigurationError, RelayError
from relay.settings import load_settings

if TYPE_CHECKING:
    from relay.settings import Settings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dsn", help="The relay's database (DATABASE_URL; default: the embedded one on this machine).")
@click.option("--read-only", is_flag=True, help="Hide and refuse every write, and connect as a role that cannot.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII alone.")
def command(*, dsn: str | None, read_only: bool, ascii_only: bool) -> None:
    """The operator console: what is wrong, since when, and the keys that mend it.

    Who you are comes from CONSOLE_OPERATOR, or else the login name, and is recorded with everything you do.
    """
    settings = load_settings(database_url=dsn)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise click.UsageError("The console needs a terminal; `relay status` prints the same figures anywhere.")
    if settings.database_url is not None:
        open_console(settings, settings.database_url.get_secret_value(), read_only=read_only, ascii_only=ascii_only)
        return
    from relay.embedded import EmbeddedPostgres  # noqa: PLC0415 - only who has no DATABASE_URL pays for it

    server = EmbeddedPostgres(settings.relay_data_dir)
    try:
        open_console(settings, server.dsn, read_only=read_only, ascii_only=ascii_only)
    finally:
        server.close()


def open_console(settings: Settings, dsn: str, *, read_only: bool, ascii_only: bool = False) -> None:
    """Run the console on this terminal until it is quit."""
    from console.app import ConsoleApp  # noqa: PLC0415 - `console --help` need not load a terminal toolkit

    ConsoleApp(settings, dsn, read_only=read_only, ascii_only=ascii_only).run()


def main() -> NoReturn:
    """Run the command; every error raised on purpose is one line on stderr."""
    try:
        command(standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except RelayError as error:
        click.echo(f"console: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    sys.exit(os.EX_OK)
