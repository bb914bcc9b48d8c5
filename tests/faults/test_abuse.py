"""Clients that misbehave: the relay lets go of what they leave behind and goes on serving the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relay.settings import WEBHOOK_PATH
from tests.faults.ledger import Ledger
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import RelayProcess, Senders

pytestmark = pytest.mark.faults
BODY = b'{"event":"message_created","id":1}'
REQUEST = (
    f"POST {WEBHOOK_PATH} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n"
    f"content-length: {len(BODY)}\r\n\r\n"
).encode() + BODY


def open_files(relay: RelayProcess) -> int:
    """How many files and sockets the relay holds."""
    return len(list(Path(f"/proc/{relay.pid}/fd").iterdir()))


async def test_a_connection_ends_with_its_client_and_not_with_the_keep_alive_time_out(
    make_relay: Callable[..., RelayProcess],
) -> None:
    relay = await make_relay().start()
    before = open_files(relay)
    writers = []
    for _ in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writers.append(writer)
    assert open_files(relay) >= before + 100
    for writer in writers:
        writer.close()
    await until(lambda: open_files(relay) < before + 20, what="the sockets are closed")


async def test_thousands_of_idle_and_half_open_connections_keep_nobody_else_out(
    make_relay: Callable[..., RelayProcess], senders: Senders
) -> None:
    relay, ledger = await make_relay().start(), Ledger()
    writers = []
    for number in range(1_500):
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        if number % 2:
            writer.write(REQUEST[: number % len(REQUEST)])
        writers.append(writer)
    statuses = await asyncio.gather(*(senders.post(relay.url, ledger) for _ in range(50)))
    assert statuses == [200] * 50
    for writer in writers:
        writer.close()
