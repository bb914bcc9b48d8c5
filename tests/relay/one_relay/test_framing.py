"""Requests that state their length in two ways, or in one that their version does not have (RFC 9112, 6.1)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from relay.settings import WEBHOOK_PATH
from tests.relay.wire import PATIENCE_S, wire_to

if TYPE_CHECKING:
    from relay.demo.agent import AgentStandIn
    from tests.servers import Rows, RunningRelay

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = b'{"event": "message_created", "id": 1}'
CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
SMUGGLED = f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: relay\r\nContent-Length: 12\r\n\r\n".encode() + b'{"event": 2}'


async def all_answers(relay: RunningRelay, data: bytes) -> bytes:
    """Everything that the relay sends until it closes the connection."""
    async with wire_to(relay) as wire:
        await wire.send(data)
        async with asyncio.timeout(PATIENCE_S):
            return await wire.reader.read()


def request(*headers: str, version: str = "1.1") -> bytes:
    lines = (f"POST {WEBHOOK_PATH} HTTP/{version}", "Host: relay", *headers, "", "")
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("length", [len(CHUNKED), len(CHUNKED) + len(SMUGGLED), 4, 999_999_999_999])
@pytest.mark.parametrize("first", ["length", "coding"])
async def test_a_request_with_both_is_read_by_its_chunks_and_is_its_connections_last(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows, length: int, first: str
) -> None:
    headers = [f"Content-Length: {length}", "Transfer-Encoding: chunked"][:: 1 if first == "length" else -1]
    answers = await all_answers(relay, request(*headers) + CHUNKED + SMUGGLED)
    head, _, _ = answers.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head.lower()
    assert answers.count(b"HTTP/1.1") == 1
    assert [seen.body for seen in agent.seen] == [BODY]
    assert rows("SELECT body FROM relay.deliveries") == [BODY]


async def test_a_refused_request_with_both_is_its_connections_last(relay: RunningRelay) -> None:
    for path in ("/api/webhooks/other", "/health"):
        asked = request("Content-Length: 3", "Transfer-Encoding: Chunked").replace(WEBHOOK_PATH.encode(), path.encode())
        answers = await all_answers(relay, asked + CHUNKED + SMUGGLED)
        assert answers.startswith(b"HTTP/1.1 40")
        assert b"connection: close" in answers.lower()
        assert answers.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("headers", [(), ("Content-Length: 3",), ("Connection: keep-alive",)])
async def test_http_1_0_with_a_transfer_encoding_is_refused_and_its_connection_closed(
    relay: RunningRelay, rows: Rows, headers: tuple[str, ...]
) -> None:
    asked = request("Transfer-Encoding: chunked", *headers, version="1.0")
    answers = await all_answers(relay, asked + CHUNKED + SMUGGLED)
    assert answers.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in answers.lower()
    assert answers.count(b"HTTP/1.1") == 1
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


async def test_a_request_framed_in_one_way_leaves_its_connection_open(relay: RunningRelay) -> None:
    async with wire_to(relay) as wire:
        for _ in range(2):
            await wire.send(request("Transfer-Encoding: chunked") + CHUNKED)
            assert (await wire.answer())[0] == 200
            await wire.send(request(f"Content-Length: {len(BODY)}") + BODY)
            assert (await wire.answer())[0] == 200


async def test_a_request_is_answered_alike_however_its_bytes_come(relay: RunningRelay, rows: Rows) -> None:
    async with wire_to(relay) as wire:
        for body, status in {BODY: 200, b"[]": 400, b"": 400}.items():
            asked = request(f"Content-Length: {len(body)}", "X-Chatwoot-Delivery: one") + body
            end = len(asked) - len(body)
            heads = set()
            for parts in ([asked], [asked[:end], asked[end:]], [asked[:20], asked[20:]], [asked + asked]):
                for part in parts:
                    await wire.send(part)
                for _ in range(b"".join(parts).count(b"HTTP/1.1")):
                    async with asyncio.timeout(PATIENCE_S):
                        head = await wire.reader.readuntil(b"\r\n\r\n")
                        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                        assert json.loads(await wire.reader.readexactly(length))
                    assert head.startswith(b"HTTP/1.1 %d " % status)
                    heads.add(tuple(line.partition(b":")[0] for line in head.split(b"\r\n")))
            assert len(heads) == 1, "the same headers in the same order"
    assert rows("SELECT count(*) FROM relay.deliveries") == [1]


async def test_a_method_in_small_letters_is_another_method(relay: RunningRelay, rows: Rows) -> None:
    for method, path in (("post", WEBHOOK_PATH), ("Post", WEBHOOK_PATH), ("get", "/health")):
        asked = request(f"Content-Length: {len(BODY)}", "Connection: close").replace(b"POST", method.encode())
        answers = await all_answers(relay, asked.replace(WEBHOOK_PATH.encode(), path.encode()) + BODY)
        assert answers.startswith(b"HTTP/1.1 405"), answers
        assert answers.count(b"HTTP/1.1") == 1
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


async def test_a_client_that_closes_its_own_side_only_gets_its_answer(relay: RunningRelay, rows: Rows) -> None:
    for asked, status in (
        (b"GET /health HTTP/1.1\r\nHost: relay\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n", b"200"),
        (request(f"Content-Length: {len(BODY)}") + BODY, b"200"),
        (request(f"Content-Length: {len(BODY)}") + BODY + b"GET /health HTTP/1.1\r\nHost: relay\r\n\r\n", b"200"),
        (request("Content-Length: 999") + BODY, None),
    ):
        async with wire_to(relay) as wire, asyncio.timeout(PATIENCE_S):
            await wire.send(asked)
            wire.writer.write_eof()
            answers = await wire.reader.read()
        if status is not None:
            assert answers.startswith(b"HTTP/1.1 " + status), answers
        assert answers.count(b"HTTP/1.1 200") == (asked.count(b" HTTP/1.1") if status else 0), answers
    assert rows("SELECT count(*) FROM relay.deliveries") == [2]
