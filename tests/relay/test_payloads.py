"""Chatwoot's four documented payloads, signed by whatever on this machine can sign, arrive byte for byte."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from importlib import resources
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio

from relay.demo.chatwoot import EVENTS, documented_payload, rails_json
from tests.relay.traces import seen_of, trace
from tests.servers import PATIENCE_S, AgentStandIn, Behaviour, Rows, RunningRelay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "Kp9-secret_of/the+webhook="

_PERL = "use Digest::SHA 'hmac_sha256_hex'; undef $/; print hmac_sha256_hex(<STDIN>, $ARGV[0])"
_NODE = "process.stdout.write(require('crypto').createHmac('sha256', process.argv[1]).update(require('fs').readFileSync(0)).digest('hex'))"  # noqa: E501
_RUBY = "require 'openssl'; print OpenSSL::HMAC.hexdigest('SHA256', ARGV[0], STDIN.binmode.read)"
_PHP = "echo hash_hmac('sha256', file_get_contents('php://stdin'), $argv[1]);"
_COMMANDS = {
    "openssl": ["openssl", "dgst", "-sha256", "-hmac", SECRET],
    "perl": ["perl", "-e", _PERL, SECRET],
    "node": ["node", "-e", _NODE, SECRET],
    "ruby": ["ruby", "-e", _RUBY, SECRET],
    "php": ["php", "-r", _PHP, SECRET],
}


def hmac_by(signer: str, signed: bytes) -> str:
    """HMAC-SHA256 with the secret, as one of the programs computes it; lower-case hex."""
    done = subprocess.run(_COMMANDS[signer], input=signed, capture_output=True, check=True, timeout=PATIENCE_S)
    return done.stdout.decode().split()[-1]


def _can_sign(signer: str) -> bool:
    if shutil.which(_COMMANDS[signer][0]) is None:
        return False
    try:
        hmac_by(signer, b"")
    except (OSError, subprocess.SubprocessError):  # there, but without what it takes
        return False
    return True


_SIGNED_AT: set[int] = set()
SIGNERS = ["openssl", *(signer for signer in _COMMANDS if signer != "openssl" and _can_sign(signer))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def signed_relay(start_shared: Callable[..., Awaitable[RunningRelay]]) -> RunningRelay:
    """A relay that verifies signatures."""
    return await start_shared(chatwoot_webhook_secret=f"of another webhook,{SECRET}")


def as_documented(event: str) -> bytes:
    """The sample of an event, byte for byte as it is documented."""
    return (resources.files("relay.chatwoot") / "payloads" / f"{event}.json").read_bytes()


def as_rails_writes_it(event: str) -> bytes:
    """The sample of an event as Chatwoot's server serialises it, with characters that it escapes."""
    return rails_json(documented_payload(event) | {"content": "<b>déjà</b> & \u2028 😀"})


async def post_signed(relay: RunningRelay, signer: str, body: bytes, delivery_id: str) -> httpx.Response:
    """Post a body as Chatwoot does, its signature made by another program; no two signatures are the same."""
    second = next(second for second in range(int(time.time()), 0, -1) if second not in _SIGNED_AT)
    _SIGNED_AT.add(second)
    timestamp = str(second)
    digest = await asyncio.to_thread(hmac_by, signer, timestamp.encode() + b"." + body)
    return await relay.post(
        body, X_Chatwoot_Delivery=delivery_id, X_Chatwoot_Timestamp=timestamp, X_Chatwoot_Signature=f"sha256={digest}"
    )


@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("written", [as_documented, as_rails_writes_it])
async def test_a_documented_payload_arrives_byte_for_byte_signed_or_not(
    signed_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, signer: str, event: str,
    written: Callable[[str], bytes],
) -> None:  # fmt: skip
    shared_agent.behave()
    body, delivery_id = written(event), str(uuid4())
    answer = await post_signed(signed_relay, signer, body, delivery_id)
    assert answer.status_code == 200, answer.text
    (seen,) = seen_of(shared_agent, delivery_id)
    assert seen.body == body
    left = trace(shared_rows, delivery_id)
    assert (left.state, left.body, left.event) == ("delivered", body, event)


@pytest.mark.parametrize("signer", SIGNERS)
async def test_a_payload_that_was_changed_after_it_was_signed_is_refused(
    signed_relay: RunningRelay, signer: str
) -> None:
    body, timestamp = as_documented("message_created"), str(int(time.time()))
    digest = hmac_by(signer, timestamp.encode() + b"." + body)
    answer = await signed_relay.post(
        body.replace(b"1", b"2", 1), X_Chatwoot_Timestamp=timestamp, X_Chatwoot_Signature=f"sha256={digest}"
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("event", "conversation_id"),
    [
        ("message_created", 10),
        ("message_updated", 10),
        ("conversation_status_changed", 10),
        ("webwidget_triggered", None),
    ],
)
async def test_a_dead_letter_of_a_documented_payload_holds_it_whole(
    signed_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, event: str, conversation_id: int | None
) -> None:
    shared_agent.behave(Behaviour(status=422))
    body, delivery_id = as_documented(event), str(uuid4())
    assert (await post_signed(signed_relay, "openssl", body, delivery_id)).status_code == 500
    ((letter, metadata),) = trace(shared_rows, delivery_id).dead_letters
    assert letter["payload"] == json.loads(body)
    assert (metadata["event"], metadata["conversationId"]) == (event, conversation_id)
