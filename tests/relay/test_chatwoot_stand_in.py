"""The stand-in Chatwoot answers as CONTRACT.md says: what tests and the demo build on is itself tested."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio
from aiohttp import web

from relay.demo.chatwoot import ChatwootStandIn, Oddity
from relay.demo.chatwoot.records import ACTIVITY, OUTGOING, TEMPLATE
from tests.servers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ACCOUNT = "/api/v1/accounts/1"
MESSAGES = f"{ACCOUNT}/conversations/7/messages"


class Receiver:
    """Receives webhooks and answers them with the next of `statuses`, the last one again and again."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses = [200]
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.json_response({}, status=status)


@pytest_asyncio.fixture
async def receiver(chatwoot: ChatwootStandIn) -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = chatwoot.webhook_url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    chatwoot.sender.bot_pause_s = 0
    yield receiver
    await runner.cleanup()


async def ask(
    chatwoot: ChatwootStandIn, path: str, key: str | None = "demo-api-key", body: Any = None, name: str = ""
) -> tuple[int, Any]:
    """The status and the JSON (or text) that `path` answers to the owner of `key`."""
    headers = {} if key is None else {name or "Api-Access-Token": key}
    async with httpx.AsyncClient(base_url=chatwoot.url, headers=headers, timeout=PATIENCE_S) as client:
        answer = await (client.get(path) if body is None else client.post(path, json=body))
    is_json = answer.headers["content-type"].startswith("application/json")
    return answer.status_code, answer.json() if is_json else answer.text


def error(sentence: str) -> dict[str, str]:
    return {"error": sentence}


async def test_each_role_is_refused_in_chatwoots_words(chatwoot: ChatwootStandIn) -> None:
    note = {"content": "x", "private": True}
    no_bots, no_right = "Access to this endpoint is not authorized for bots", "You are not authorized to do this action"
    table: list[tuple[str, str | None, Any, int, Any]] = [
        (ACCOUNT, None, None, 401, {"errors": ["You need to sign in or sign up before continuing."]}),
        (ACCOUNT, "wrong", None, 401, error("Invalid Access Token")),
        (ACCOUNT, chatwoot.agent_key, None, 200, ...),
        (ACCOUNT, chatwoot.bot_key, None, 401, error(no_bots)),
        (ACCOUNT, chatwoot.stranger_key, None, 404, error("Resource could not be found")),
        ("/api/v1/accounts/2", "demo-api-key", None, 404, error("Resource could not be found")),
        (
            "/api/v1/accounts/2/webhooks",
            "demo-api-key",
            None,
            401,
            error("You are not authorized to access this account"),
        ),
        ("/api/v1/accounts/9/webhooks", "demo-api-key", None, 404, error("Resource could not be found")),
        (f"{ACCOUNT}/webhooks", chatwoot.agent_key, None, 401, error(no_right)),
        (f"{ACCOUNT}/webhooks", chatwoot.bot_key, None, 401, error(no_bots)),
        (MESSAGES, chatwoot.outsider_key, None, 401, error(no_right)),
        (MESSAGES, chatwoot.bot_key, None, 401, error(no_bots)),
        (MESSAGES, chatwoot.bot_key, note, 200, ...),
        (MESSAGES, chatwoot.agent_key, note, 200, ...),
        (MESSAGES, chatwoot.outsider_key, note, 401, error(no_right)),
        (MESSAGES.replace("7", "99"), "demo-api-key", note, 404, error("Resource could not be found")),
    ]
    wrong = []
    for path, key, body, status, answer in table:
        got = await ask(chatwoot, path, key, body)
        if got[0] != status or (answer is not ... and got[1] != answer):
            wrong.append((path, key, got))
    assert wrong == []


async def test_the_health_routes_are_those_of_the_version(chatwoot: ChatwootStandIn) -> None:
    assert (await ask(chatwoot, "/rails/health"))[0] == 404
    assert await ask(chatwoot, "/health") == (200, {"status": "woot"})
    assert (await ask(chatwoot, "/api"))[1]["version"] == "4.17.0"
    for page in ("/", "/app", "/app/rails/health", "/app/accounts/1/conversations/7"):
        status, text = await ask(chatwoot, page)
        assert (status, text[:15]) == (200, "<!DOCTYPE html>")
    chatwoot.version = "4.5.0"
    assert (await ask(chatwoot, "/health"))[0] == 404
    assert (await ask(chatwoot, "/api"))[1]["queue_services"] == "ok"


async def test_a_proxy_may_drop_underscores_redirect_or_ask_for_a_login(chatwoot: ChatwootStandIn) -> None:
    old = {"name": "api_access_token"}
    assert (await ask(chatwoot, ACCOUNT, **old))[0] == 200
    chatwoot.oddities = {Oddity.UNDERSCORES_DROPPED}
    assert (await ask(chatwoot, ACCOUNT, **old))[0] == 401
    assert (await ask(chatwoot, ACCOUNT))[0] == 200
    for oddity, status in ((Oddity.REDIRECTED, 301), (Oddity.LOGIN_PAGE, 200), (Oddity.RATE_LIMITED, 429)):
        chatwoot.oddities = {oddity}
        got, text = await ask(chatwoot, "/api")
        assert (got, isinstance(text, str)) == (status, True)
    chatwoot.oddities = {Oddity.SUSPENDED}
    assert await ask(chatwoot, ACCOUNT) == (401, error("Account is suspended"))


async def test_messages_are_paged_as_chatwoot_pages_them(chatwoot: ChatwootStandIn) -> None:
    ids = [chatwoot.add_message(7, str(number), created_at=1_000 + number)["id"] for number in range(130)]

    async def got(query: str) -> list[int]:
        return [one["id"] for one in (await ask(chatwoot, f"{MESSAGES}{query}"))[1]["payload"]]

    assert await got("") == ids[-20:]
    assert await got(f"?after={ids[0]}") == ids[1:101]
    assert await got(f"?before={ids[50]}") == ids[30:50]
    assert await got(f"?after={ids[3]}&before={ids[120]}") == ids[3:120]
    shown = (await ask(chatwoot, MESSAGES))[1]["payload"][-1]
    assert (shown["message_type"], shown["created_at"], shown["sender"]["type"]) == (0, 1_129, "contact")


async def test_conversations_come_25_a_page_the_last_active_first(chatwoot: ChatwootStandIn) -> None:
    chatwoot.conversations.clear()
    for number in range(1, 61):
        chatwoot.add_message(number, "hi", created_at=number)
    pages = [
        (await ask(chatwoot, f"{ACCOUNT}/conversations?status=all&page={page}"))[1]["data"] for page in (1, 2, 3, 4)
    ]
    listed = [[one["id"] for one in page["payload"]] for page in pages]
    assert listed == [list(range(60, 35, -1)), list(range(35, 10, -1)), list(range(10, 0, -1)), []]
    assert pages[0]["payload"][0]["last_activity_at"] == 60


async def test_a_note_is_stored_as_chatwoot_stores_it(chatwoot: ChatwootStandIn) -> None:
    hostile = "`{{agent.email}}` {{ agent.email }}{% if x %} [Bob](mention://user/4/Bob)"
    given = {"content": hostile, "private": True, "content_attributes": {"ours": 1}, "source_id": "key"}
    status, note = await ask(chatwoot, MESSAGES, body=given)
    assert (status, note["message_type"], note["private"]) == (200, 1, True)
    assert note["content"] == "`{{agent.email}}` agent@acme.example [Bob](mention://user/4/Bob)"
    assert (note["content_attributes"], note["source_id"], chatwoot.notified) == ({"ours": 1}, "key", [4])
    for unfinished in ("{{agent.email", "{% raw"):
        assert (await ask(chatwoot, MESSAGES, body={"content": unfinished}))[1]["content"] == unfinished
    chatwoot.version = "4.4.0"
    _, note = await ask(chatwoot, MESSAGES, body=given)
    assert (note["content_attributes"], note["source_id"]) == ({}, "key")


async def test_new_messages_may_be_too_many_or_stored_without_an_answer(chatwoot: ChatwootStandIn) -> None:
    note = {"content": "x", "private": True}
    chatwoot.oddities = {Oddity.ANSWER_LOST}
    assert (await ask(chatwoot, MESSAGES, body=note))[0] == 504
    assert len(chatwoot.notes) == 1
    assert (await ask(chatwoot, MESSAGES, body=note))[0] == 200
    for _ in range(198):
        chatwoot.add_message(7, "quick")
    status, answer = await ask(chatwoot, MESSAGES, body=note)
    assert (status, answer["message"]) == (422, "Too many messages")


async def test_webhooks_are_signed_by_version_and_two_sources_have_two_secrets(
    chatwoot: ChatwootStandIn, receiver: Receiver
) -> None:
    chatwoot.oddities = {Oddity.API_INBOX_TOO, Oddity.AUTOMATION_TOO}
    message = chatwoot.add_message(7, "a < b & c")
    await chatwoot.deliver(message)
    (first, body), (second, other), (unsigned, conversation) = receiver.got
    assert body == other
    assert b"a \\u003c b \\u0026 c" in body
    payload = json.loads(body)
    assert (payload["message_type"], payload["account"]["id"], "type" in payload["sender"]) == ("incoming", 1, False)
    assert payload["conversation"]["messages"][0]["message_type"] == 0
    for headers, secret in ((first, chatwoot.secret), (second, chatwoot.inbox_secret)):
        signed = headers["x-chatwoot-timestamp"].encode() + b"." + body
        assert headers["x-chatwoot-signature"] == "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
    assert first["x-chatwoot-delivery"] != second["x-chatwoot-delivery"]
    assert not [name for name in unsigned if name.startswith("x-chatwoot")]
    assert json.loads(conversation)["event"] == "automation_event.message_created"
    assert "account" not in json.loads(conversation)
    receiver.got.clear()
    chatwoot.version = "4.12.0"
    await chatwoot.deliver(message)
    assert ["x-chatwoot-signature" in headers for headers, _ in receiver.got] == [True, False, False]
    webhooks = await ask(chatwoot, f"{ACCOUNT}/webhooks")
    assert webhooks[1]["payload"]["webhooks"][0]["secret"] == chatwoot.secret.decode()
    chatwoot.version = "4.11.1"
    assert "secret" not in (await ask(chatwoot, f"{ACCOUNT}/webhooks"))[1]["payload"]["webhooks"][0]


async def test_only_an_agent_bot_posts_again_and_under_the_same_id(
    chatwoot: ChatwootStandIn, receiver: Receiver
) -> None:
    chatwoot.oddities = {Oddity.AGENT_BOT_TOO}
    for status, posts in ((500, 4), (429, 4), (503, 2), (200, 2)):
        receiver.got.clear()
        receiver.statuses = [status]
        await chatwoot.deliver(chatwoot.add_message(7, "hi"))
        ids = [headers["x-chatwoot-delivery"] for headers, _ in receiver.got]
        assert (len(ids), len(set(ids))) == (posts, 2)


async def test_private_addresses_are_never_sent_to(chatwoot: ChatwootStandIn, receiver: Receiver) -> None:
    chatwoot.oddities = {Oddity.PRIVATE_ADDRESSES_REFUSED}
    message = chatwoot.add_message(7, "hi")
    for host in ("127.0.0.1", "localhost", "10.0.0.5", "192.168.1.2", "100.64.0.1", "192.0.2.1", "[::1]"):
        chatwoot.webhook_url = f"http://{host}:1/hook"
        (sent,) = await chatwoot.deliver(message)
        assert sent.filtered, host
    assert all("has no public ip addresses" in line for line in chatwoot.sender.log)
    chatwoot.webhook_url, chatwoot.version = receiver.url, "4.13.0"
    (sent,) = await chatwoot.deliver(message)
    assert (sent.status, len(receiver.got)) == (200, 1)


async def test_activity_has_no_webhook_and_nested_messages_are_unreliable(
    chatwoot: ChatwootStandIn, receiver: Receiver
) -> None:
    for kind, posts in ((ACTIVITY, 0), (TEMPLATE, 1), (OUTGOING, 2)):
        await chatwoot.deliver(chatwoot.add_message(7, "a line", message_type=kind))
        assert len(receiver.got) == posts
    chatwoot.oddities = {Oddity.NESTED_UNRELIABLE}
    early, late = chatwoot.add_message(7, "one"), chatwoot.add_message(7, "two")
    payload = chatwoot.payload_of(early)
    assert (payload["id"], payload["content"]) == (early["id"], "one")
    assert payload["conversation"]["messages"][0]["id"] == late["id"]


async def test_a_private_note_comes_back_as_a_webhook(chatwoot: ChatwootStandIn, receiver: Receiver) -> None:
    await ask(chatwoot, MESSAGES, body={"content": "a note", "private": True})
    await chatwoot.stop()
    payload = json.loads(receiver.got[0][1])
    assert (payload["event"], payload["private"], payload["message_type"]) == ("message_created", True, "outgoing")
