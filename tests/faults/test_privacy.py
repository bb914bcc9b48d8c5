"""A relay shows no secret and no customer's text in logs, health, metrics or errors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relay.chatwoot.signature import sign
from relay.settings import WEBHOOK_PATH
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.demo.agent import AgentStandIn
    from tests.faults.conftest import RelayProcess, Senders
    from tests.servers import Rows

pytestmark = pytest.mark.faults
WORDS = "my card number is 4111 1111"


async def test_no_page_no_metric_no_log_line_and_no_process_list_shows_a_secret_or_a_customers_words(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: AgentStandIn, rows: Rows, dsn: str
) -> None:
    secrets = {"chatwoot_webhook_secret": "s3cret-of-hooks", "chatwoot_api_key": "k3y-of-the-api"}
    url = agent.url.replace("http://", "http://user:pa55word@")
    relay = await make_relay(**secrets, agent_sdk_url=url, relay_workers=2).start()
    agent.behave(Behaviour(status=503))
    body = json.dumps({"event": "message_created", "content": WORDS, "conversation": {"id": 1}}).encode()
    timestamp = str(int(time.time()))
    signature = sign(b"s3cret-of-hooks", timestamp, body)
    headers = {"x-chatwoot-signature": signature, "x-chatwoot-timestamp": timestamp}
    client = senders.client
    shown = [
        (await client.post(relay.url + WEBHOOK_PATH, content=body, headers=headers)).text,
        (await client.post(relay.url + WEBHOOK_PATH, content=body + b" ", headers=headers)).text,
        (await client.post(relay.url + WEBHOOK_PATH, content=body[:-1])).text,
        (await client.get(relay.url + "/" + WORDS)).text,
        (await client.get(relay.url + "/health")).text,
        (await client.get(relay.url + "/metrics")).text,
    ]
    assert "Webhook processing failed" in shown[0]
    assert rows.one("SELECT value -> 'payload' ->> 'content' FROM dashboard_facts WHERE value ? 'payload'") == WORDS
    pids = rows("SELECT pid FROM relay.instances")
    shown += [_process_list_entry(pid) for pid in (relay.pid, *pids)]
    shown += await until(lambda: "dead-lettered" in relay.output and [relay.output])
    shown += rows("SELECT l::text FROM relay.log l")
    for private in (WORDS, WORDS.replace(" ", "%20"), *secrets.values(), "pa55word", signature.removeprefix("sha256=")):
        assert [page for page in shown if private in page] == []


def _process_list_entry(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
