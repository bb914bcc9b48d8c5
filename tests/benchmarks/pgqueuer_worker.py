"""pgqueuer doing the relay's job: take a webhook out of Postgres, post it to the Agent SDK, record the fact.

The fact is the one that the relay records, durable before the job counts as done. Receiving and storing the
webhook, which the relay does as well, is done beforehand here and not counted.

As a program it drains the queue and ends: `python -m tests.benchmarks.pgqueuer_worker DSN AGENT_URL BATCH`.
It has the relay's client (httpx over aiohttp) and the relay's event loop.
"""

from __future__ import annotations

import json
import sys
import time

import asyncpg
import httpx
import uvloop
from httpx_aiohttp import AiohttpTransport
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job  # noqa: TC002 - pgqueuer reads the annotation
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from tests.benchmarks.load import webhook_body

ENTRYPOINT = "forward"
FACTS = """
    CREATE TABLE IF NOT EXISTS dashboard_facts (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, fact_type text NOT NULL, scope text NOT NULL,
        value jsonb NOT NULL, metadata jsonb, recorded_at timestamptz NOT NULL DEFAULT now());
    CREATE INDEX IF NOT EXISTS facts_type_time ON dashboard_facts (fact_type, recorded_at DESC);
"""
_RECORD = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
    VALUES ('support.webhook.retry', 'support', $1, $2)
"""


async def prepare(dsn: str, jobs: int) -> None:
    """Install pgqueuer's schema (all tables logged) and enqueue `jobs` webhooks."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        await pool.execute(FACTS)
        body = webhook_body()
        for begin in range(0, jobs, 1000):
            count = min(1000, jobs - begin)
            await queries.enqueue([ENTRYPOINT] * count, [body] * count, [0] * count)


async def drain(dsn: str, agent: str, batch: int) -> None:
    """Work until the queue is empty."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        asyncpg.create_pool(dsn, min_size=2, max_size=8) as pool,
        httpx.AsyncClient(transport=AiohttpTransport(limits=limits), timeout=30) as client,
    ):
        pgq = PgQueuer(AsyncpgPoolDriver(pool))

        @pgq.entrypoint(ENTRYPOINT)
        async def forward(job: Job) -> None:
            began = time.perf_counter()
            response = await client.post(
                agent, content=job.payload or b"", headers={"content-type": "application/json"}
            )
            response.raise_for_status()
            took_ms = round((time.perf_counter() - began) * 1000)
            value = {"attempts": 1, "success": True, "durationMs": took_ms, "finalStatus": "200"}
            metadata = {"deliveryId": str(job.id), "event": "message_created", "conversationId": 10}
            await pool.execute(_RECORD, json.dumps(value), json.dumps(metadata))

        await pgq.run(batch_size=batch, mode=QueueExecutionMode.drain)


if __name__ == "__main__":
    uvloop.run(drain(sys.argv[1], sys.argv[2], int(sys.argv[3])))
