"""Clients that misbehave: each is answered 4xx or hung up on, costs no memory, and blocks no other client."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import resource
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import hypothesis.strategies as st
import pytest
import pytest_asyncio

from relay.chatwoot.signature import sign
from relay.settings import WEBHOOK_PATH
from tests.faults.ledger import Ledger
from tests.servers import ANSWER_MS, PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.faults.conftest import RelayProcess, Senders
    from tests.servers import Rows

pytestmark = pytest.mark.faults
BODY = b'{"event":"message_created","id":1}'
REQUEST = (
    f"POST {WEBHOOK_PATH} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n"
    f"content-length: {len(BODY)}\r\n\r\n"
).encode() + BODY
MEMORY_MB = 60
"""What abuse may cost at most for a while, in resident memory."""


def open_files(relay: RelayProcess) -> int:
    """How many files and sockets the relay holds."""
    return len(list(Path(f"/proc/{relay.pid}/fd").iterdir()))


def memory_mb(relay: RelayProcess) -> float:
    """Its resident set, in MB."""
    (line,) = (line for line in Path(f"/proc/{relay.pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def answer_to(relay: RelayProcess, data: bytes, *, end_after_s: float = PATIENCE_S) -> int:
    """The status of the answer to `data` and nothing after it, 0 if the relay hangs up without one.

    When there is no answer within `end_after_s`, the relay may wait for more data, so the client ends its side.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    line = b""
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        answering = asyncio.create_task(reader.readline())
        await asyncio.wait((answering,), timeout=end_after_s)
        with contextlib.suppress(OSError):
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            line = await answering
            while await reader.read(65536):
                pass
    writer.transport.abort()
    return int(line.split()[1]) if line.startswith(b"HTTP/1.") else 0


@pytest_asyncio.fixture
async def relay(make_relay: Callable[..., RelayProcess]) -> RelayProcess:
    """A relay that runs, with a limit for bodies that a few of them exceed."""
    patient = {"chatwoot_webhook_response_deadline_ms": ANSWER_MS, "relay_lease_seconds": 60}
    return await make_relay(chatwoot_webhook_max_body_bytes=5 * 1024 * 1024, **patient).start()


@pytest_asyncio.fixture
async def unharmed(relay: RelayProcess, senders: Senders, rows: Rows) -> AsyncIterator[None]:
    """Good webhooks are delivered meanwhile and afterwards, nothing else is stored, and memory stays where it was."""
    ledger, stop = Ledger(), asyncio.Event()
    assert await senders.post(relay.url, ledger) == 200
    before = memory_mb(relay)
    posting = asyncio.create_task(senders.keep_posting([relay.url], ledger, 2, stop))
    yield
    for _ in range(20):
        assert await senders.post(relay.url, ledger) == 200
    stop.set()
    await posting
    assert set(ledger.statuses.values()) == {200}
    assert rows.one("SELECT count(*) FROM relay.deliveries") == len(ledger.statuses)
    assert memory_mb(relay) < before + MEMORY_MB


async def test_a_connection_ends_with_its_client_and_not_with_the_keep_alive_time_out(relay: RelayProcess) -> None:
    writers = []
    for _ in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writers.append(writer)
    held = open_files(relay)  # not compared with a count before: what the relay opens of its own comes and goes
    for writer in writers:
        writer.close()
    await until(lambda: open_files(relay) <= held - 80, what="the sockets are closed")


async def test_ten_thousand_idle_and_half_open_connections_block_no_other_client(
    relay: RelayProcess, senders: Senders
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ledger, before = Ledger(), open_files(relay)
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(min(10_000, hard - 1_000)):
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(REQUEST[: number % len(REQUEST)])
            writers.append(writer)
        statuses = await asyncio.gather(*(senders.post(relay.url, ledger) for _ in range(50)))
        assert statuses == [200] * 50
    finally:
        for writer in writers:
            writer.transport.abort()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: open_files(relay) < before + 100, what="the sockets are closed")


async def test_a_head_or_a_body_that_comes_byte_by_byte_is_hung_up_on(
    relay: RelayProcess, senders: Senders, unharmed: None
) -> None:
    head, before = REQUEST[: -len(BODY)], open_files(relay)
    links = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(200)]
    drips = [(head[:40], b"x"), (head.replace(b"content-length: ", b"content-length: 9"), b" ")]
    for number, (_, writer) in enumerate(links):
        writer.write(drips[number % 2][0])

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.5)
            for number, (_, writer) in enumerate(links):
                with contextlib.suppress(ConnectionError):
                    writer.write(drips[number % 2][1])

    dripping = asyncio.create_task(drip())
    await until(lambda: open_files(relay) >= before + 180)
    await until(lambda: open_files(relay) < before + 20, what="the relay closes them")
    dripping.cancel()
    for _, writer in links:
        writer.transport.abort()


def _headed(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"POST {WEBHOOK_PATH} HTTP/1.1", "host: relay", *lines, "", "")).encode("latin-1") + body


NOISE = random.Random(4)
BAD = {
    "a header of a megabyte": _headed("x: " + "x" * 1_000_000, "content-length: 0"),
    "ten thousand headers": _headed(*(f"x-{number}: {number}" for number in range(10_000)), "content-length: 0"),
    "a path of a megabyte": b"POST /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: relay\r\n\r\n",
    "a header without a name": _headed(": x", "content-length: 2", body=b"{}"),
    "no host": REQUEST.replace(b"host: relay\r\n", b""),
    "two lengths": _headed("content-length: 2", "content-length: 3", body=b"{}"),
    "a negative length": _headed("content-length: -1", body=b"{}"),
    "a length that is no number": _headed("content-length: ten", body=b"{}"),
    "a length that is a lie": _headed("content-length: 100", body=b"{}"),
    "a chunk of no size": _headed("transfer-encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk of a negative size": _headed("transfer-encoding: chunked", body=b"-2\r\n{}\r\n0\r\n\r\n"),
    "chunks without end": _headed("transfer-encoding: chunked", body=b"100000\r\n" + b" " * 0x100000 + b"\r\n" * 1),
    "more than the limit in chunks": _headed(
        "transfer-encoding: chunked", body=(b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 8
    ),
    "a compressed bomb": _headed(
        "content-encoding: gzip", f"content-length: {len(gzip.compress(bytes(100_000_000), 1))}",
        body=gzip.compress(bytes(100_000_000), 1),
    ),
    "a trailer without end": _headed("transfer-encoding: chunked", body=b"0\r\n" + b"x: y\r\n" * 100_000),
    "a target that is a query": REQUEST.replace(WEBHOOK_PATH.encode(), b"?x"),
    "a target that is no URL": REQUEST.replace(WEBHOOK_PATH.encode(), b"http://["),
    "a target whose host is none": REQUEST.replace(WEBHOOK_PATH.encode(), b"http://%5B/x"),
    "a target with slashes to merge": REQUEST.replace(b"webhooks/", b"webhooks//"),
    "a target for a proxy": REQUEST.replace(f"POST {WEBHOOK_PATH}".encode(), b"CONNECT relay:443"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + NOISE.randbytes(506),
    **{f"noise {number}": NOISE.randbytes(NOISE.randrange(1, 5_000)) for number in range(20)},
    "noise for a body": _headed("content-length: 2000", body=NOISE.randbytes(2_000)),
}  # fmt: skip


WHOLE = {"more than the limit in chunks", "a compressed bomb", "noise for a body"}
"""What is a request to its end, so that there is an answer to it."""


async def test_what_is_no_good_request_is_answered_4xx_or_hung_up_on(relay: RelayProcess, unharmed: None) -> None:
    answers = [answer_to(relay, data, end_after_s=PATIENCE_S if kind in WHOLE else 2) for kind, data in BAD.items()]
    statuses = dict(zip(BAD, await asyncio.gather(*answers), strict=True))
    assert {kind: status for kind, status in statuses.items() if status and not 400 <= status < 500} == {}
    assert {statuses[kind] for kind in BAD if "limit" in kind} == {413}
    assert {statuses[kind] for kind in BAD if "noise for" in kind} == {400}
    assert {statuses[kind] for kind in BAD if "bomb" in kind} == {413}


@pytest.mark.parametrize("host", ["a..b", "x" * 300, "[::1", "\xff\xfe", "a b"])
async def test_any_host_header_is_accepted(relay: RelayProcess, host: str) -> None:
    assert await answer_to(relay, REQUEST.replace(b"host: relay", b"host: " + host.encode("latin-1"))) == 200


UPGRADES = {
    "half a handshake": ("connection: upgrade", "upgrade: websocket"),
    "a handshake that is not ASCII": ("connection: upgrade, \xff", "upgrade: websocket", "sec-websocket-version: 13"),
    "HTTP/2": ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: !"),
}


@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_an_upgrade_to_another_protocol_is_ignored(relay: RelayProcess, upgrade: str, unharmed: None) -> None:
    asked = _headed(*UPGRADES[upgrade], "content-length: 0")
    for path, status in ((WEBHOOK_PATH, 405), ("/health", 200), ("/nowhere", 404)):
        data = asked.replace(f"POST {WEBHOOK_PATH}".encode(), f"GET {path}".encode())
        assert await answer_to(relay, data) == status
    assert "Unhandled" not in relay.output


async def test_who_takes_no_answer_is_hung_up_on(make_relay: Callable[..., RelayProcess], senders: Senders) -> None:
    relay = await make_relay().hurry(2).start()
    before, asked = open_files(relay), b"GET /metrics HTTP/1.1\r\nhost: relay\r\n\r\n" * 100
    with socket.create_connection(("127.0.0.1", relay.port)) as sock:
        sock.setblocking(False)

        def is_hung_up_on() -> bool:
            try:
                while sock.send(asked):
                    pass
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            return False

        await until(is_hung_up_on, what="the relay hangs up on the client")
        await until(lambda: open_files(relay) < before + 5, what="the socket is closed")
    assert await senders.post(relay.url, Ledger()) == 200


async def test_of_a_signed_webhook_no_byte_that_counts_can_be_changed(
    make_relay: Callable[..., RelayProcess], senders: Senders, rows: Rows
) -> None:
    relay = await make_relay(chatwoot_webhook_secret="s3cret").start()
    timestamp = str(int(time.time()))
    signature = sign(b"s3cret", timestamp, BODY)
    signed = ("x-chatwoot-signature: " + signature, "x-chatwoot-timestamp: " + timestamp)
    good = _headed(*signed, f"content-length: {len(BODY)}", "x-chatwoot-delivery: flipped", body=BODY)
    counts = {*range(len(good) - len(BODY), len(good))}
    for value in (signature, timestamp):
        begin = good.index(value.encode())
        counts |= {*range(begin, begin + len(value))}
    statuses: dict[tuple[int, int], int] = {}
    for bit in (0x01, 0x80):
        for at in range(len(good)):
            changed = good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
            statuses[at, bit] = await answer_to(relay, changed, end_after_s=2)
    assert {key: status for key, status in statuses.items() if status >= 500} == {}
    assert {key: status for key, status in statuses.items() if key[0] in counts and 200 <= status < 300} == {}
    assert await answer_to(relay, good) == 200
    bodies = rows("SELECT DISTINCT body FROM relay.deliveries")
    assert [bytes(body) for body in bodies] == [BODY]


_TOKENS = st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE", "CONNECT", "\x00", "P OST", "post"])
_PATHS = st.sampled_from(
    [WEBHOOK_PATH, WEBHOOK_PATH + "/", WEBHOOK_PATH.upper(), "/health", "/metrics", "/", "*", "//", "/%00", "/%ff",
     "?", "http://[", "http://%5B/health", WEBHOOK_PATH.replace("/", "//"), "/health?" + "a=b&" * 50,
     "http://other/health", WEBHOOK_PATH + "?x=%zz", "/../health"]
)  # fmt: skip
_VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["Content-Type", "Content-Encoding", "Transfer-Encoding", "Expect", "Upgrade", "Connection", "Cookie",
             "X-Chatwoot-Delivery", "X-Chatwoot-Signature", "X-Forwarded-From", "Range", "Accept", "Authorization"]
        ),
        _VALUES | st.sampled_from(["gzip", "100-continue", "websocket", "h2c", "close", "chatwoot-test", "bytes=0-"]),
    ),
    max_size=5,
)  # fmt: skip
_BODIES = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
)


@pytest.mark.asyncio(loop_scope="function")
async def test_whatever_is_asked_there_is_no_5xx(relay: RelayProcess, senders: Senders) -> None:
    loop, asked = asyncio.get_running_loop(), 0

    @hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @hypothesis.given(_TOKENS, _PATHS, _HEADERS, _BODIES)
    def ask(method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> None:
        nonlocal asked
        lines = [f"{method} {path} HTTP/1.1", "Host: relay", *(f"{name}: {value}" for name, value in headers)]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1")
        status = asyncio.run_coroutine_threadsafe(answer_to(relay, head + body, end_after_s=2), loop).result(
            2 * PATIENCE_S
        )
        assert status < 500 or status == 501  # RFC 9112, 6.1: a transfer coding that is not understood
        asked += 1

    await asyncio.to_thread(ask)
    assert asked >= 100
    assert await senders.post(relay.url, Ledger()) == 200
