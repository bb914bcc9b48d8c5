"""What failures of Postgres mean, and what of them may be logged and shown. Opens no connection."""

from __future__ import annotations

import asyncio
import re
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from relay.errors import Refused, RelayError, StatementRefused, StoreUnavailable
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator


NOT_IN_TIME = "Postgres did not answer in time"
UNUSABLE = "Postgres cannot be used now"


def unavailable(error: BaseException) -> StoreUnavailable:
    """`error` as an operator reads it. A `StatementRefused` if Postgres is there and refused the statement alone."""
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return StoreUnavailable(NOT_IN_TIME)
    if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_STATEMENT_REFUSED):
        return StatementRefused(f"Postgres refused a statement: {described(error)}")
    return StoreUnavailable(f"{UNUSABLE}: {described(error)}")


def webhooks_refused(fault: str) -> str:
    """The sentence for a Postgres that is there and stores no webhook."""
    return f"Postgres refuses to store webhooks: {fault}"


_STATEMENT_REFUSED = ("40", "54", "55", "57014")  # rolled back, too complex, locked, cancelled
_OWN_FUNCTION = re.compile(r"INTO (relay\.|dashboard_facts)|relay\.(write|restore)_facts\(")


_REFUSED = "RL001"
"""The SQLSTATE of what the schema's own functions refuse. Their messages quote no value."""

_QUOTING_CLASSES = ("22", "38", "39", "HV", "P0", "XX")
"""Classes of SQLSTATE whose primary message may quote a value: data exceptions, other languages, RAISE, internals."""


def described(error: BaseException) -> str:
    """What may be logged and shown of an error, in one line: no text that a customer or an operator wrote.

    DETAIL, CONTEXT and the statement are left out, since they quote rows. The primary message stays where Postgres
    itself made it and quotes names only. Of an error that is none of Postgres's, the relay's or the system's, the
    name and the line of code that raised it remain.
    """
    if isinstance(error, psycopg.Error):
        return clean(_described_by_postgres(error))
    if isinstance(error, (RelayError, OSError)):
        return clean(_first_line(error))
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else _name(error)


def _described_by_postgres(error: psycopg.Error) -> str:
    state, said = error.sqlstate, error.diag.message_primary
    if state is None:  # the driver's own: it quotes values where it converts them
        converts = isinstance(error, (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError))
        return _name(error) if converts else _first_line(error)
    text = f"{_name(error)} ({state})"
    if said and (state == _REFUSED or not _may_quote(error, state)):
        text = next(iter(said.splitlines()), text)
    diag = error.diag
    names = (("table", diag.table_name), ("column", diag.column_name), ("constraint", diag.constraint_name))
    return ", ".join([text, *(f"{kind} {name}" for kind, name in names if name and name not in text)])


def _may_quote(error: psycopg.Error, state: str) -> bool:
    """True if the primary message may quote a row: by its class, or since another application's function raised it."""
    raised_in = (error.diag.context or "").partition("\n")[0]
    foreign = " function " in raised_in and not _OWN_FUNCTION.search(raised_in)
    return foreign or error.diag.source_function == "exec_stmt_raise" or state.startswith(_QUOTING_CLASSES)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), _name(error))


def _name(error: BaseException) -> str:
    return type(error).__name__


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the schema's functions refuse into an error of the relay's.

    Raises:
        Refused: a function refused its arguments; the message says why.
    """
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == _REFUSED:
            raise Refused(described(error)) from error
        raise
