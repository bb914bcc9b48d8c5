"""Bodies that a sender or a proxy compresses: read decoded, forwarded as they came, within the body limit."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
import zlib
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from relay.chatwoot.signature import sign
from relay.store.replays import PlanState
from tests.relay.operators import Operator
from tests.relay.wire import wire_to
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from relay.demo.agent import AgentStandIn
    from tests.servers import Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps({"event": "message_created", "id": 9, "conversation": {"id": 77}, "content": "é" * 500}).encode()
LIMIT = 200_000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODED = {
    "gzip": ("gzip", gzip.compress(BODY, mtime=0)),
    "x-gzip in capitals": ("X-GZip", gzip.compress(BODY, mtime=0)),
    "gzip beside identity": ("identity , gzip,", gzip.compress(BODY, mtime=0)),
    "gzip in two members": ("gzip", gzip.compress(BODY[:100], mtime=0) + gzip.compress(BODY[100:])),
    "gzip with padding": ("gzip", gzip.compress(BODY, mtime=0) + bytes(512)),
    "deflate": ("deflate", zlib.compress(BODY)),
    "deflate without zlib's header": ("deflate", raw_deflate(BODY)),
}


def counted(rows: Rows) -> dict[str, int]:
    """Rejections by reason."""
    facts = rows.facts("support.webhook.rejected")
    return {f"{value['reason']} {value['status']}": value["count"] for value, _ in facts}


@pytest.mark.parametrize("kind", ENCODED)
async def test_an_encoded_body_is_read_decoded_and_forwarded_as_it_came(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows, kind: str
) -> None:
    encoding, sent = ENCODED[kind]
    answer = await relay.post(sent, Content_Encoding=encoding)
    assert answer.status_code == 200, answer.text
    (seen,) = agent.seen
    assert (seen.body, seen.headers["content-encoding"]) == (sent, encoding)
    assert rows("SELECT body, encoded_body, event, conversation_id FROM relay.deliveries") == [
        (BODY, sent, "message_created", "77")
    ]


@pytest.mark.parametrize("encoding", ["identity", "", "Identity, identity"])
async def test_an_identity_body_is_taken_as_it_is(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows, encoding: str
) -> None:
    assert (await relay.post(BODY, Content_Encoding=encoding)).status_code == 200
    assert [seen.body for seen in agent.seen] == [BODY]
    assert rows("SELECT body, encoded_body FROM relay.deliveries") == [(BODY, None)]


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "br, gzip", "gzip;q=1", "x" * 900])
async def test_any_other_encoding_is_refused_with_415_that_names_those_taken(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows, encoding: str
) -> None:
    answer = await relay.post(gzip.compress(BODY, mtime=0), Content_Encoding=encoding)
    assert answer.status_code == 415
    assert list(answer.json()) == ["error"]
    for taken in ("gzip", "deflate", "identity"):
        assert taken in answer.json()["error"]
        assert taken in answer.headers["accept-encoding"]
    assert len(answer.content) < 1_000
    await until(lambda: counted(rows) == {"unsupported_encoding 415": 1})
    assert not agent.seen
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


BROKEN = {
    "no gzip at all": ("gzip", BODY),
    "truncated gzip": ("gzip", gzip.compress(BODY, mtime=0)[:-1]),
    "half of a gzip stream": ("gzip", gzip.compress(os.urandom(1000), mtime=0)[:500]),
    "a wrong checksum": ("gzip", gzip.compress(BODY, mtime=0)[:-8] + b"\0" * 8),
    "something behind it": ("gzip", gzip.compress(BODY, mtime=0) + b"{}"),
    "no deflate at all": ("deflate", b"\xff" * 50),
    "truncated deflate": ("deflate", zlib.compress(BODY)[:-2]),
    "truncated raw deflate": ("deflate", raw_deflate(BODY)[:-2]),
    "something behind deflate": ("deflate", zlib.compress(BODY) + b"{}"),
    "one byte": ("deflate", b"x"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_stream_that_is_corrupt_or_not_whole_is_refused_with_400(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows, kind: str
) -> None:
    encoding, sent = BROKEN[kind]
    answer = await relay.post(sent, Content_Encoding=encoding)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert "Content-Encoding" in answer.json()["error"]
    await until(lambda: counted(rows) == {"corrupt_encoding 400": 1})
    assert not agent.seen
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


@pytest.mark.parametrize("sent", [b"", *(gzip.compress(body, mtime=0) for body in (b"", b"[]", b"\xff"))])
async def test_what_is_no_json_object_once_it_is_decoded_is_refused_with_400(relay: RunningRelay, sent: bytes) -> None:
    assert (await relay.post(sent, Content_Encoding="gzip")).status_code == 400


def gzipped_blanks(size: int) -> bytes:
    """A JSON object that is `size` bytes long, compressed."""
    return gzip.compress(b'{"event": "x"' + b" " * (size - 14) + b"}", mtime=0)


async def test_the_limit_holds_for_the_decoded_body_to_the_byte(
    start_one: StartRelay, agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_one(chatwoot_webhook_max_body_bytes=LIMIT)
    assert (await relay.post(gzipped_blanks(LIMIT), Content_Encoding="gzip")).status_code == 200
    for sent in (
        gzipped_blanks(LIMIT + 1),
        gzipped_blanks(50 * LIMIT),
        gzipped_blanks(LIMIT) + gzip.compress(b" ", mtime=0),
    ):
        answer = await relay.post(sent, Content_Encoding="gzip")
        assert (answer.status_code, list(answer.json())) == (413, ["error"])
    assert rows("SELECT count(*) FROM relay.deliveries") == [1]


async def test_a_bomb_is_refused_while_it_streams_in(start_one: StartRelay) -> None:
    relay = await start_one(chatwoot_webhook_max_body_bytes=LIMIT)
    bomb = gzip.compress(bytes(100 * LIMIT), mtime=0)
    assert len(bomb) < LIMIT
    async with wire_to(relay) as wire:
        await wire.begin("Content-Encoding: gzip", f"Content-Length: {len(bomb)}")
        await wire.send(bomb[:5_000])
        assert (await wire.answer())[0] == 413  # though the rest has not come


async def test_a_body_that_comes_byte_by_byte_is_decoded(relay: RunningRelay, agent: AgentStandIn) -> None:
    for encoding, sent in (ENCODED["gzip in two members"], ENCODED["deflate without zlib's header"]):
        async with wire_to(relay) as wire:
            await wire.begin(f"Content-Encoding: {encoding}", "Transfer-Encoding: chunked")
            for byte in sent:
                await wire.send(b"1\r\n" + bytes([byte]) + b"\r\n")
                await asyncio.sleep(0)
            await wire.send(b"0\r\n\r\n")
            assert (await wire.answer())[0] == 200
        assert agent.seen[-1].body == sent


async def post_signed(relay: RunningRelay, signed: bytes, sent: bytes, **headers: str) -> httpx.Response:
    timestamp = str(int(time.time()))
    signature = sign(b"s3cret", timestamp, signed)
    return await relay.post(sent, X_Chatwoot_Timestamp=timestamp, X_Chatwoot_Signature=signature, **headers)


async def test_a_signature_may_fit_the_body_as_it_came_or_as_it_is_decoded(
    start_one: StartRelay, agent: AgentStandIn
) -> None:
    relay, sent = await start_one(chatwoot_webhook_secret="s3cret"), gzip.compress(BODY, mtime=0)
    for signed in (sent, BODY):
        assert (await post_signed(relay, signed, sent, Content_Encoding="gzip")).status_code == 200
    assert [seen.body for seen in agent.seen] == [sent, sent]
    assert (await post_signed(relay, BODY + b" ", sent, Content_Encoding="gzip")).status_code == 401
    assert (await post_signed(relay, BODY, sent)).status_code == 401  # its encoding is not named


async def test_a_captured_body_is_no_other_webhook_once_it_is_compressed(
    start_one: StartRelay, agent: AgentStandIn
) -> None:
    relay = await start_one(chatwoot_webhook_secret="s3cret")
    timestamp = str(int(time.time()))
    captured = {"X_Chatwoot_Timestamp": timestamp, "X_Chatwoot_Signature": sign(b"s3cret", timestamp, BODY)}
    first = (await relay.post(BODY, X_Chatwoot_Delivery=str(uuid4()), **captured)).json()["delivery_id"]
    for encoding, sent in ENCODED.values():
        answer = await relay.post(sent, X_Chatwoot_Delivery=str(uuid4()), Content_Encoding=encoding, **captured)
        assert (answer.json()["duplicate"], answer.json()["delivery_id"]) == (True, first)
    assert len(agent.seen) == 1


async def test_a_replay_sends_the_body_as_it_came_and_an_edited_one_without_its_encoding(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows
) -> None:
    agent.behave(Behaviour(status=422))
    sent, edited = gzip.compress(BODY, mtime=0), b'{"event": "edited"}'
    for delivery_id in ("as it came", "edited"):
        body = {"X_Chatwoot_Delivery": delivery_id.replace(" ", "-"), "Content_Encoding": "gzip"}
        assert (await relay.post(sent, **body)).status_code == 500
    assert [letter["payload"] for letter, _ in rows.facts("support.webhook.dead_letter")] == [json.loads(BODY)] * 2
    agent.behave()
    async with Operator(rows.dsn) as operator:
        await operator.reaches(await operator.ask("as-it-came"), PlanState.DONE)
        await operator.reaches(await operator.ask("edited", edited_body=edited), PlanState.DONE)
    came, other = list(agent.seen)[-2:]
    assert (came.body, came.headers["content-encoding"]) == (sent, "gzip")
    assert (other.body, other.headers.get("content-encoding")) == (edited, None)


async def test_a_delivery_that_is_taken_over_keeps_its_encoding(
    start_one: StartRelay, agent: AgentStandIn, rows: Rows
) -> None:
    relay, sent = await start_one(), gzip.compress(BODY, mtime=0)
    agent.behave(Behaviour(status=422))
    assert (await relay.post(sent, Content_Encoding="gzip")).status_code == 500
    agent.behave()
    rows("UPDATE relay.deliveries SET state = 'received'")  # as a relay that stops leaves it
    await until(lambda: len(agent.seen) == 2)
    assert (agent.seen[-1].body, agent.seen[-1].headers["content-encoding"]) == (sent, "gzip")
