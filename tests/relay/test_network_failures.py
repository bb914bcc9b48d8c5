"""What follows when the Agent SDK does not answer, or answers nonsense: three attempts, a name, a dead letter."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from relay.demo.agent import Mode
from tests.relay.traces import seen_of, trace
from tests.relay.wire import BluntAgent
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay, free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    StartRelay = Callable[..., Awaitable[RunningRelay]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAYLOAD = {"event": "message_created", "id": 9, "conversation": {"id": 77}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def assert_fails(relay: RunningRelay, rows: Rows, status: str, message: str) -> None:
    """A webhook is attempted three times, then answered 500 and dead-lettered, under this status."""
    delivery_id = str(uuid4())
    answer = await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
    document = answer.json()
    assert (answer.status_code, document["attempts"], document["retryable"]) == (500, 3, True), document
    left = trace(rows, delivery_id)
    assert [(tried.number, tried.status) for tried in left.tried] == [(1, status), (2, status), (3, status)]
    assert document["message"] == left.last_error == message
    assert (left.state, left.retries[0][0]["finalStatus"], left.retries[0][0]["success"]) == ("dead", status, False)
    assert [letter["lastError"] for letter, _ in left.dead_letters] == [message]
    assert [letter["payload"] for letter, _ in left.dead_letters] == [PAYLOAD]


@pytest.mark.parametrize("mode", [Mode.HANG, Mode.DRIP])
async def test_an_agent_that_does_not_finish_its_answer_in_time_is_a_timeout(
    start_one: StartRelay, shared_agent: AgentStandIn, shared_rows: Rows, mode: Mode
) -> None:
    relay = await start_one(agent_sdk_timeout_ms=100)
    shared_agent.behave(Behaviour(mode=mode))
    await assert_fails(relay, shared_rows, "timeout", "Agent SDK did not answer within 0.1 s")


async def test_an_agent_that_does_not_take_the_connection_in_time_is_a_timeout(
    start_one: StartRelay, shared_rows: Rows
) -> None:
    with _listener_that_accepts_nobody() as port:
        relay = await start_one(agent=f"http://127.0.0.1:{port}", agent_sdk_timeout_ms=100)
        await assert_fails(relay, shared_rows, "timeout", "Agent SDK did not answer within 0.1 s")


@contextlib.contextmanager
def _listener_that_accepts_nobody() -> Iterator[int]:
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # its queue is full, and stays so
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_port_without_a_listener_is_connection_refused(start_one: StartRelay, shared_rows: Rows) -> None:
    relay = await start_one(agent=f"http://127.0.0.1:{free_port()}")
    await assert_fails(relay, shared_rows, "connection_refused", "Agent SDK refused the connection")


@pytest.mark.parametrize("mode", [Mode.RESET, Mode.RESET_DURING])
async def test_an_agent_that_cuts_the_connection_is_connection_reset(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, mode: Mode
) -> None:
    shared_agent.behave(Behaviour(mode=mode))
    message = "Agent SDK dropped the connection before its answer was complete"
    await assert_fails(shared_relay, shared_rows, "connection_reset", message)


async def test_an_agent_that_closes_the_connection_without_a_word_is_connection_reset(
    start_one: StartRelay, shared_rows: Rows
) -> None:
    async with BluntAgent(b"") as agent:
        relay = await start_one(agent=agent.url)
        message = "Agent SDK dropped the connection before its answer was complete"
        await assert_fails(relay, shared_rows, "connection_reset", message)
        assert agent.asked == 3


async def test_a_network_without_a_way_to_the_agent_is_unreachable(start_one: StartRelay, shared_rows: Rows) -> None:
    relay = await start_one(agent="http://224.0.0.1:8787")  # a multicast address: no connection leads there
    await assert_fails(relay, shared_rows, "unreachable", "Agent SDK's host is unreachable")


async def test_a_name_that_does_not_resolve_is_a_dns_failure(start_one: StartRelay, shared_rows: Rows) -> None:
    relay = await start_one(agent="http://no-such-host.invalid")
    await assert_fails(relay, shared_rows, "dns_failure", "Agent SDK's host name does not resolve")


async def test_an_agent_that_does_not_speak_tls_is_a_tls_error(
    start_one: StartRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    asked = len(shared_agent.seen)
    relay = await start_one(agent=shared_agent.url.replace("http:", "https:"))
    await assert_fails(relay, shared_rows, "tls_error", "The TLS handshake with the Agent SDK failed")
    assert len(shared_agent.seen) == asked


def _self_signed(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that it made itself."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_an_agent_with_an_untrusted_certificate_is_a_tls_error(
    start_one: StartRelay, shared_rows: Rows, tmp_path: Path
) -> None:
    tls = await asyncio.to_thread(_self_signed, tmp_path)
    async with BluntAgent(HEAD + b"Content-Length: 2\r\n\r\n{}", tls=tls) as agent:
        relay = await start_one(agent=agent.url)
        await assert_fails(relay, shared_rows, "tls_error", "The TLS handshake with the Agent SDK failed")
        assert agent.asked == 0


NONSENSE = {
    "not HTTP": b"\x00\x01\x02 hello\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a status that is no number": b"HTTP/1.1 OK\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_an_answer_that_is_not_http_is_a_protocol_error(
    start_one: StartRelay, shared_rows: Rows, nonsense: str
) -> None:
    async with BluntAgent(NONSENSE[nonsense]) as agent:
        relay = await start_one(agent=agent.url)
        await assert_fails(relay, shared_rows, "protocol_error", "Agent SDK's answer was not valid HTTP")
        assert agent.asked == 3


GOOD = {
    "no length, closed": HEAD + b'\r\n{"status": "drafted"}',
    "HTTP/1.0": b'HTTP/1.0 200 OK\r\n\r\n{"status": "drafted"}',
    "chunks": HEAD + b'Transfer-Encoding: chunked\r\n\r\n15\r\n{"status": "drafted"}\r\n0\r\n\r\n',
    "no reason": b'HTTP/1.1 200\r\nContent-Length: 21\r\n\r\n{"status": "drafted"}',
    "a hint before": b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + b'Content-Length: 21\r\n\r\n{"status": "drafted"}',
}


@pytest.mark.parametrize("form", GOOD)
async def test_an_odd_but_valid_answer_delivers(start_one: StartRelay, form: str) -> None:
    async with BluntAgent(GOOD[form]) as agent:
        relay = await start_one(agent=agent.url)
        answer = await relay.post(PAYLOAD)
        assert (answer.status_code, answer.json().get("agent_status")) == (200, "drafted"), answer.text
        assert agent.asked == 1


STATUSLESS = {
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "text": HEAD + b"Content-Length: 8\r\n\r\naccepted",
    "packed, though not asked to": HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b'{"status": "x"}'),
    "packed badly": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip",
    "not UTF-8": HEAD + b"Content-Length: 14\r\n\r\n" + b'{"status":"\xff"}',
}


@pytest.mark.parametrize("form", STATUSLESS)
async def test_a_2xx_delivers_whatever_its_body_is(start_one: StartRelay, form: str) -> None:
    async with BluntAgent(STATUSLESS[form]) as agent:
        relay = await start_one(agent=agent.url)
        answer = await relay.post(PAYLOAD)
        assert (answer.status_code, answer.json().get("agent_status")) == (200, None), answer.text
        assert agent.asked == 1


async def test_an_answer_without_end_is_read_as_far_as_it_is_wanted(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(mode=Mode.HUGE))
    delivery_id = str(uuid4())
    answer = await shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
    assert (answer.status_code, answer.json()["agent_status"]) == (200, None)
    left = trace(shared_rows, delivery_id)
    assert (left.state, left.attempts, set(left.tried[0].answer)) == ("delivered", 1, {" "})
    assert len(left.tried[0].answer) <= 64 * 1024


async def test_a_failed_connection_does_not_spoil_the_next_delivery(
    shared_relay: RunningRelay, shared_agent: AgentStandIn
) -> None:
    shared_agent.behave(Behaviour(mode=Mode.RESET, times=1), Behaviour(mode=Mode.GARBAGE, times=1))
    delivery_id = str(uuid4())
    answer = await shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
    assert (answer.status_code, answer.json().get("attempts")) == (200, 3), answer.text
    assert len(seen_of(shared_agent, delivery_id)) == 3
    answer = await shared_relay.post(PAYLOAD)
    assert (answer.status_code, answer.json()["attempts"]) == (200, 1)


async def test_credentials_in_the_agents_url_are_used_and_shown_nowhere(
    start_one: StartRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    secretive: Any = shared_agent.url.replace("//", "//me:hush-hush@")
    relay = await start_one(agent=secretive)
    shared_agent.behave(Behaviour(status=503))
    delivery_id = str(uuid4())
    await relay.post(PAYLOAD | {"conversation": {"id": 78}}, X_Chatwoot_Delivery=delivery_id)  # else it waits for 77's
    (letter, _) = trace(shared_rows, delivery_id).dead_letters[0]
    assert letter["agentEndpoint"] == f"{shared_agent.url}/webhooks/chatwoot"
    assert "hush-hush" not in relay.output + str(shared_rows("SELECT agent FROM relay.instances"))
    assert seen_of(shared_agent, delivery_id)[0].headers["authorization"].startswith("Basic ")
