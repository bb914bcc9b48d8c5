"""Ends waits for Postgres: by a cancellation that driver or pool would lose, and by a limit on a peer's silence."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.store.server_session import ServerConnection


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """A cancellation that comes during the block ends it as one, whatever pool and driver make of it.

    `asyncio.wait_for`, with which the pool waits, loses one that comes together with what it waited for (CPython
    issue 86296, before 3.12), and an error on the way out takes the place of another. A task that loops would
    then continue, and a task that awaits its end would wait for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    except Exception as error:
        if task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError


@contextmanager
def no_longer_than(seconds: float, connection: ServerConnection) -> Iterator[None]:
    """Hang up on a peer that is silent for so long: where packets vanish, or something between has died.

    A cancelled wait would not do: psycopg then waits for Postgres to confirm the cancellation.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: ServerConnection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)
