"""What the programs `relay` and `console` share as programs: options, warnings, errors and the exit status.

Exit status: 0 fine, 1 a check failed, 2 used or configured wrongly, 130 interrupted. An error is one line on stderr;
with `--json` it is a JSON document on stdout as well.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import click

import relay
from relay.errors import ConfigurationError, FilterError, RelayError, SchemaError, StoreUnavailable
from relay.text import clean, escape_unencodable, is_text, json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_ERROR_CHARS = 10_000
_ESCAPES = "relay.escapes"
_ALLOCATIONS = 50_000
"""After how many new objects the garbage collector looks for cycles: what the imports make is not garbage."""

_SHELLS = ("bash", "zsh", "fish")
_EXPECTED = (click.ClickException, click.Abort, KeyboardInterrupt, RelayError, OSError)
_KINDS: tuple[tuple[type[RelayError], str], ...] = (
    (ConfigurationError, "configuration"),
    (FilterError, "usage"),
    (StoreUnavailable, "database_unavailable"),
    (SchemaError, "schema"),
)


def version_option(program: str) -> click.Option:
    """`--version`, which prints the package's version."""

    def show(context: click.Context, _parameter: click.Parameter, given: Any) -> None:
        if given and not context.resilient_parsing:
            click.echo(f"{program}, version {relay.__version__}")
            context.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show the version and exit."
    )


def completion_option(program: str) -> click.Option:
    """`--completion SHELL`, which prints what that shell evaluates to complete the program's words."""

    def show(context: click.Context, _parameter: click.Parameter, shell: str | None) -> None:
        if shell is None or context.resilient_parsing:
            return
        from click.shell_completion import get_completion_class  # noqa: PLC0415 - for this option alone

        made_by = get_completion_class(shell)
        assert made_by is not None
        click.echo(made_by(context.command, {}, program, f"_{program.upper()}_COMPLETE").source())
        context.exit()

    return click.Option(
        ["--completion"], type=click.Choice(_SHELLS), expose_value=False, is_eager=True, callback=show,
        help=f'Print the completion script of a shell: eval "$({program} --completion bash)".',
    )  # fmt: skip


def warn_of_near_misses(program: str) -> None:
    """Print a line on stderr for each variable that is not read although its name is nearly one that is.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    from relay.settings import near_misses  # noqa: PLC0415 - `--version` and `--help` read no settings

    for name, right in near_misses():
        click.echo(f"{program}: warning: {clean(name)} is set, but not read; did you mean {right}?", err=True)


def run_program(program: str, command: click.Command) -> NoReturn:
    """Run the program's command to its end and exit."""
    gc.set_threshold(_ALLOCATIONS)
    _open_missing_streams()
    _escape_what_streams_cannot_hold()
    as_json = _asks_for_json(sys.argv[1:])
    try:
        _refuse_what_is_no_text(sys.argv[1:])
        status = command.main(prog_name=program, standalone_mode=False)  # what a command's exit asks for is returned
        sys.stdout.flush()
    except _EXPECTED as error:
        if isinstance(error, BrokenPipeError):
            _leave(1)
        status, kind, message = _explained(program, error)
        if as_json:
            _say_as_json(status, kind, message)
    _leave(status or 0)


def _open_missing_streams() -> None:
    """Give a program that was started without a standard stream an empty one.

    So no code needs to ask whether there is one, and no socket gets its number, to which a library may write.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _escape_what_streams_cannot_hold() -> None:
    """Let a locale without UTF-8, or a file name that is no text, cost a character and not the command."""
    codecs.register_error(_ESCAPES, escape_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPES)


def _refuse_what_is_no_text(arguments: Sequence[str]) -> None:
    """Raises a usage error if an argument is no text: Postgres takes none, nor does a log."""
    for argument in arguments:
        if not is_text(argument):
            raise click.UsageError(f"An argument holds bytes that are not text in this locale: {argument}")


def _explained(program: str, error: BaseException) -> tuple[int, str, str]:
    """Exit status, kind and message of one of the `_EXPECTED` errors; the line is printed."""
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        _complain(shown.getvalue().rstrip("\n"))
        return error.exit_code, "usage", error.format_message()
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        _complain("Aborted.")
        return 130, "aborted", "Aborted."
    if isinstance(error, RelayError):
        _complain(f"{program}: {error}")
        kind = next((name for kind, name in _KINDS if isinstance(error, kind)), "failed")
        return (2 if isinstance(error, (ConfigurationError, FilterError)) else 1), kind, str(error)
    assert isinstance(error, OSError)
    what = "standard output" if error.filename is None else os.fsdecode(error.filename)
    message = f"{what}: {error.strerror or error}"
    _complain(f"{program}: {message}")
    return 1, "system", message


def _complain(text: str) -> None:
    with suppress(OSError):
        click.echo(clean(text, limit=_ERROR_CHARS, newlines=True), err=True)


def _say_as_json(status: int, kind: str, message: str) -> None:
    shown = clean(message, limit=_ERROR_CHARS, newlines=True)
    with suppress(OSError):
        click.echo(json_text({"error": {"kind": kind, "message": shown}, "exit_status": status}, indent=2))


def _asks_for_json(arguments: Sequence[str]) -> bool:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def _leave(status: int) -> NoReturn:
    """Exit. What the standard streams could not take is dropped: Python would complain of it once more.

    The garbage collector gets nothing more to do: at its end the interpreter would search all objects for cycles, which
    took a quarter of the CPU time of `relay status`.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    gc.freeze()
    sys.exit(status)
