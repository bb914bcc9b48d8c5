"""Tries an Agent SDK against the contract in relay/AGENT.md, with requests that the relay's own forwarder makes.

Every webhook is a test webhook (`X-Relay-Test: true`), for which an agent drafts at most and posts nothing. Needs no
database and no Chatwoot.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from relay.chatwoot.samples import documented_payload
from relay.chatwoot.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from relay.domain.delivery import Delivery, Outcome
from relay.domain.headers import CONTENT_ENCODING, CONTENT_TYPE
from relay.errors import RelayError
from relay.forwarding.forwarder import Forwarder
from relay.forwarding.gate import Gate
from relay.monitoring.probes import agent_probe, run_probes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from relay.domain.delivery import Attempt
    from relay.settings import Settings

OLD_S = 3 * 24 * 3600
"""How old the timestamp of a replayed webhook is, in seconds."""

AT_ONCE = 5
CHATWOOT_WAITS_MS = 5_000
_IMPATIENT_MS = 50


class Result(StrEnum):
    """What a check found. A warning is not against the contract."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. `took_ms` is the length of its slowest request; None if it sent none."""

    name: str
    result: Result
    detail: str
    took_ms: int | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {"name": self.name, "result": self.result, "detail": self.detail, "duration_ms": self.took_ms}


class _Silent:
    """Gets every attempt and logs nothing."""

    def attempting(self, delivery: Delivery, number: int) -> None:
        """Called before an attempt."""

    def retrying(self, delivery: Delivery, attempt: Attempt, pause_ms: float) -> None:
        """Called before a wait. There is none: each delivery is tried once."""


class ContractCheck:
    """The checks of one agent, at `settings.agent_sdk_url`. `run` yields them one by one."""

    def __init__(self, settings: Settings, *, large_bytes: int) -> None:
        self._settings = settings.model_copy(update={"chatwoot_webhook_max_attempts": 1})
        self._large_bytes = large_bytes
        self._secret = settings.secrets[0] if settings.secrets else None
        self._forwarder = Forwarder(self._settings, _Silent(), Gate())
        self._took: list[int] = []

    async def run(self) -> AsyncIterator[Check]:
        """Yield each check as soon as it is done."""
        steps: tuple[Callable[[], Awaitable[Check]], ...] = (
            self._health, self._test_webhook, self._headers, self._signature, self._old_timestamp, self._idempotency,
            self._twice_at_once, self._given_up, self._large_body, self._compressed, self._other_events, self._at_once,
        )  # fmt: skip
        try:
            for step in steps:
                yield await step()
            yield self._time()
        finally:
            await self._forwarder.close()

    async def _health(self) -> Check:
        (probed,) = await run_probes([agent_probe(self._settings)])
        if probed.ok:
            return Check("health", Result.OK, f"GET /health answered {probed.status}", round(probed.latency_ms))
        return Check("health", Result.FAILED, f"GET /health: {probed.shown}", round(probed.latency_ms))

    async def _test_webhook(self) -> Check:
        attempt = await self._send(self._delivery())
        said = f"answered {attempt.status}"
        if attempt.agent_status:
            said += f", status {attempt.agent_status!r}"
        if attempt.success and _field(attempt, "posted") is True:
            return _of("test webhook", attempt, Result.FAILED, "the agent says that it posted: X-Relay-Test is ignored")
        if attempt.success and _field(attempt, "posted") is None and _field(attempt, "ignored") is None:
            said += "; it does not say whether it posted (a JSON `posted: false` would)"
            return _of("test webhook", attempt, Result.WARNING, said)
        return _of("test webhook", attempt, Result.OK, said)

    async def _headers(self) -> Check:
        extra = (("x-chatwoot-event", "message_created"), ("x-chatwoot-future", "a header of a later version"))
        attempt = await self._send(self._delivery(headers=extra))
        return _of("headers", attempt, Result.OK, "takes every header that the relay sends")

    async def _signature(self) -> Check:
        if self._secret is None:
            return Check("signature", Result.WARNING, "not checked: CHATWOOT_WEBHOOK_SECRET is not set")
        delivery = self._delivery()
        wrong = tuple((n, "sha256=" + "0" * 64 if n == SIGNATURE_HEADER else v) for n, v in delivery.headers)
        attempt = await self._send(replace(delivery, headers=wrong))
        if attempt.status in {"401", "403"}:
            detail = f"a wrong signature is answered {attempt.status}"
            return Check("signature", Result.OK, detail, attempt.duration_ms)
        if attempt.success:
            detail = "a wrong signature is accepted: any client that reaches the agent can send it webhooks"
            return Check("signature", Result.WARNING, detail, attempt.duration_ms)
        detail = f"a wrong signature is answered {attempt.status}; 401 would say what is wrong"
        return Check("signature", Result.WARNING, detail, attempt.duration_ms)

    async def _old_timestamp(self) -> Check:
        attempt = await self._send(self._delivery(age_s=OLD_S))
        if attempt.status in {"401", "403"}:
            detail = f"answered {attempt.status}: a replay carries the timestamp of {OLD_S // 86400} days ago, rightly"
            return _of("replay", attempt, Result.FAILED, detail)
        return _of("replay", attempt, Result.OK, f"takes a timestamp of {OLD_S // 86400} days ago")

    async def _idempotency(self) -> Check:
        delivery = self._delivery()
        first, second = await self._send(delivery), await self._send(delivery)
        worse = first if not first.success else second
        return _of("idempotency", worse, Result.OK, "the same Idempotency-Key again is answered 2xx")

    async def _twice_at_once(self) -> Check:
        delivery = self._delivery()
        both = await asyncio.gather(self._send(delivery), self._send(delivery))
        refused = [one for one in both if not one.success]
        if refused and all(one.retryable for one in refused) and len(refused) == 1:
            detail = f"one of two at once is answered {refused[0].status}, which the relay retries"
            return Check("same key at once", Result.OK, detail, refused[0].duration_ms)
        return _of("same key at once", (refused or both)[0], Result.OK, "two at once are both answered 2xx")

    async def _given_up(self) -> Check:
        """An attempt that the relay gives up, as after its time limit, and the same delivery again."""
        delivery = self._delivery()
        settings = self._settings.model_copy(update={"agent_sdk_timeout_ms": _IMPATIENT_MS})
        impatient = Forwarder(settings, _Silent(), Gate())
        try:
            await impatient.run(delivery, lambda: None)
        finally:
            await impatient.close()
        attempt = await self._send(delivery)
        return _of("slow", attempt, Result.OK, "a connection given up half way, then the same again, is answered 2xx")

    async def _large_body(self) -> Check:
        size = f"{self._large_bytes / 1024 / 1024:.3g} MiB"
        attempt = await self._send(self._delivery(size=self._large_bytes))
        if attempt.status == "413":
            detail = f"{size} are answered 413, a dead letter at once; Chatwoot has no limit, the relay takes 32 MiB"
            return _of("large body", attempt, Result.FAILED, detail)
        return _of("large body", attempt, Result.OK, f"takes {size}")

    async def _compressed(self) -> Check:
        delivery = self._delivery()
        headers = (*delivery.headers, (CONTENT_ENCODING, "gzip"))
        attempt = await self._send(replace(delivery, headers=headers, encoded_body=gzip.compress(delivery.body)))
        if attempt.success:
            return Check("gzip", Result.OK, "takes Content-Encoding: gzip", attempt.duration_ms)
        detail = f"Content-Encoding: gzip is answered {attempt.status}; only a proxy before the relay would compress"
        return Check("gzip", Result.WARNING, detail, attempt.duration_ms)

    async def _other_events(self) -> Check:
        payloads = (documented_payload("conversation_status_changed"), {"event": "an_event_of_a_later_version"})
        attempts = [await self._send(self._delivery(payload=payload)) for payload in payloads]
        worst = next((one for one in attempts if not one.success), attempts[0])
        return _of("other events", worst, Result.OK, "events that it does not know are answered 2xx")

    async def _at_once(self) -> Check:
        attempts = await asyncio.gather(*(self._send(self._delivery()) for _ in range(AT_ONCE)))
        limiting = [one for one in attempts if one.status in {"429", "503"}]
        if limiting:
            detail = f"{len(limiting)} of {AT_ONCE} at once are answered {limiting[0].status}; the relay retries them"
            return Check("at once", Result.WARNING, detail, max(one.duration_ms for one in attempts))
        worst = next((one for one in attempts if not one.success), max(attempts, key=lambda one: one.duration_ms))
        return _of("at once", worst, Result.OK, f"{AT_ONCE} at once are answered 2xx")

    def _time(self) -> Check:
        slowest = max(self._took, default=0)
        limit = self._settings.agent_sdk_timeout_ms
        if slowest >= limit:
            detail = f"an answer took longer than AGENT_SDK_TIMEOUT_MS ({limit} ms): it is given up and retried"
            return Check("time", Result.FAILED, detail, slowest)
        if slowest >= CHATWOOT_WAITS_MS:
            detail = "slower than Chatwoot waits: it is answered 202 before the outcome is known"
            return Check("time", Result.WARNING, detail, slowest)
        return Check("time", Result.OK, f"the slowest answer, of {limit} ms that an attempt may take", slowest)

    async def _send(self, delivery: Delivery) -> Attempt:
        outcome = await self._forwarder.run(delivery, lambda: None)
        if not isinstance(outcome, Outcome):  # a run of one attempt waits for nothing else
            raise RelayError("This machine is out of file descriptors; raise its limit of open files")
        self._took.append(outcome.last.duration_ms)
        return outcome.last

    def _delivery(
        self,
        *,
        payload: dict[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        age_s: int = 0,
        size: int = 0,
    ) -> Delivery:
        """A test webhook, signed where there is a secret, `age_s` ago, filled up to `size` bytes."""
        event = documented_payload("message_created") if payload is None else payload
        body = json.dumps(event).encode()
        if len(body) < size:
            padding = "x" * (size - len(body) - len(', "padding": ""'))
            body = json.dumps(event | {"padding": padding}).encode()
        delivery_id, timestamp = f"agent-check-{uuid4()}", str(int(time.time()) - age_s)
        signed = ((SIGNATURE_HEADER, sign(self._secret, timestamp, body)),) if self._secret is not None else ()
        own = ((CONTENT_TYPE, "application/json"), (DELIVERY_HEADER, delivery_id), (TIMESTAMP_HEADER, timestamp))
        return Delivery(
            id=0,
            delivery_id=delivery_id,
            run=1,
            headers=(*own, *signed, *headers),
            body=body,
            event=str(event.get("event")),
            conversation_id=None,
            test=True,
        )


def _of(name: str, attempt: Attempt, result: Result, detail: str) -> Check:
    """`result` if the attempt succeeded or `result` is a failure; else what went wrong."""
    if attempt.success or result is Result.FAILED:
        return Check(name, result, detail, attempt.duration_ms)
    failed = f"{attempt.error} ({attempt.status})" if attempt.status not in str(attempt.error) else str(attempt.error)
    return Check(name, Result.FAILED, failed, attempt.duration_ms)


def _field(attempt: Attempt, name: str) -> object:
    """A field of the agent's JSON answer, None if it has none."""
    try:
        answer = json.loads(attempt.answer)
    except ValueError:
        return None
    return answer.get(name) if isinstance(answer, dict) else None
