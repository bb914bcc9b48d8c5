"""What answers in Chatwoot's place may send anything: commands end, in one sentence and in bounded memory."""

from __future__ import annotations

import json

import pytest

from relay.chatwoot.client import MOST_BYTES, Chatwoot, ChatwootError
from relay.replay import backfill
from relay.settings import Settings
from tests.relay.wire import BluntAgent


def answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def settings(url: str) -> Settings:
    return Settings(_env_file=None, chatwoot_base_url=url, chatwoot_api_key="key", chatwoot_account_id=1)  # type: ignore[call-arg]


MESSAGE = {"id": 101, "content": "hi", "message_type": 0, "created_at": 2_000_000_000, "conversation_id": 1}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" + b" " * MOST_BYTES, f"longer than {MOST_BYTES // 2**20} MiB"),
        (json.dumps({"payload": [MESSAGE | {"id": 0}]}).replace('"id": 0', '"id": 1e400').encode(), "form"),
    ],
    ids=["long", "number"],
)
async def test_an_answer_that_cannot_be_read_is_one_sentence(body: bytes, said: str) -> None:
    async with BluntAgent(answer(body)) as far, Chatwoot(settings(far.url)) as chatwoot:
        with pytest.raises(ChatwootError, match=said):
            await chatwoot.messages(1)


async def test_reading_back_ends_where_the_same_page_comes_again() -> None:
    async with (
        BluntAgent(answer(json.dumps({"payload": [MESSAGE]}).encode())) as far,
        Chatwoot(settings(far.url)) as one,
    ):
        with pytest.raises(ChatwootError, match=r"same messages again for \?before=101"):
            await backfill._messages_since(one, 1, 0)
