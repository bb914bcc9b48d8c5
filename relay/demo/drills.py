"""Fire drills: incidents staged against the stand-ins, so that an on-call engineer can practise with the console.

A drill is data: what happens when, which alerts must come of it and no others, and what the headline must say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from relay.demo.agent import Behaviour
from relay.demo.script import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

CALM_S, INCIDENT_S, AFTER_S = 6.0, 24.0, 30.0
_AWAY_S, _DEAD_S = 75.0, 90.0
_OUTAGE_ALERTS = frozenset({"success-rate-critical", "escalate-dlq", "dlq-p2", "dlq-warning", "attempts-info"})
_POISONED = 8
_SILENT_FOR = timedelta(minutes=40)
_QUIET_FOR = timedelta(minutes=20)
_DOWN_FOR = timedelta(minutes=25)


@dataclass(frozen=True, slots=True)
class History:
    """What is planted before the drill begins: deliveries over the last day, and how long it has been silent.

    `relay_stopped`: the relay that took them stopped when the silence began. `usual`: a week ago, a webhook came every
    minute at this time.
    """

    deliveries: int
    silent_for: timedelta
    relay_stopped: bool = False
    usual: bool = False


@dataclass(frozen=True, slots=True)
class Drill:
    """`begins_at_s` is when the cause sets in, `lasts_s` how long it lasts. `settings` differ from the demo's.

    `cause` is in the headline.

    `spares_all`: no delivery may become a dead letter. `misses_heartbeat`: the service behind `RELAY_HEARTBEAT_URL`
    must report that it was not fetched.
    """

    name: str
    summary: str
    phases: tuple[Phase, ...]
    alerts: frozenset[str]
    cause: str
    task: str
    begins_at_s: float = CALM_S
    lasts_s: float = INCIDENT_S
    webhooks_a_second: float = 6
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: History | None = None
    spares_all: bool = False
    misses_heartbeat: bool = False


def _incident(text: str, over: str = "the Agent SDK is well again", **phase: Any) -> tuple[Phase, ...]:
    return (
        Phase(0, "traffic starts, all is well"),
        Phase(CALM_S, text, **phase),
        Phase(CALM_S + INCIDENT_S, over),
    )


DRILLS = {
    drill.name: drill
    for drill in (
        Drill(
            "agent-down",
            "The Agent SDK refuses connections for half a minute.",
            _incident("the Agent SDK goes down", agent_down=True),
            _OUTAGE_ALERTS,
            "Agent SDK refused the connection since",
            "Find the cause, wait until it is gone, replay what died of it.",
        ),
        Drill(
            "rate-limited",
            "The Agent SDK answers 429 with Retry-After.",
            _incident(
                "the Agent SDK begins to rate limit", behaviours=(Behaviour(status=429, retry_after="1"),)
            ),
            _OUTAGE_ALERTS,
            "Agent SDK is rate limiting (429) since",
            "Find the cause; replay at a rate that the Agent SDK can take.",
        ),
        Drill(
            "slow-agent",
            "The Agent SDK takes four seconds for each webhook.",
            _incident("the Agent SDK becomes slow", behaviours=(Behaviour(delay_ms=4_000),)),
            frozenset({"agent-slow-info"}),
            "The Agent SDK is slow",
            "See that nothing is lost, and inform the team that runs the Agent SDK.",
            webhooks_a_second=3,
            settings={"agent_sdk_timeout_ms": 10_000},
        ),
        Drill(
            "bad-signature",
            "Chatwoot's webhook secret is changed, and the relay does not know the new one.",
            _incident(
                "the secret is changed in Chatwoot", "the old secret is set again", secret=b"a secret the relay lacks"
            ),
            frozenset({"refused-p0", "refused-warning"}),
            "refused (401, bad signature) since",
            "Find out why nothing comes in, though Chatwoot sends; say what must be set where.",
            settings={"chatwoot_webhook_secret": "the-drills-secret"},
        ),
        Drill(
            "poison-message",
            "A few messages are refused by the Agent SDK, whatever is tried.",
            _incident(
                "some messages are refused with 422", "the rest gets through",
                behaviours=(Behaviour(status=422, times=_POISONED),),
            ),
            frozenset({"dlq-warning"}),
            "Agent SDK refused the payload (422)",
            "Read one payload; edit and replay it, or discard it with a reason.",
        ),
        Drill(
            "agent-deploy",
            "The Agent SDK is deployed while forwarding is held: webhooks wait, and none becomes a dead letter.",
            (
                Phase(0, "traffic starts, all is well"),
                Phase(CALM_S, "forwarding is held", held=True),
                Phase(CALM_S + 3, "the Agent SDK goes down for its deployment", agent_down=True),
                Phase(CALM_S + INCIDENT_S, "the Agent SDK is back, and forwarding is released", held=False),
            ),
            frozenset(),
            "Forwarding is held by demo",
            "See in the first line who holds forwarding and how many wait; see the backlog drain after the release.",
            spares_all=True,
        ),
        Drill(
            "breaker",
            "The Agent SDK answers 503 while the circuit breaker is on: deliveries wait instead of dying.",
            _incident("the Agent SDK answers 503", behaviours=(Behaviour(status=503),)),
            frozenset(),
            "The circuit breaker is open",
            "See why the breaker is open and when it probes; see the backlog drain once a probe succeeds.",
            settings={"relay_breaker": "on", "chatwoot_webhook_max_attempts": 6},
            spares_all=True,
        ),
        Drill(
            "postgres-away",
            "Postgres is stopped for more than a minute: webhooks go to the spool, and none is lost.",
            (
                Phase(0, "traffic starts, all is well"),
                Phase(CALM_S, "Postgres is stopped", store_away=True),
                Phase(CALM_S + _AWAY_S, "Postgres is started again", store_away=False),
            ),
            frozenset({"store-down-p0"}),
            "Postgres is away since",
            "See what can be known without Postgres, where webhooks wait, and that the spool drains afterwards.",
            lasts_s=_AWAY_S,
            webhooks_a_second=3,
            settings={"agent_sdk_timeout_ms": 20_000},  # its answers wait for Postgres too
        ),
        Drill(
            "all-relays-dead",
            "Every relay is dead for a minute and a half: only what watches the heartbeat from outside can notice.",
            (
                Phase(0, "traffic starts, all is well"),
                Phase(CALM_S, "every relay dies", relay_away=True),
                Phase(CALM_S + _DEAD_S, "a relay runs again", relay_away=False),
            ),
            frozenset(),
            "No relay is running",
            "Learn from the heartbeat's service that no relay runs; find what was lost and fetch it: relay backfill.",
            lasts_s=_DEAD_S,
            webhooks_a_second=3,
            misses_heartbeat=True,
        ),
        Drill(
            "chatwoot-silent",
            "Chatwoot's webhook points elsewhere, and nothing has come for 40 minutes (a planted history).",
            (Phase(0, "Chatwoot's webhook points to another host", webhook_url="https://elsewhere.example/hook"),),
            frozenset({"no-webhooks-info"}),
            "No webhook for",
            "Find out what is wrong in Chatwoot's settings.",
            begins_at_s=0,
            webhooks_a_second=0,
            history=History(600, _SILENT_FOR),
        ),
        Drill(
            "silence",
            "A webhook a minute is usual at this hour, and none has come for 20 minutes (a planted history).",
            (Phase(0, "Chatwoot's webhook points to another host", webhook_url="https://elsewhere.example/hook"),),
            frozenset({"silence-p1"}),
            "No webhook for",
            "See what is usual at this hour, and find out since when and why nothing comes in.",
            begins_at_s=0,
            webhooks_a_second=0,
            history=History(600, _QUIET_FOR, usual=True),
        ),
        Drill(
            "relay-was-down",
            "No relay ran for 25 minutes, and Chatwoot sends no webhook twice (a planted history).",
            (
                Phase(
                    0, "the relay runs again; customers wrote 48 messages meanwhile",
                    missed=48, missed_over=_DOWN_FOR - timedelta(minutes=1),
                ),
            ),
            frozenset(),
            "No relay ran from",
            "Find out from when to when nothing came in, and fetch what is missing: relay backfill.",
            begins_at_s=0,
            history=History(600, _DOWN_FOR, relay_stopped=True),
        ),
    )
}  # fmt: skip
