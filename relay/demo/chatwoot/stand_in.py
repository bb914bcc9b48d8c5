"""The stand-in Chatwoot itself: its state, its routes, and what it sends.

Sources: config/routes.rb, app/controllers/api_controller.rb, app/controllers/health_controller.rb (since 4.10),
and the modules that this one uses.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from relay.chatwoot.rails import rails_json
from relay.demo.chatwoot import records
from relay.demo.chatwoot.access import Need, Role, refusal, refused
from relay.demo.chatwoot.content import after_liquid, mentioned
from relay.demo.chatwoot.files import Files
from relay.demo.chatwoot.finders import conversations_of_page, messages_between
from relay.demo.chatwoot.oddities import Oddity
from relay.demo.chatwoot.records import KEPT_ATTRIBUTES, OUTGOING, State, api_message
from relay.demo.chatwoot.webhooks import Post, Sent, WebhookSender, new_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

REQUESTS_A_MINUTE = 3_000
MESSAGES_A_MINUTE = 200
_ATTRIBUTES_KEPT_SINCE = (4, 16, 1)
_SIGNED_SINCE = (4, 11, 2)
_ALL_SIGNED_SINCE = (4, 13, 0)
_FILTERED_SINCE = (4, 14, 0)
_HEALTH_SINCE = (4, 10, 0)
_PAGE = "<!DOCTYPE html>\n<html>\n  <head>\n    <title>Chatwoot</title>\n  </head>\n  <body></body>\n</html>\n"
_NOT_FOUND_PAGE = "<!DOCTYPE html><html><head><title>The page you were looking for doesn't exist (404)</title></head>"
_GREEN_PAGE = '<!DOCTYPE html><html><body style="background-color: green"></body></html>'


@dataclass(slots=True)
class ChatwootStandIn:
    """The stand-in, bound to `host:port` by `start`; port 0 is any free one.

    `version` decides what depends on it. `oddities` are those that are switched on. `api_key` is an administrator's;
    the other keys belong to those whom they name. While it is `mute` it stores new messages and does not answer;
    while it is not `healthy`, a proxy answers 503 in its place. `conversations` holds the stored messages, oldest
    first; a test may put its own there. `states` holds what else is known of them, `files` what attachments link to.
    `notified` are the ids of those whom a note has mentioned.
    """

    host: str = "127.0.0.1"
    port: int = 0
    account_id: int = 1
    other_accounts: frozenset[int] = frozenset({2})
    version: str = "4.17.0"
    api_key: str = "demo-api-key"
    agent_key: str = "demo-agent-key"
    outsider_key: str = "demo-outsider-key"
    bot_key: str = "demo-bot-key"
    stranger_key: str = "demo-stranger-key"
    secret: bytes = b"demo-webhook-secret"
    inbox_secret: bytes = b"demo-inbox-secret"
    bot_secret: bytes = b"demo-bot-secret"
    webhook_url: str = ""
    healthy: bool = True
    mute: bool = False
    oddities: set[Oddity] = field(default_factory=set)
    subscriptions: tuple[str, ...] = ("message_created", "conversation_status_changed")
    other_webhooks: list[dict[str, Any]] = field(default_factory=list)
    conversations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    states: defaultdict[int, State] = field(default_factory=lambda: defaultdict(State))
    files: Files = field(default_factory=Files)
    notified: list[int] = field(default_factory=list)
    requests: deque[str] = field(default_factory=lambda: deque(maxlen=10_000))
    sender: WebhookSender = field(default_factory=WebhookSender, repr=False)
    _echoes: set[asyncio.Task[Any]] = field(default_factory=set, repr=False)
    _runner: web.AppRunner | None = None
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(900_000), repr=False)
    _asked: deque[float] = field(default_factory=deque, repr=False)

    @property
    def url(self) -> str:
        """What `CHATWOOT_BASE_URL` must be to reach it."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen, and be ready to post."""
        app = web.Application(middlewares=[self._in_front])
        app.router.add_get("/", self._app_page)
        app.router.add_get("/app{tail:.*}", self._app_page)
        app.router.add_get("/api", self._api)
        app.router.add_get("/health", self._health)
        app.router.add_get("/rails/health", self._rails_health)
        account = "/api/v1/accounts/{account}"
        app.router.add_get(account, self._account)
        app.router.add_get(f"{account}/webhooks", self._webhooks)
        app.router.add_get(f"{account}/agent_bots", self._agent_bots)
        app.router.add_get(f"{account}/inboxes", self._inboxes)
        app.router.add_get(f"{account}/conversations", self._conversations)
        app.router.add_get(f"{account}/conversations/{{conversation}}", self._one_conversation)
        self.files.add_routes(app)
        messages = f"{account}/conversations/{{conversation}}/messages"
        app.router.add_get(messages, self._messages)
        app.router.add_post(messages, self._new_message)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]
        await self.sender.start()

    async def stop(self) -> None:
        """Stop listening."""
        await asyncio.gather(*self._echoes, return_exceptions=True)
        await self.sender.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    # What it holds

    @property
    def notes(self) -> list[dict[str, Any]]:
        """The private notes that were posted, oldest first of each conversation."""
        return [one for messages in self.conversations.values() for one in messages if one.get("private")]

    def open_conversations(self, numbers: Iterable[int]) -> None:
        """Let these conversations exist, without a message."""
        for number in numbers:
            self.conversations.setdefault(number, [])

    def add_message(self, conversation_id: int, content: str | None, **fields: Any) -> dict[str, Any]:
        """Store a message and return it; a customer's, unless `fields` say otherwise. Sends nothing.

        `fields` are those of the API: `message_type` (a number), `private`, `sender`, `attachments`, `created_at` …
        """
        message: dict[str, Any] = {
            "id": next(self._ids),
            "content": content,
            "message_type": records.INCOMING,
            "private": False,
            "content_attributes": {},
            "source_id": None,
            "created_at": int(time.time()),
            "conversation_id": conversation_id,
        } | fields
        if "sender" not in fields:
            incoming = message["message_type"] == records.INCOMING
            message["sender"] = records.contact("Maria Silva") if incoming else records.user()
        self.conversations.setdefault(conversation_id, []).append(message)
        return message

    # What it sends

    def payload_of(self, message: dict[str, Any]) -> dict[str, Any]:
        """The `message_created` payload of a stored message."""
        conversation_id = message["conversation_id"]
        stored = self.conversations.get(conversation_id) or [message]
        nested = stored[-1] if Oddity.NESTED_UNRELIABLE in self.oddities else message
        return records.webhook_message(message, conversation_id, self.account_id, nested, self.states[conversation_id])

    async def post(self, payload: dict[str, Any], *, delivery_id: str | None = None) -> Sent:
        """Post one webhook of the account to `webhook_url`: signed, one attempt."""
        secret = self.secret if self._is_at_least(_SIGNED_SINCE) else None
        return await self.sender.post(self._post(payload, secret, delivery_id), **self._rules())

    async def deliver(self, message: dict[str, Any]) -> list[Sent]:
        """Post the webhooks of a stored message to all who listen; returns them in the order of their ends.

        Activity messages have none (app/listeners/webhook_listener.rb, Message#webhook_sendable?).
        """
        if message["message_type"] == records.ACTIVITY or Oddity.QUEUE_FAILING in self.oddities:
            return []
        payload = self.payload_of(message)
        sent = [await self.post(payload)]
        others_signed = self._is_at_least(_ALL_SIGNED_SINCE)
        if Oddity.API_INBOX_TOO in self.oddities:
            secret = self.inbox_secret if others_signed else None
            sent.append(await self.sender.post(self._post(payload, secret), **self._rules()))
        if Oddity.AGENT_BOT_TOO in self.oddities:
            secret = self.bot_secret if others_signed else None
            sent += await self.sender.post_as_bot(self._post(payload, secret), **self._rules())
        if Oddity.AUTOMATION_TOO in self.oddities:
            sent.append(await self.post_automation(message))
        return sent

    async def post_automation(self, message: dict[str, Any], event: str = "automation_event.message_created") -> Sent:
        """Post what an automation rule (or, as `macro.executed`, a macro) posts: a conversation, never signed."""
        number = message["conversation_id"]
        payload = records.webhook_conversation(number, message, self.states[number]) | {"event": event}
        return await self.sender.post(self._post(payload, None), **self._rules())

    def _post(self, payload: dict[str, Any], secret: bytes | None, delivery_id: str | None = None) -> Post:
        reencoded = Oddity.BODIES_REENCODED in self.oddities
        return Post(self.webhook_url, rails_json(payload), secret, delivery_id or new_id(), reencoded)

    def _rules(self) -> dict[str, bool]:
        recent = self._is_at_least(_FILTERED_SINCE)
        return {"public_only": recent and Oddity.PRIVATE_ADDRESSES_REFUSED in self.oddities, "follow": recent}

    def _is_at_least(self, version: tuple[int, ...]) -> bool:
        return tuple(int(part) for part in self.version.split(".")) >= version

    # The proxy before it

    @web.middleware
    async def _in_front(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if Oddity.LOGIN_PAGE in self.oddities:
            return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")
        if Oddity.REDIRECTED in self.oddities:
            location = str(request.url.with_scheme("https").with_port(None))
            return web.Response(status=301, headers={"Location": location}, content_type="text/html")
        if not self.healthy:
            return web.Response(status=503, text="<h1>503 Service Unavailable</h1>", content_type="text/html")
        if Oddity.RATE_LIMITED in self.oddities or self._asked_too_often():
            return web.Response(status=429, text="Retry later\n", content_type="text/plain")
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return web.Response(status=404, text=_NOT_FOUND_PAGE, content_type="text/html")

    def _asked_too_often(self) -> bool:
        now = time.monotonic()
        self._asked.append(now)
        while self._asked[0] < now - 60:
            self._asked.popleft()
        return len(self._asked) > REQUESTS_A_MINUTE

    # Routes without a token

    async def _app_page(self, _: web.Request) -> web.Response:
        """The single-page app: the same page on every path (`get '/app/*params'`)."""
        return web.Response(text=_PAGE, content_type="text/html")

    async def _api(self, _: web.Request) -> web.Response:
        queue = "failing" if Oddity.QUEUE_FAILING in self.oddities else "ok"
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        return web.json_response(
            {"version": self.version, "timestamp": stamp, "queue_services": queue, "data_services": "ok"}
        )

    async def _health(self, _: web.Request) -> web.Response:
        if not self._is_at_least(_HEALTH_SINCE):
            raise web.HTTPNotFound
        return web.json_response({"status": "woot"})

    async def _rails_health(self, _: web.Request) -> web.Response:
        if Oddity.RAILS_HEALTH not in self.oddities:
            raise web.HTTPNotFound
        return web.Response(text=_GREEN_PAGE, content_type="text/html")

    # Routes with a token

    def _token(self, request: web.Request) -> str | None:
        """The access token: Rails reads `Api-Access-Token` and `api_access_token` as one header."""
        kept = request.headers.get("Api-Access-Token")
        if kept is None and Oddity.UNDERSCORES_DROPPED not in self.oddities:
            kept = request.headers.get("api_access_token")
        return kept

    def _refusal(self, request: web.Request, need: Need) -> web.Response | None:
        token = self._token(request)
        roles = {
            self.api_key: Role.ADMINISTRATOR,
            self.agent_key: Role.AGENT,
            self.outsider_key: Role.OUTSIDER,
            self.bot_key: Role.BOT,
            self.stranger_key: Role.STRANGER,
        }
        found = refusal(
            roles.get(token or ""), need, token=token, account_id=request.match_info["account"],
            own=self.account_id, others=self.other_accounts,
        )  # fmt: skip
        if found is None and Oddity.SUSPENDED in self.oddities:
            return refused(401, "Account is suspended")
        return found

    async def _account(self, request: web.Request) -> web.Response:
        answer = {"id": self.account_id, "name": records.ACCOUNT_NAME, "locale": "en", "status": "active"}
        return self._refusal(request, Need.ACCOUNT) or web.json_response(answer)

    async def _webhooks(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request, Need.ADMINISTRATOR):
            return refusal
        own = {"id": 1, "url": self.webhook_url, "name": "relay", "subscriptions": list(self.subscriptions)}
        own |= {"account_id": self.account_id}
        if self._is_at_least(_SIGNED_SINCE):
            own["secret"] = self.secret.decode()
        rows = ([own] if self.webhook_url else []) + self.other_webhooks
        return web.json_response({"payload": {"webhooks": rows}})

    async def _agent_bots(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request, Need.ACCOUNT):
            return refusal
        bot = {"id": 1, "name": "Bot", "description": "", "outgoing_url": self.webhook_url, "account_id": 1}
        if self._is_at_least(_ALL_SIGNED_SINCE):
            bot["secret"] = self.bot_secret.decode()
        return web.json_response([bot] if Oddity.AGENT_BOT_TOO in self.oddities else [])

    async def _inboxes(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request, Need.ACCOUNT):
            return refusal
        inbox = dict(records.INBOX) | {"channel_type": "Channel::WebWidget"}
        if Oddity.API_INBOX_TOO in self.oddities:
            inbox |= {"channel_type": "Channel::Api", "webhook_url": self.webhook_url}
            if self._is_at_least(_ALL_SIGNED_SINCE):
                inbox["secret"] = self.inbox_secret.decode()
        return web.json_response({"payload": [inbox]})

    async def _conversations(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request, Need.ACCOUNT):
            return refusal
        page = max(1, int(request.query.get("page", 1)))
        found = conversations_of_page(self.conversations, page)
        listed = [self._listed(number, messages) for number, messages in found]
        count = len(self.conversations)
        counts = {"mine_count": 0, "assigned_count": 0, "unassigned_count": count, "all_count": count}
        return web.json_response({"data": {"meta": counts, "payload": listed}})

    def _listed(self, number: int, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return records.listed_conversation(number, self.account_id, messages, self.states[number])

    async def _one_conversation(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request, Need.MEMBER):
            return refusal
        number = _conversation(request)
        if number not in self.conversations:
            return refused(404, "Resource could not be found")
        return web.json_response(self._listed(number, self.conversations[number]))

    async def _messages(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request, Need.MEMBER):
            return refusal
        number = _conversation(request)
        if number not in self.conversations:
            return refused(404, "Resource could not be found")
        after, before = (int(request.query.get(name) or 0) for name in ("after", "before"))
        found = messages_between(self.conversations[number], after=after, before=before)
        meta = records.messages_meta(self.conversations[number], self.states[number])
        return web.json_response({"meta": meta, "payload": [api_message(one, number) for one in found]})

    async def _new_message(self, request: web.Request) -> web.StreamResponse:
        """Store a message that came through the API, and post its own webhook: a private note comes back."""
        if refusal := self._refusal(request, Need.NEW_MESSAGE):
            return refusal
        number = _conversation(request)
        if number not in self.conversations:
            return refused(404, "Resource could not be found")
        if Oddity.TOO_MANY_MESSAGES in self.oddities or self._too_many(number):
            return web.json_response({"message": "Too many messages", "attributes": ["base"]}, status=422)
        given = await request.json()
        message = self.add_message(
            number,
            after_liquid(str(given.get("content") or "")),
            message_type=OUTGOING,
            private=given.get("private") in {True, "true"},
            content_attributes=self._kept(given.get("content_attributes") or {}),
            source_id=given.get("source_id"),
        )
        self.notified += mentioned(message)
        if self.webhook_url:
            task = asyncio.create_task(self.deliver(message))
            self._echoes.add(task)
            task.add_done_callback(self._echoes.discard)
        if self.mute:
            await asyncio.sleep(3600)
        if Oddity.ANSWER_LOST in self.oddities:
            self.oddities.discard(Oddity.ANSWER_LOST)
            return web.Response(status=504, text="<h1>504 Gateway Time-out</h1>", content_type="text/html")
        return web.json_response(api_message(message, number))

    def _kept(self, attributes: dict[str, Any]) -> dict[str, Any]:
        if self._is_at_least(_ATTRIBUTES_KEPT_SINCE) and Oddity.ATTRIBUTES_DROPPED not in self.oddities:
            return attributes
        return {name: value for name, value in attributes.items() if name in KEPT_ATTRIBUTES}

    def _too_many(self, number: int) -> bool:
        since = time.time() - 60
        recent = [one for one in self.conversations[number] if one.get("created_at", 0) >= since]
        return len(recent) >= MESSAGES_A_MINUTE


def _conversation(request: web.Request) -> int:
    text = request.match_info["conversation"]
    return int(text) if text.isdigit() else 0
