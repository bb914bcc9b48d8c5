"""A relay that is out of file descriptors says so, and what it could not forward then is forwarded later."""

from __future__ import annotations

import asyncio
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest

from tests.relay.test_command_serve import serving
from tests.servers import PATIENCE_S, free_port, until, wait_for

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.servers import HeldAgent, Rows

STATES = "SELECT DISTINCT state FROM relay.deliveries"


def take_all_files(process: int) -> tuple[int, int]:
    """Let `process` open no further file. Returns the limit that it had."""
    used = {int(name.name) for name in Path(f"/proc/{process}/fd").iterdir()}
    limit = resource.prlimit(process, resource.RLIMIT_NOFILE)
    first_free = min(set(range(len(used) + 1)) - used)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (first_free, limit[1]))
    return limit


async def test_an_attempt_without_a_file_descriptor_is_said_does_not_count_and_is_made_again(
    relay_command: CommandLine, agent: HeldAgent, rows: Rows
) -> None:
    base = f"http://127.0.0.1:{free_port()}"
    bind = base.removeprefix("http://")
    with serving(relay_command, RELAY_BIND=bind, AGENT_SDK_URL=agent.url) as (process, output):
        async with httpx.AsyncClient(base_url=base, timeout=PATIENCE_S) as sender:

            async def is_ready() -> bool:
                try:
                    return (await sender.get("/health")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(is_ready)
            limit = take_all_files(process.pid)
            sent = asyncio.create_task(sender.post("/api/webhooks/chatwoot", json={"event": "message_created"}))
            await until(lambda: "status: 'out_of_file_descriptors'" in output.read_text(encoding="utf-8"))
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limit)
            assert (await sent).status_code in {200, 202}
        await until(lambda: rows(STATES) == ["delivered"])
    assert rows("SELECT attempts FROM relay.deliveries") == [1]
    assert len(agent.seen) == 1


@pytest.mark.slow
async def test_of_more_webhooks_than_file_descriptors_none_becomes_a_dead_letter(
    relay_command: CommandLine, agent: HeldAgent, rows: Rows
) -> None:
    base = f"http://127.0.0.1:{free_port()}"
    bind, ids = base.removeprefix("http://"), [str(uuid4()) for _ in range(120)]

    async def send(delivery_id: str) -> None:
        """Send a webhook, again until it is accepted, as a queue does."""

        async def is_accepted() -> bool:
            headers = {"x-chatwoot-delivery": delivery_id, "connection": "close"}
            body = {"event": "message_created", "n": delivery_id}
            try:
                async with httpx.AsyncClient(base_url=base, timeout=PATIENCE_S) as client:
                    answer = await client.post("/api/webhooks/chatwoot", json=body, headers=headers)
            except httpx.TransportError:
                return False
            return answer.status_code in {200, 202}

        await until(is_accepted, every_s=0.2)

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(relay_command, RELAY_BIND=bind, AGENT_SDK_URL=agent.url, limits="ulimit -n 64") as (process, output):
        await asyncio.gather(*(send(delivery_id) for delivery_id in ids))
        await until(lambda: rows(STATES) == ["delivered"])
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: process.poll() is not None)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    assert rows("SELECT count(*) FROM relay.deliveries") == [len(ids)]
    said = output.read_text(encoding="utf-8")
    assert "The limit of open files is too low for RELAY_MAX_IN_FLIGHT" in said
    assert "limit: 64, needed: 4064" in said
    assert "did not answer within" not in said
