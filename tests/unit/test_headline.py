"""The headline engine: exactly one headline for every state, and never that all is well while something is not."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.domain.alerts import RULES, Verdict
from relay.domain.rejections import REASONS, rejection
from relay.domain.stats import FailureStreak
from relay.incident.cause import Kind
from relay.incident.headline import _CAUSES, headline
from relay.incident.state import BacklogSize, BreakerState, HeldState, SpoolState, State, StoreOutage
from relay.store.browse import Group
from relay.store.facts import Health
from relay.store.refused import Refused
from relay.store.replays import Plan, PlanState

NOW = datetime(2026, 11, 27, 14, 31, 7, tzinfo=UTC)
ALL_WELL = re.compile(r"nothing (is failing|fails|has failed)", re.IGNORECASE)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


MANY_OF_ONE = re.compile(
    r"(?<![\d,.:])1 (?:deliveries|webhooks|facts|(?:open )?dead letters|wait|are|an hour are|a day are)\b"
    r"|(?<![\d,])1 of [\d,]+ (?:open dead letters? share|have)\b|\b0 (?:an hour|a day)"
)
"""One thing, with the words of several."""

WELL = State(at=NOW, relays=1, relay_seen_s=2, accepted_s=1, success_at=ago(1), usual_ms=5)


def refused(reason: str, count: int, *, since_s: float, last_s: float = 1) -> Refused:
    return Refused(reason, count, ago(since_s), ago(last_s), ago(since_s), count)


def group(status: str, error: str, count: int, *, first_s: float = 600, last_s: float = 1) -> Group:
    return Group(status, error, count, count, ago(first_s), ago(last_s), ("message_created",), f"error:{status}")


def streak(status: str, *, first_s: float, last_s: float, lately: int = 100) -> FailureStreak:
    return FailureStreak(status, replayed=False, first=ago(first_s), last=ago(last_s), lately=lately)


def health(*, ok: bool) -> Health:
    return Health("agent", ok, "200" if ok else "503", 5, None if ok else "HTTP 503", ago(2), 2)


def firing(rule: str, value: float, *, holds: bool = True) -> Verdict:
    found = next(one for one in RULES if one.name == rule)
    return Verdict(found, firing=True, value=value, holds=holds, since=ago(60))


def plan(state: PlanState = PlanState.RUNNING) -> Plan:
    from uuid import UUID  # noqa: PLC0415

    return Plan(
        2, UUID(int=2), state, "maria", "", "", 20, 1, 3, False, 136, 54, 3, 0, None, ago(60), ago(60), None, "maria"
    )


ERROR = "Agent SDK answered 503"
REFUSED = "Agent SDK refused the connection"
DOWN: dict[str, Any] = {
    "groups": [group("503", ERROR, 204, first_s=1736)],
    "streaks": [streak("503", first_s=1736, last_s=1)],
    "dead_letters": 211,
    "success_at": ago(1736),
}
HELD = HeldState("maria", ago(1747), None, "deploying the agent")

# what is so, and how the headline begins
CASES: list[tuple[str, dict[str, Any], Kind, str]] = [
    ("all is well", {}, Kind.WELL, "Nothing is failing. No dead letter waits."),
    ("no relay", {"relays": 0, "relay_seen_s": 660} | DOWN, Kind.NO_RELAY,
     "No relay is running: the last heartbeat was 11m ago. Webhooks are being lost. Start one with `relay serve`."),
    ("two beats missed", {"relay_seen_s": 13}, Kind.RELAY_IN_DOUBT, "No relay heartbeat for 13s: it may be down"),
    ("one beat missed", {"relay_seen_s": 11}, Kind.WELL, "Nothing is failing."),
    ("Postgres away, spooled", {"outage": StoreOutage(ago(120)), "spool": SpoolState(87)}, Kind.STORE_AWAY,
     "Postgres is away since 14:29:07 (2m): 87 webhooks in the spool, none is lost."),
    ("Postgres away, no spool", {"outage": StoreOutage(ago(120), 8)}, Kind.STORE_AWAY,
     "Postgres is away since 14:29:07 (2m): 8 webhooks refused so far (503); they are lost."),
    ("the spool is not empty", {"spool": SpoolState(87, 180, 0.1)}, Kind.SPOOL,
     "87 webhooks in the spool, the oldest for 3m, though Postgres is up."),
    ("the spool fills", {"spool": SpoolState(87, 180, 0.62)}, Kind.SPOOL, "The spool is 62 % full: 87 webhooks"),
    ("wrong secret",
     {"refused": [refused("invalid_signature", 600, since_s=300)], "accepted_s": 400} | DOWN, Kind.REFUSED,
     "600 webhooks refused (401, bad signature) since 14:26:07 (5m); none accepted. They are lost."),
    ("the right secret since 4 s", {"refused": [refused("invalid_signature", 600, since_s=300, last_s=5)],
                                    "accepted_s": 1}, Kind.EARLIER_REFUSED, "Earlier: 600 webhooks refused (401"),
    ("some refused now and then", {"refused": [refused("invalid_signature", 10, since_s=100, last_s=20)],
                                   "accepted_s": 1}, Kind.REFUSED, "10 webhooks refused (401, bad signature)"),
    ("one body too large", {"refused": [refused("body_too_large", 1, since_s=3)]}, Kind.REFUSED,
     "1 webhook refused (413, body too large) since 14:31:04 (3s). It is lost."),
    ("a stranger among accepted ones", {"refused": [refused("missing_signature", 4, since_s=30)]}, Kind.FEW_REFUSED,
     "4 webhooks refused (401, no signature), the last 1s ago."),
    ("the wrong secret is over", {"refused": [refused("invalid_signature", 600, since_s=900, last_s=480)]} | DOWN,
     Kind.AGENT_FAILS, "Agent SDK answered 503 since 14:02:11 (28m). 204 of 211 open dead letters share this cause."),
    ("and nothing else is wrong", {"refused": [refused("invalid_signature", 600, since_s=900, last_s=480)]},
     Kind.EARLIER_REFUSED, "Earlier: 600 webhooks refused (401, bad signature) from 14:16:07 to 14:23:07. They are"),
    ("a scanner", {"refused": [refused("unknown_path", 50, since_s=300)]}, Kind.WELL, "Nothing is failing."),
    ("what a killed relay has left, before it is in doubt",
     {"in_flight": 1, "oldest_s": 11, "success_at": ago(11), "agent": health(ok=True), "relay_seen_s": 8},
     Kind.WELL, "Nothing is failing."),
    ("a hanging agent",
     {"in_flight": 87, "oldest_s": 43, "success_at": ago(40), "agent": health(ok=True), "dead_letters": 18,
      "groups": [group("timeout", "Agent SDK did not answer within 30 s", 18, last_s=300)]}, Kind.STUCK,
     "Nothing delivered for 40s: 87 wait at the Agent SDK, the oldest 43s (usual 5 ms). Its /health answers 200."),
    ("slow, but usually so", {"in_flight": 3, "oldest_s": 43, "success_at": ago(40), "usual_ms": 3_000}, Kind.WELL,
     "Nothing is failing."),
    ("it hangs again within the hour",
     {"in_flight": 87, "oldest_s": 43, "success_at": ago(40), "usual_ms": 50_000, "latest_ms": [5, 7, 6, 5, 5]},
     Kind.STUCK, "Nothing delivered for 40s: 87 wait at the Agent SDK, the oldest 43s (usual 7 ms)."),
    ("held", {"hold": HELD, "backlog": BacklogSize(312, 900)} | DOWN, Kind.HELD,
     "Forwarding is held by maria since 14:02Z (deploying the agent). 312 wait."),
    ("breaker open", {"breaker": BreakerState(ago(60), "19 of 20 attempts failed"), "backlog": BacklogSize(1, 9)},
     Kind.BREAKER_OPEN, "The circuit breaker is open since 14:30:07 (19 of 20 attempts failed). 1 waits."),
    ("the agent fails", DOWN, Kind.AGENT_FAILS,
     "Agent SDK answered 503 since 14:02:11 (28m). 204 of 211 open dead letters share this cause."),
    ("its failures were dealt with", DOWN | {"groups": []}, Kind.AGENT_FAILS, "Deliveries fail (503) since 14:02:11"),
    ("its health fails", {"agent": health(ok=False), "success_at": ago(8)}, Kind.AGENT_UNHEALTHY,
     "Agent SDK /health answers 503 (2s ago)."),
    ("its health failed, and deliveries get through", {"agent": health(ok=False)}, Kind.AGENT_UNHEALTHY,
     "Agent SDK /health answers 503 (2s ago), though deliveries get through."),
    ("it answers again, and its health was not checked since",
     DOWN | {"streaks": [streak("503", first_s=1736, last_s=6)], "success_at": ago(1), "agent": health(ok=False)},
     Kind.RECOVERED, "Agent SDK answers again ("),
    ("another cause since",
     DOWN | {"groups": [group("503", ERROR, 204, first_s=1736, last_s=9), group("connection_refused", REFUSED, 6)],
             "streaks": [streak("503", first_s=1736, last_s=9), streak("connection_refused", first_s=8, last_s=1,
                                                                      lately=6)]},
     Kind.AGENT_FAILS, f"{REFUSED} since 14:30:59 (8s). 6 of 211"),
    ("one cause over, another goes on",
     DOWN | {"groups": [group("503", ERROR, 204, first_s=1736, last_s=9), group("422", "refused the payload", 6)],
             "streaks": [streak("503", first_s=1736, last_s=9), streak("422", first_s=8, last_s=1, lately=6)],
             "success_at": ago(1)}, Kind.AGENT_FAILS, "refused the payload since 14:30:59 (8s). 6 of 211"),
    ("rejected payloads are over", {"groups": [group("422", "refused the payload", 6, last_s=9)],
                                    "streaks": [streak("422", first_s=12, last_s=9, lately=6)], "success_at": ago(1)},
     Kind.DEAD_LETTERS, "The last failure was 9s ago (422). 6 dead letters rejected by the Agent SDK; retrying will"),
    ("two errors of one status",
     DOWN | {"groups": [group("503", ERROR, 204, first_s=1736, last_s=300), group("503", f"{ERROR}: full", 6,
                                                                                first_s=20)],
             "streaks": [streak("503", first_s=1736, last_s=1)]},
     Kind.AGENT_FAILS, "Agent SDK answered 503: full since 14:30:47 (20s). 6 of 211"),
    ("a backlog", {"backlog": BacklogSize(312, 61)}, Kind.BACKLOG,
     "312 deliveries wait for the Agent SDK, the oldest for 1m."),
    ("a young backlog", {"backlog": BacklogSize(312, 59)}, Kind.WELL, "Nothing is failing."),
    ("silence", {"firing": [firing("no-webhooks-info", 40)], "accepted_s": 2400, "usual_per_hour": 25}, Kind.SILENCE,
     "No webhook for 40m, though 25 an hour are usual."),
    ("silence where little comes", {"firing": [firing("silence-p1", 300)], "accepted_s": 18_000, "usual_per_hour": 0.2},
     Kind.SILENCE, "No webhook for 5h00m, though 5 a day are usual."),
    ("silence where nothing came for a day", {"firing": [firing("silence-p1", 2e3)], "accepted_s": 12e4}, Kind.SILENCE,
     "No webhook for 1d9h, longer than usual at this hour."),
    ("one failure", DOWN | {"groups": [group("503", ERROR, 1, first_s=1736)], "dead_letters": 1}, Kind.AGENT_FAILS,
     "Agent SDK answered 503 since 14:02:11 (28m). 1 of 1 open dead letter shares this cause."),
    ("one fact aside", {"facts_aside": 1}, Kind.FACTS_ASIDE, "1 fact refused by dashboard_facts waits aside"),
    ("facts aside", {"facts_aside": 12}, Kind.FACTS_ASIDE, "12 facts refused by dashboard_facts wait aside"),
    ("a slow agent", {"latest_ms": [4012, 4009, 5, 4020, 6]}, Kind.AGENT_SLOW,
     "The Agent SDK is slow: a delivery takes 4009 ms now."),
    ("two slow deliveries", {"latest_ms": [4012, 4009]}, Kind.WELL, "Nothing is failing."),
    ("a slow agent with little traffic", {"firing": [firing("agent-slow-info", 4012)], "latest_ms": [3100]},
     Kind.AGENT_SLOW, "The Agent SDK is slow: a delivery takes 3100 ms now."),
    ("slow deliveries of long ago", {"latest_ms": [4012, 4009, 4011], "success_at": ago(61)}, Kind.WELL, "Nothing is"),
    ("an agent that was slow", {"firing": [firing("agent-slow-info", 4012)], "latest_ms": [5, 6, 5, 4012, 7]},
     Kind.ALERT, "Deliveries took 4012 ms on average in the last 15 min; now 6 ms."),
    ("a replay", {"plan": plan()}, Kind.REPLAY_RUNS,
     "Replay 2 by maria is running: 57 of 136 done, 3 of them dead again."),
    ("the agent answers again",
     DOWN | {"streaks": [streak("503", first_s=1736, last_s=6)], "success_at": ago(1), "answers_since": ago(5)},
     Kind.RECOVERED, "Agent SDK answers again since 14:31:02 (Agent SDK answered 503 from 14:02:11 to 14:31:01). 211"),
    ("one success between many failures",
     DOWN | {"streaks": [streak("503", first_s=180, last_s=6, lately=9)], "success_at": ago(1)}, Kind.AGENT_FAILS,
     "Agent SDK answered 503 since 14:28:07 (3m)."),
    ("a gap without a relay", {"unattended": (ago(500), ago(350))}, Kind.GAP,
     "No relay ran from 14:22:47 to 14:25:17 (2m): what Chatwoot sent then is missing here."),
    ("a gap, and dead letters wait", DOWN | {"streaks": [], "unattended": (ago(500), ago(350))}, Kind.GAP,
     ("No relay ran from 14:22:47 to 14:25:17 (2m): what Chatwoot sent then is missing here. `relay backfill` fetches"
      " it. 211 dead letters wait.")),
    ("what a diagnosis found", {"finding": "none of Chatwoot's webhooks points here."}, Kind.FINDING, "none of"),
    ("dead letters wait", DOWN | {"streaks": [], "groups": [group("503", ERROR, 204, last_s=600)]}, Kind.DEAD_LETTERS,
     "Nothing has failed for 10m. 204 dead letters can be replayed: Agent SDK answered 503."),
    ("dead letters wait, an alert fires",
     DOWN | {"streaks": [], "groups": [group("503", ERROR, 204, last_s=600)], "firing": [firing("dlq-p2", 138)]},
     Kind.DEAD_LETTERS, "The last failure was 10m ago. 204 dead letters can be replayed: Agent SDK answered 503."),
    ("all was replayed, an alert fires", {"firing": [firing("escalate-dlq", 138)]}, Kind.ALERT,
     "138 webhooks were dead-lettered in the last hour; none waits."),
    ("failed tests", {"dead_letters": 2}, Kind.WELL, "Nothing is failing. There is nothing but 2 dead letters of test"),
]  # fmt: skip


@pytest.mark.parametrize(("given_", "kind", "begins"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_so_is_the_headline(given_: dict[str, Any], kind: Kind, begins: str) -> None:
    found = headline(replace(WELL, **given_))
    assert (found.kind, found.sentence[: len(begins)]) == (kind, begins)


def test_every_kind_has_a_case() -> None:
    assert set(Kind) - {case[2] for case in CASES} == {Kind.EARLIER_FAILURE}
    found = headline(replace(WELL, streaks=[streak("503", first_s=100, last_s=90)], last_failure_at=ago(90)))
    assert (found.kind, found.sentence) == (
        Kind.EARLIER_FAILURE, "The last failure was 1m ago (503). No dead letter waits.",
    )  # fmt: skip


_ages = st.floats(0, 5_000, allow_nan=False)
_moments = _ages.map(ago)
_streaks = st.builds(
    FailureStreak, status=st.sampled_from(["503", "422", "timeout", ""]), replayed=st.booleans(),
    first=st.none() | _moments, last=_moments, lately=st.integers(0, 500),
)  # fmt: skip
_groups = st.builds(
    group, st.sampled_from(["503", "422", "timeout", ""]), st.just(ERROR), st.integers(1, 500), last_s=_ages
)
_refused = st.builds(
    refused, st.sampled_from([*sorted(REASONS), "made_up"]), st.integers(1, 600), since_s=_ages,
    last_s=st.floats(0, 3_600),
)  # fmt: skip
_verdicts = st.builds(
    Verdict, rule=st.sampled_from(RULES), firing=st.just(True), value=st.none() | _ages, holds=st.booleans(),
    since=st.none() | _moments,
)  # fmt: skip
_states = st.builds(
    State, at=st.just(NOW), relays=st.none() | st.integers(0, 3), relay_seen_s=st.none() | _ages,
    outage=st.none() | st.builds(StoreOutage, _moments, st.integers(0, 50)),
    spool=st.none() | st.builds(SpoolState, st.integers(0, 50), st.none() | _ages, st.floats(0, 1)),
    refused=st.lists(_refused, max_size=3), accepted_s=st.none() | _ages, in_flight=st.integers(0, 90),
    oldest_s=st.none() | _ages, usual_ms=st.none() | _ages,
    hold=st.none() | st.builds(HeldState, st.just("maria"), _moments, st.none() | _moments, st.just("why")),
    breaker=st.none() | st.builds(BreakerState, _moments, st.just("why")),
    backlog=st.none() | st.builds(BacklogSize, st.integers(0, 90), st.none() | _ages),
    streaks=st.lists(_streaks, max_size=3), groups=st.lists(_groups, max_size=3), success_at=st.none() | _moments,
    answers_since=st.none() | _moments, latest_ms=st.lists(_ages, max_size=5), last_failure_at=st.none() | _moments,
    agent=st.none() | st.booleans().map(lambda ok: health(ok=ok)), agent_failed_at=st.none() | _moments,
    dead_letters=st.integers(0, 500), facts_aside=st.integers(0, 3), firing=st.lists(_verdicts, max_size=3),
    usual_per_hour=_ages, plan=st.none() | st.sampled_from(PlanState).map(plan),
    unattended=st.none() | st.just((ago(500), ago(400))), finding=st.none() | st.just("found."),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(_states)
def test_every_state_has_exactly_one_headline(state: State) -> None:
    found = headline(state)
    applying = [cause for cause in (one(state) for one in _CAUSES) if cause is not None]
    assert found == (applying[0] if applying else found)
    assert len({type(found), *map(type, applying)}) == 1
    assert found.sentence.endswith(".")
    assert "\n" not in found.sentence
    assert not MANY_OF_ONE.search(found.sentence), found.sentence
    assert found.command.startswith("relay ")
    for form, shorter in zip((found.sentence, *found.shorter), found.shorter, strict=False):
        assert len(shorter) <= len(form)
    if state.firing or any(rejection(one.reason).is_webhook for one in state.refused):
        assert not ALL_WELL.search(found.sentence), found
        assert found.kind is not Kind.WELL
        assert found.level != "well"


def test_every_reason_for_a_refusal_has_a_row() -> None:
    from relay.chatwoot.payload import BodyFault  # noqa: PLC0415
    from relay.chatwoot.signature import SignatureFault  # noqa: PLC0415

    assert {*map(str, SignatureFault), *map(str, BodyFault)} <= REASONS
    assert rejection("made_up").named == "made up"
