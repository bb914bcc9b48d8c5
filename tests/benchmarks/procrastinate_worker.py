"""procrastinate doing the relay's job, as `pgqueuer_worker` does it with pgqueuer.

As a program it drains the queue and ends: `python -m tests.benchmarks.procrastinate_worker DSN AGENT_URL`.
"""

from __future__ import annotations

import base64
import json
import sys
import time

import httpx
import psycopg
import uvloop
from httpx_aiohttp import AiohttpTransport
from procrastinate import App, PsycopgConnector

from tests.benchmarks.load import webhook_body
from tests.benchmarks.pgqueuer_worker import FACTS

CONCURRENCY = 64
TASK = "forward"
_RECORD = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
    VALUES ('support.webhook.retry', 'support', %(value)s, %(metadata)s)
"""


async def prepare(dsn: str, jobs: int) -> None:
    """Install procrastinate's schema and defer `jobs` webhooks."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(FACTS.encode())
    app = App(connector=PsycopgConnector(conninfo=dsn))
    body = base64.b64encode(webhook_body()).decode()  # its arguments are jsonb
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for begin in range(0, jobs, 1000):
            job = app.configure_task(TASK)
            await job.batch_defer_async(*({"body": body} for _ in range(min(1000, jobs - begin))))


async def drain(dsn: str, agent: str) -> None:
    """Work until the queue is empty."""
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=2, max_size=8))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with app.open_async(), httpx.AsyncClient(transport=AiohttpTransport(limits=limits), timeout=30) as client:

        @app.task(name=TASK)
        async def forward(body: str) -> None:
            began = time.perf_counter()
            response = await client.post(
                agent, content=base64.b64decode(body), headers={"content-type": "application/json"}
            )
            response.raise_for_status()
            took_ms = round((time.perf_counter() - began) * 1000)
            value = {"attempts": 1, "success": True, "durationMs": took_ms, "finalStatus": "200"}
            metadata = {"event": "message_created", "conversationId": 10}
            await app.connector.execute_query_async(
                _RECORD,
                value=json.dumps(value), metadata=json.dumps(metadata),
            )  # fmt: skip

        await app.run_worker_async(
            wait=False, concurrency=CONCURRENCY, install_signal_handlers=False, listen_notify=False
        )


if __name__ == "__main__":
    uvloop.run(drain(sys.argv[1], sys.argv[2]))
