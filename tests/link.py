"""A proxy before Postgres that counts round trips: a measure that does not depend on how fast the machine is."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK = 65_536
_READY = b"Z\x00\x00\x00\x05"
"""ReadyForQuery without its last byte: all that was asked until here is answered."""


def socket_of(dsn: str) -> Path:
    """The socket of the embedded Postgres."""
    (path,) = Path(str(conninfo_to_dict(dsn)["host"])).glob(".s.PGSQL.*[0-9]")
    return path


class _Link:
    """One connection. What the server answers is passed on in one piece, once all that was asked is answered.

    So a client that sends the rest of what it asks does it before the answer, however slow it is. One that waits for
    some of the answers before it ends what it asks waits for ever.
    """

    def __init__(self, trips: list[int], number: int) -> None:
        self._trips = trips
        self._number = number
        self._was_answer = True
        self._is_up = False
        self._asked = 0

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what the client asks; a request that follows an answer is a round trip."""
        while chunk := await reader.read(_CHUNK):
            self._trips[self._number] += self._was_answer
            self._was_answer = False
            writer.write(chunk)
        writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what the server answers."""
        held = b""
        while chunk := await reader.read(_CHUNK):
            held += chunk
            self._is_up = self._is_up or held[-6:-1] == _READY
            is_notice = self._was_answer  # that was not asked for
            if not self._is_up or is_notice or held[-6:-1] == _READY:
                self._was_answer = True
                writer.write(held)
                held = b""
        writer.close()


@asynccontextmanager
async def round_trips(dsn: str) -> AsyncIterator[tuple[str, list[int]]]:
    """Yield a DSN of the same database through a proxy, and how many round trips each connection took so far.

    To open a connection is one of them. TCP and encryption, which take two or three more, are not counted.
    """
    trips: list[int] = []
    path = socket_of(dsn)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trips.append(0)
        link = _Link(trips, len(trips) - 1)
        there_reader, there_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(link.ask(reader, there_writer), link.answer(there_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable"), trips
    finally:
        server.close()
