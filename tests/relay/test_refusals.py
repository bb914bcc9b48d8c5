"""What is refused, and how (DESIGN 2): 400, 401, 404, 405 and 413. Nothing of it is stored or forwarded."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio

from relay.chatwoot.signature import sign
from relay.settings import WEBHOOK_PATH
from tests.relay.traces import deliveries, trace
from tests.relay.wire import wire_to
from tests.servers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import httpx

    from tests.servers import AgentStandIn, Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAYLOAD = {"event": "message_created", "id": 9, "conversation": {"id": 77}}
BODY = json.dumps(PAYLOAD).encode()
LIMIT = 2_000
SECRETS = "old-secret, new-secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def signed_relay(start_shared: StartRelay) -> RunningRelay:
    """A relay that verifies signatures, by either of two secrets."""
    return await start_shared(chatwoot_webhook_secret=SECRETS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow_relay(start_shared: StartRelay) -> RunningRelay:
    """A relay that takes bodies of up to `LIMIT` bytes."""
    return await start_shared(chatwoot_webhook_max_body_bytes=LIMIT)


@pytest.fixture(autouse=True)
def _nothing_is_stored_or_forwarded_when_refused(
    request: pytest.FixtureRequest, shared_rows: Rows, shared_agent: AgentStandIn
) -> Iterator[None]:
    """Holds for every test here whose name says that something is refused."""
    stored, seen = deliveries(shared_rows), len(shared_agent.seen)
    yield
    if "refused" in request.node.name:
        assert (deliveries(shared_rows), len(shared_agent.seen)) == (stored, seen)


def assert_refused(answer: httpx.Response, status: int) -> None:
    """The answer has this status, and says why in JSON and nothing else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]


BAD_BODIES = {
    "empty": b"",
    "white space": b" \n",
    "an array": b"[]",
    "a string": b'"message_created"',
    "null": b"null",
    "a number": b"12345",
    "bad UTF-8": b'{"event": "\xff\xfe"}',
    "UTF-16": '{"event": "x"}'.encode("utf-16"),
    "NaN": b'{"event": "x", "id": NaN}',
    "Infinity": b'{"event": "x", "id": -Infinity}',
    "truncated": BODY[:-1],
    "two objects": BODY + BODY,
    "a form": b"event=message_created&id=1",
    "nested past any sane depth": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested and truncated": b'{"a":' + b"[" * 1_000_000,
}


@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_a_body_that_is_no_json_object_is_refused_with_400(shared_relay: RunningRelay, kind: str) -> None:
    assert_refused(await shared_relay.post(BAD_BODIES[kind]), 400)


async def post_signed(
    relay: RunningRelay, secret: bytes = b"old-secret", *, off_s: int = 0, body: bytes = BODY, **headers: str
) -> httpx.Response:
    """Post a webhook whose timestamp is so many seconds ahead, signed with `secret`; `headers` win."""
    timestamp = str(int(time.time()) + off_s)
    signed = {"X_Chatwoot_Timestamp": timestamp, "X_Chatwoot_Signature": sign(secret, timestamp, body)}
    return await relay.post(body, **(signed | headers))


@pytest.mark.parametrize("secret", [b"old-secret", b"new-secret"])
async def test_what_any_of_the_secrets_signed_is_taken(signed_relay: RunningRelay, secret: bytes) -> None:
    assert (await post_signed(signed_relay, secret)).status_code == 200


@pytest.mark.parametrize("off_s", [-280, 299])
async def test_a_timestamp_less_than_300_s_off_is_taken(signed_relay: RunningRelay, off_s: int) -> None:
    assert (await post_signed(signed_relay, off_s=off_s)).status_code == 200


@pytest.mark.parametrize("off_s", [-301, -86_400, 330, 86_400])
async def test_a_timestamp_more_than_300_s_off_is_refused_with_401(signed_relay: RunningRelay, off_s: int) -> None:
    answer = await post_signed(signed_relay, off_s=off_s)
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid signature"})


async def test_an_unsigned_webhook_is_refused_with_401(signed_relay: RunningRelay) -> None:
    answer = await signed_relay.post(BODY)
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid signature"})


WRONG_HEADERS: dict[str, Callable[[str], dict[str, str]]] = {
    "no timestamp": lambda _: {"X_Chatwoot_Timestamp": ""},
    "no signature": lambda _: {"X_Chatwoot_Signature": ""},
    "another time than was signed": lambda now: {"X_Chatwoot_Timestamp": str(int(now) - 60)},
    "a time that is no number": lambda _: {"X_Chatwoot_Timestamp": "now"},
    "the body alone signed": lambda _: {"X_Chatwoot_Signature": sign(b"old-secret", "", BODY)},
    "both secrets as one": lambda now: {"X_Chatwoot_Signature": sign(SECRETS.encode(), now, BODY)},
    "no secret": lambda now: {"X_Chatwoot_Signature": sign(b"", now, BODY)},
    "without its prefix": lambda now: {"X_Chatwoot_Signature": sign(b"old-secret", now, BODY)[7:]},
}


@pytest.mark.parametrize("kind", WRONG_HEADERS)
async def test_a_wrong_signature_is_refused_with_401(signed_relay: RunningRelay, kind: str) -> None:
    now = str(int(time.time()))
    answer = await post_signed(signed_relay, **({"X_Chatwoot_Timestamp": now} | WRONG_HEADERS[kind](now)))
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid signature"})


async def test_a_body_other_than_the_one_signed_is_refused_with_401(signed_relay: RunningRelay) -> None:
    now = str(int(time.time()))
    signature = sign(b"old-secret", now, BODY)
    answer = await signed_relay.post(BODY + b" ", X_Chatwoot_Timestamp=now, X_Chatwoot_Signature=signature)
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid signature"})


async def test_a_forged_webhook_is_refused_with_401_before_its_json_is_read(signed_relay: RunningRelay) -> None:
    answer = await post_signed(signed_relay, b"a guess", body=b"[]")
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid signature"})
    assert_refused(await post_signed(signed_relay, body=b"[]"), 400)


async def test_without_a_secret_unsigned_and_even_badly_signed_webhooks_are_taken(shared_relay: RunningRelay) -> None:
    assert (await shared_relay.post(BODY)).status_code == 200
    assert (await post_signed(shared_relay, b"any", off_s=-10_000)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_another_method_is_refused_with_405(shared_relay: RunningRelay, method: str) -> None:
    answer = await shared_relay.client.request(method, WEBHOOK_PATH, content=BODY)
    assert_refused(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/", "/api/webhooks", f"{WEBHOOK_PATH}//", f"{WEBHOOK_PATH}/1", "/webhooks/chatwoot", "/static/x"]
)
async def test_another_path_is_refused_with_404(shared_relay: RunningRelay, path: str) -> None:
    assert_refused(await shared_relay.client.post(path, content=BODY), 404)


async def test_a_body_of_exactly_the_limit_is_taken(narrow_relay: RunningRelay) -> None:
    assert (await narrow_relay.post(BODY.ljust(LIMIT))).status_code == 200


async def test_a_body_over_the_limit_is_refused_with_413(narrow_relay: RunningRelay) -> None:
    assert_refused(await narrow_relay.post(BODY.ljust(LIMIT + 1)), 413)


async def test_a_declared_length_over_the_limit_is_refused_with_413_before_the_body_comes(
    narrow_relay: RunningRelay,
) -> None:
    async with wire_to(narrow_relay) as wire:
        await wire.begin(f"Content-Length: {LIMIT + 1}")
        status, document = await wire.answer()
    assert (status, list(document)) == (413, ["error"])


async def test_a_client_that_sends_on_after_its_413_gets_it_nevertheless(narrow_relay: RunningRelay) -> None:
    """As nginx does, which holds the whole body: a reset while it sends would become its own 502."""
    size = 16 * 1024 * 1024  # more than sockets hold
    assert (await narrow_relay.post(b"x" * size)).status_code == 413
    async with wire_to(narrow_relay) as wire:
        await wire.begin(f"Content-Length: {size}")
        status, _ = await wire.answer()
        for _ in range(size // 2**20):
            await wire.send(b"x" * 2**20)
        wire.writer.write_eof()
        assert await wire.reader.read() == b"", "nothing but the end"
    assert status == 413


async def test_a_body_of_unknown_length_is_refused_with_413_while_it_streams_in(narrow_relay: RunningRelay) -> None:
    async with wire_to(narrow_relay) as wire:
        await wire.begin("Transfer-Encoding: chunked")
        for _ in range(LIMIT // 100 + 1):  # and it would go on
            await wire.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        status, document = await wire.answer()
    assert (status, list(document)) == (413, ["error"])


async def test_a_refused_request_ends_its_connection_however_many_parts_of_its_body_are_unread(
    narrow_relay: RunningRelay,
) -> None:
    chunks = (b"64\r\n" + b"x" * 100 + b"\r\n") * (2 * LIMIT // 100)
    for path, expected in ((WEBHOOK_PATH, 413), ("/nowhere", 404), ("/health", 405)):
        head = f"POST {path} HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        async with wire_to(narrow_relay) as wire:
            await wire.send(head + chunks)
            assert (await wire.answer())[0] == expected
            async with asyncio.timeout(PATIENCE_S):
                assert await wire.reader.read() == b""


async def test_a_body_of_unknown_length_within_the_limit_is_taken(
    narrow_relay: RunningRelay, shared_rows: Rows
) -> None:
    delivery_id = str(uuid4())
    async with wire_to(narrow_relay) as wire:
        await wire.begin("Transfer-Encoding: chunked", f"X-Chatwoot-Delivery: {delivery_id}")
        for at in range(0, len(BODY), 7):
            part = BODY[at : at + 7]
            await wire.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await wire.send(b"0\r\n\r\n")
        status, document = await wire.answer()
    assert (status, document["delivery_id"]) == (200, delivery_id)
    assert trace(shared_rows, delivery_id).body == BODY


async def test_by_default_5_mib_are_taken_and_a_byte_more_is_refused_with_413(start_one: StartRelay) -> None:
    relay = await start_one(chatwoot_webhook_secret="unknown to the sender")
    assert (await relay.post(BODY.ljust(32 * 1024 * 1024))).status_code == 401  # read to its end, and then judged
    assert_refused(await relay.post(BODY.ljust(32 * 1024 * 1024 + 1)), 413)
