"""The `console` command: parses, finds the database, opens the app."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

import click

from relay.command_line import completion_option, run_program, version_option, warn_of_near_misses
from relay.errors import ConfigurationError
from relay.text import json_text

if TYPE_CHECKING:
    from console.start.config_file import Config
    from relay.settings import Settings


_PROGRAM = "console"


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[version_option(_PROGRAM), completion_option(_PROGRAM)],
)
@click.option("--dsn", help="The relay's database (DATABASE_URL; default: the embedded one on this machine).")
@click.option("--read-only", is_flag=True, help="Hide and refuse every write, and connect as a role that cannot.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII alone.")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal, for selecting text.")
@click.option("--keys", "print_keys", is_flag=True, help="Print the table of keys, and end.")
@click.option("--timing", is_flag=True, help="Open it, print how long first paint and first figures took, and end.")
@click.option("--json", "as_json", is_flag=True, help="The result of --timing, as JSON.")
def command(
    *,
    dsn: str | None,
    read_only: bool,
    ascii_only: bool,
    no_mouse: bool,
    print_keys: bool,
    timing: bool,
    as_json: bool,
) -> None:
    """The operator console: what is wrong, since when, and the keys to repair it.

    Who you are comes from CONSOLE_OPERATOR, or else the login name, and is recorded with everything you do.
    """
    if print_keys:
        _require_textual()
        _configured()
        from console.keymap import key_table  # noqa: PLC0415 - it needs the extra

        click.echo("\n".join(key_table()))
        return
    from relay.settings import load_settings  # noqa: PLC0415 - `--version`, `--help` and completion read none
    from relay.store.databases import database  # noqa: PLC0415 - likewise

    warn_of_near_misses(_PROGRAM)
    settings = load_settings(database_url=dsn)
    if as_json and not timing:
        raise click.UsageError("--json goes with --timing; `relay status --json` prints the figures.")
    _require_textual()
    if not timing and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("The console needs a terminal; `relay status` prints the same figures anywhere.")
    opened = partial(open_console, ascii_only=ascii_only, mouse=not no_mouse)
    use = partial(time_console, as_json=as_json) if timing else opened
    with database(settings, or_demo=True) as place:
        use(settings, place.dsn, read_only=read_only)


def _configured() -> Config:
    """Read the operator's own files, and use their keys from here on.

    Raises:
        ConfigurationError: something in them cannot be used.
    """
    from console.keymap import use_keys  # noqa: PLC0415 - likewise
    from console.start.config_file import config_folder, read_config  # noqa: PLC0415 - it needs the extra

    config = read_config(config_folder())
    use_keys(config.keys)
    return config


def _require_textual() -> None:
    if find_spec("textual") is None:
        raise ConfigurationError("The console is not installed; run: pip install 'hotdash-relay[console]'")


def open_console(
    settings: Settings, dsn: str, *, read_only: bool, ascii_only: bool = False, mouse: bool = True
) -> None:
    """Run the console on this terminal until it is quit. A crash ends the process with its exit code."""
    from console.data.first_connection import FirstConnection  # noqa: PLC0415 - `console --help` needs no database

    first = FirstConnection(dsn, read_only=read_only)
    config = _configured()
    from console.app import ConsoleApp  # noqa: PLC0415 - `console --help` need not load a terminal toolkit
    from console.start.config_file import choices_path, chosen  # noqa: PLC0415 - likewise
    from console.terminal.abilities import abilities_of, output_encoding  # noqa: PLC0415 - likewise

    able = abilities_of(os.environ, output_encoding())
    app = ConsoleApp(
        settings,
        dsn,
        read_only=read_only,
        ascii_only=ascii_only or able.ascii_only,
        mono=able.mono,
        choices=chosen(choices_path(), config),
        own_themes=config.themes,
        first=first,
    )
    app.run(mouse=mouse and config.mouse)
    if app.return_code or app.has_panicked:
        raise click.exceptions.Exit(app.return_code or 1)


def time_console(settings: Settings, dsn: str, *, read_only: bool, as_json: bool) -> None:
    """Measure a start of the console and print it; without a terminal it runs headless."""
    from console.data.first_connection import FirstConnection  # noqa: PLC0415 - `console --help` needs no database

    first = FirstConnection(dsn, read_only=read_only)
    from console.app import ConsoleApp  # noqa: PLC0415 - `console --help` need not load a terminal toolkit
    from console.start.timing import StartTimer  # noqa: PLC0415 - likewise

    timer = StartTimer(ConsoleApp(settings, dsn, read_only=read_only, first=first))
    timer.run(headless=not (sys.stdin.isatty() and sys.stdout.isatty()))
    if as_json:
        click.echo(json_text({"first_paint_s": timer.first_paint_s, "first_data_s": timer.first_data_s}))
    else:
        click.echo("\n".join(timer.lines()))
    if timer.first_data_s is None:
        raise click.exceptions.Exit(1)


def main() -> NoReturn:
    """Run the command; every error raised on purpose is one line on stderr."""
    run_program(_PROGRAM, command)
