"""Rows with chosen times and states, planted as if some history had left them, for figures, filters and leases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from tests.servers import Rows

RETRY = "support.webhook.retry"
DEAD_LETTER = "support.webhook.dead_letter"
REPLAY = "support.webhook.replay"
REJECTED = "support.webhook.rejected"
HEALTH = "support.health"

_FACTS = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT %(fact_type)s, 'support', %(value)s::jsonb, %(metadata)s::jsonb, now() - make_interval(secs => %(age_s)s)
      FROM generate_series(1, %(times)s)
"""
_DELIVERY = """
    INSERT INTO relay.deliveries
           (delivery_id, state, run, owner, claim, test, event, conversation_id, customer, received_at, claimed_at,
            finished_at, attempts, duration_ms, final_status, last_error, headers, body)
    SELECT %(delivery_id)s, %(state)s, 1, %(owner)s, gen_random_uuid(), %(test)s, %(event)s, %(conversation_id)s,
           %(customer)s, at, at, CASE WHEN %(state)s IN ('delivered', 'dead', 'discarded') THEN at END, 3, 600,
           %(final_status)s, %(last_error)s, '[["content-type", "application/json"]]', %(body)b
      FROM (SELECT now() - make_interval(secs => %(age_s)s) AS at) AS planted
    RETURNING id
"""
_RELAY = """
    INSERT INTO relay.instances (id, name, boot, slot, pid, version, signed, agent, heartbeat_at, lease_until)
    SELECT %(id)s, %(name)s, gen_random_uuid(), 0, 1, '0', true, 'http://agent/webhooks/chatwoot',
           now() - make_interval(secs => %(heartbeat_age_s)s), now() + make_interval(secs => %(lease_s)s)
"""


class Plant:
    """Plants rows through `rows`. Ages are in seconds before now."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def facts(self, fact_type: str, value: Any, metadata: Any = None, *, age_s: float = 60, times: int = 1) -> None:
        """So many facts of one kind and age."""
        given = {"fact_type": fact_type, "value": json.dumps(value), "age_s": age_s, "times": times}
        self.rows(_FACTS, given | {"metadata": None if metadata is None else json.dumps(metadata)})

    def runs(
        self,
        *,
        delivered: int = 0,
        failed: int = 0,
        age_s: float = 60,
        attempts: int = 1,
        duration_ms: int = 100,
        test: bool = False,
        fact_type: str = RETRY,
    ) -> None:
        """Retry facts of runs that ended well and of runs that did not."""
        for success, times in ((True, delivered), (False, failed)):
            value = {"attempts": attempts, "success": success, "durationMs": duration_ms}
            value["finalStatus"] = "200" if success else "503"
            self.facts(fact_type, value, {"test": True} if test else {}, age_s=age_s, times=times)

    def dead_letters(self, times: int, *, age_s: float = 60, test: bool = False) -> None:
        """Dead-letter facts."""
        value = {"payload": {"id": 1}, "attempts": 3, "lastError": "Agent SDK answered 503", "finalStatus": "503"}
        self.facts(DEAD_LETTER, value, {"test": True} if test else {}, age_s=age_s, times=times)

    def fact_aside(self, *, refused: bool, age_s: float = 1) -> None:
        """A retry fact that `dashboard_facts` refused, or has not taken yet."""
        self.rows(
            "INSERT INTO relay.facts_aside (at, fact_type, scope, value, metadata, refused, reason) "
            "VALUES (now() - make_interval(secs => %s), %s, 'support', '{}', '{}', %s, %s)",
            (age_s, RETRY, refused, "23514 constraint made_up" if refused else None),
        )

    def probe(self, *, ok: bool, age_s: float, target: str = "agent") -> None:
        """A health fact."""
        self.facts(HEALTH, {"target": target, "ok": ok, "status": "200" if ok else "503", "latencyMs": 5}, age_s=age_s)

    def delivery(
        self,
        state: str = "dead",
        *,
        delivery_id: str | None = None,
        owner: UUID | None = None,
        body: bytes = b'{"event": "message_created"}',
        event: str | None = "message_created",
        conversation_id: str | None = None,
        customer: bool = False,
        test: bool = False,
        final_status: str | None = None,
        last_error: str | None = None,
        age_s: float = 60,
    ) -> int:
        """A delivery that was received and, if it is over, finished so long ago. Returns its row's id."""
        failed = state in {"dead", "discarded"}
        row_id: int = self.rows.one(
            _DELIVERY,
            {
                "delivery_id": delivery_id or str(uuid4()),
                "state": state,
                "owner": owner,
                "test": test,
                "event": event,
                "conversation_id": conversation_id,
                "customer": customer,
                "final_status": final_status or ("503" if failed else "200"),
                "last_error": last_error or ("Agent SDK answered 503" if failed else None),
                "body": body,
                "age_s": age_s,
            },
        )
        return row_id

    def hold(self) -> None:
        """A hold in force."""
        self.rows("INSERT INTO relay.holds (operator, reason) VALUES ('maria', 'a deployment')")

    def relay(self, *, heartbeat_age_s: float = 0, lease_s: float = 30, name: str | None = None) -> UUID:
        """A relay process whose leases last for another `lease_s` seconds. Returns its id."""
        instance = uuid4()
        given = {"id": instance, "name": name or str(instance)}
        self.rows(_RELAY, given | {"heartbeat_age_s": heartbeat_age_s, "lease_s": lease_s})
        return instance
