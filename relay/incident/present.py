"""The causes that are so now, each as a function of the state: a headline, or None. Pure."""

from __future__ import annotations

from datetime import timedelta
from statistics import median_low
from typing import TYPE_CHECKING

from relay.domain.alerts import rule_named
from relay.domain.format import DASH, day_clock, hourly, milliseconds, minute_clock, percent, plural, span, verb
from relay.domain.rejections import rejection
from relay.incident.cause import BAD, WARNING, Headline, Kind
from relay.incident.failing import (
    CURRENT_S,
    MANY_REFUSED,
    began_at,
    current_streak,
    failing_group,
    is_over,
    refusals_are_over,
)

if TYPE_CHECKING:
    from datetime import datetime

    from relay.domain.stats import FailureStreak
    from relay.incident.state import State

DOUBT_S = 12
"""Two heartbeats of five seconds are missed by then, and a slow one has had time to be written."""

_LATE_S = 7
"""One heartbeat of five seconds is missed by then."""

_STUCK_S = 10
_STUCK_TIMES = 20
_BACKLOG_S, _OLD_BACKLOG_S = 60, 300
_ABOUT_THEN = timedelta(seconds=5)
_SILENCE_RULES = ("silence-p1", "no-webhooks-info")
_SLOW_RULE = "agent-slow-info"
_FEWEST_TIMES = 3
"""The forwarding times of fewer deliveries may be chance."""


def no_relay(state: State) -> Headline | None:
    """No relay is alive."""
    if state.relays is None or state.relays > 0:
        return None
    seen_s = state.relay_seen_s
    seen = "no heartbeat was ever recorded" if seen_s is None else f"the last heartbeat was {span(seen_s)} ago"
    remedy = "Webhooks are being lost. Start one with `relay serve`."
    return Headline(
        Kind.NO_RELAY, BAD, f"No relay is running: {seen}. {remedy}", shorter=(f"No relay is running! {remedy}",)
    )


def relay_in_doubt(state: State) -> Headline | None:
    """Relays have missed two heartbeats, and are not yet given up."""
    if state.relay_seen_s is None or state.relay_seen_s <= DOUBT_S:
        return None
    said = f"No relay heartbeat for {span(state.relay_seen_s)}: it may be down"
    return Headline(Kind.RELAY_IN_DOUBT, WARNING, f"{said}, and webhooks may be lost.", shorter=(f"{said}.",))


def store_away(state: State) -> Headline | None:
    """Postgres is away."""
    if state.outage is None:
        return None
    began = state.outage.since
    since = "Postgres is away"
    if began is not None:
        since = f"{since} since {day_clock(began, state.at)} ({span(state.age_s(began))})"
    refused, spool = state.outage.refused, state.spool
    if not state.outage.relay_answers:
        said = f"{since}, and no relay answers"
        return Headline(Kind.STORE_AWAY, BAD, f"{said}: webhooks may be lost.", shorter=(f"{said}.",))
    if spool is not None and spool.share < 1 and not refused:
        waits = f"{plural(spool.receipts, 'webhook')} in the spool" if spool.receipts else "the spool takes webhooks"
        return Headline(Kind.STORE_AWAY, BAD, f"{since}: {waits}, none is lost.", shorter=(f"{since}.",))
    lost = f"{plural(refused, 'webhook')} refused so far (503)" if refused else "webhooks are refused (503)"
    return Headline(Kind.STORE_AWAY, BAD, f"{since}: {lost}; they are lost.", shorter=(f"{since}: {lost}.",))


def spool_fills(state: State) -> Headline | None:
    """The spool holds webhooks although Postgres is up, or is more than half full."""
    spool = state.spool
    if spool is None or not spool.receipts:
        return None
    age = "" if spool.oldest_s is None else f", the oldest for {span(spool.oldest_s)}"
    if spool.share > 0.5:
        said = f"The spool is {percent(100 * spool.share, decimals=0)} full: {plural(spool.receipts, 'webhook')}{age}."
        return Headline(Kind.SPOOL, BAD, said)
    said = f"{plural(spool.receipts, 'webhook')} in the spool{age}, though Postgres is up."
    return Headline(Kind.SPOOL, WARNING, said)


def refused(state: State) -> Headline | None:
    """Webhooks are being refused, and not just one of a stranger."""
    current = [one for one in state.refused_webhooks if not refusals_are_over(state, one)]
    if not current:
        return None
    worst = max(current, key=lambda one: (rejection(one.reason).is_lost, one.in_run))
    total = sum(one.in_run for one in current)
    none_accepted = state.accepted_s is None or state.accepted_s > state.age_s(worst.since)
    is_lost = any(rejection(one.reason).is_lost for one in current)
    if not is_lost and total < (2 if none_accepted else MANY_REFUSED):
        return None
    others = total - worst.in_run
    what = f"{plural(worst.in_run, 'webhook')} refused ({rejection(worst.reason).named})"
    since = f"since {day_clock(worst.since, state.at)}"
    more = f", {others:,} for other reasons" if others else ""
    accepted = "; none accepted" if none_accepted else ""
    lost = _loss(worst.reason, worst.in_run)
    return Headline(
        Kind.REFUSED, BAD, f"{what} {since} ({span(state.age_s(worst.since))}){more}{accepted}. {lost}",
        shorter=(f"{what} {since}{accepted}. {lost}", f"{what} {since}{accepted}.", f"{what}."),
    )  # fmt: skip


def _loss(reason: str, count: int) -> str:
    if rejection(reason).status == 400:
        return "Chatwoot sends none such."
    return "It is lost." if count == 1 else "They are lost."


def stuck(state: State) -> Headline | None:
    """Deliveries are in flight for far longer than usual, and none gets through.

    While a heartbeat is late, they may be what a killed relay has left, and the Agent SDK is not to blame.
    """
    if state.relay_seen_s is not None and state.relay_seen_s > _LATE_S:
        return None
    if state.hold is not None or state.breaker is not None or not state.in_flight or state.oldest_s is None:
        return None
    usual_ms = _usual_ms(state)
    usual_s = (usual_ms or 0) / 1000
    success_s = None if state.success_at is None else state.age_s(state.success_at)
    if state.oldest_s <= max(_STUCK_S, _STUCK_TIMES * usual_s) or (success_s is not None and success_s <= _STUCK_S):
        return None
    since = "Nothing delivered yet" if success_s is None else f"Nothing delivered for {span(success_s)}"
    usual = "" if usual_ms is None else f" (usual {milliseconds(usual_ms)})"
    wait = f"{state.in_flight:,} {verb(state.in_flight, 'wait')} at the Agent SDK"
    said = f"{since}: {wait}, the oldest {span(state.oldest_s)}{usual}"
    return Headline(Kind.STUCK, BAD, f"{said}.{_health(state)}", shorter=(f"{said}.",))


def _usual_ms(state: State) -> float | None:
    """The forwarding time of the last hour, or of the last deliveries if that is less: the hour may hold an outage."""
    latest = max(state.latest_ms) if len(state.latest_ms) >= _FEWEST_TIMES else None
    return min((ms for ms in (state.usual_ms, latest) if ms is not None), default=None)


def _health(state: State) -> str:
    agent = state.agent
    if agent is None:
        return ""
    return (
        f" Its /health answers {agent.status or agent.error}." if agent.ok else f" Its /health fails ({agent.error})."
    )


def held(state: State) -> Headline | None:
    """An operator holds forwarding."""
    hold = state.hold
    if hold is None:
        return None
    until = "" if hold.until is None else f" until {minute_clock(hold.until)}"
    said = f"Forwarding is held by {hold.who} since {minute_clock(hold.since)}{until}"
    return Headline(
        Kind.HELD, WARNING, f"{said} ({hold.reason}). {_waiting(state)}", shorter=(f"{said}. {_waiting(state)}",)
    )


def breaker_open(state: State) -> Headline | None:
    """The circuit breaker keeps deliveries from the Agent SDK."""
    breaker = state.breaker
    if breaker is None:
        return None
    said = f"The circuit breaker is open since {day_clock(breaker.since, state.at)}"
    return Headline(
        Kind.BREAKER_OPEN, BAD, f"{said} ({breaker.why}). {_waiting(state)}", shorter=(f"{said}. {_waiting(state)}",)
    )


def _waiting(state: State) -> str:
    number = 0 if state.backlog is None else state.backlog.waiting
    return f"{number:,} {verb(number, 'wait')}."


def agent_fails(state: State) -> Headline | None:
    """Deliveries fail now, or a replay does."""
    group = failing_group(state)
    if group is None:
        return _fails_without_letters(state)
    streak = state.streak_of(group.final_status)
    began = None if streak is None else began_at(state, group, streak)
    sentence = _failing(state, group.last_error, streak, began)
    if sentence is None:
        replayed = state.streak_of(group.final_status, replayed=True)
        if replayed is None or state.age_s(replayed.last) > CURRENT_S or state.gets_through_since(replayed.last):
            return None
        sentence = f"A replay failed {span(state.age_s(replayed.last))} ago: {group.last_error}."
    share, have = verb(group.count, "share"), verb(group.count, "have")
    shared = f"{group.count:,} of {plural(state.dead_letters, 'open dead letter')} {share} this cause."
    short = f"{sentence} {group.count:,} of {state.dead_letters:,} {have} this cause."
    return Headline(Kind.AGENT_FAILS, BAD, f"{sentence} {shared}", group, (short, sentence))


def _failing(state: State, error: str, streak: FailureStreak | None, began: datetime | None) -> str | None:
    if streak is None or state.age_s(streak.last) > CURRENT_S or is_over(state, streak):
        return None
    if began is None:
        return f"{error} for more than a day."
    return f"{error} since {day_clock(began, state.at)} ({span(state.age_s(began))})."


def _fails_without_letters(state: State) -> Headline | None:
    """What failed was dealt with already, and more fails."""
    streak = current_streak(state)
    if streak is None:
        return None
    sentence = _failing(state, f"Deliveries fail ({streak.status or DASH})", streak, streak.first)
    return None if sentence is None else Headline(Kind.AGENT_FAILS, BAD, sentence)


def agent_unhealthy(state: State) -> Headline | None:
    """The Agent SDK's health check fails, and no delivery shows that it is well."""
    said = _unhealthy(state)
    return None if said is None or _delivers(state) else Headline(Kind.AGENT_UNHEALTHY, BAD, f"{said}.")


def unhealthy_but_delivering(state: State) -> Headline | None:
    """The last health check failed, and deliveries get through: the next check may pass, or only the check fails."""
    said = _unhealthy(state)
    if said is None or not _delivers(state):
        return None
    return Headline(Kind.AGENT_UNHEALTHY, WARNING, f"{said}, though deliveries get through.", shorter=(f"{said}.",))


def _unhealthy(state: State) -> str | None:
    agent = state.agent
    if agent is None or agent.ok:
        return None
    said = f"answers {agent.status}" if agent.status else f"fails: {agent.error}"
    return f"Agent SDK /health {said} ({span(agent.age_s)} ago)"


def _delivers(state: State) -> bool:
    """True if a webhook was delivered since the last probe of the agent, or a moment before it."""
    return state.agent is not None and state.gets_through_since(state.agent.at - _ABOUT_THEN)


def backlog_waits(state: State) -> Headline | None:
    """Deliveries wait for a slot for more than a minute."""
    backlog = state.backlog
    if backlog is None or not backlog.waiting or backlog.oldest_s is None or backlog.oldest_s <= _BACKLOG_S:
        return None
    wait = verb(backlog.waiting, "wait")
    said = f"{plural(backlog.waiting, 'delivery')} {wait} for the Agent SDK, the oldest for {span(backlog.oldest_s)}."
    return Headline(Kind.BACKLOG, BAD if backlog.oldest_s > _OLD_BACKLOG_S else WARNING, said)


def silence(state: State) -> Headline | None:
    """No webhook comes, though some should by now."""
    firing = [verdict for verdict in state.firing if verdict.rule.name in _SILENCE_RULES and verdict.holds]
    if not firing:
        return None
    some_are_known = state.usual_per_hour * 24 >= 2
    usual = f"though {hourly(state.usual_per_hour)} are usual" if some_are_known else "longer than usual at this hour"
    since = "No webhook has come" if state.accepted_s is None else f"No webhook for {span(state.accepted_s)}"
    is_grave = any(verdict.rule.name == _SILENCE_RULES[0] for verdict in firing)
    return Headline(Kind.SILENCE, BAD if is_grave else WARNING, f"{since}, {usual}.", shorter=(f"{since}.",))


def agent_slow(state: State) -> Headline | None:
    """The Agent SDK takes long now, and what it is sent gets through.

    The alert's average of 15 min turns late, so the last few deliveries count, fewer of them while the alert holds.
    """
    latest, rule = state.latest_ms, rule_named(_SLOW_RULE)
    is_known = any(one.rule is rule and one.holds for one in state.firing)
    if len(latest) < (1 if is_known else _FEWEST_TIMES) or median_low(latest) <= rule.threshold:
        return None
    if state.success_at is None or state.age_s(state.success_at) > CURRENT_S:
        return None
    said = f"The Agent SDK is slow: a delivery takes {milliseconds(median_low(latest))} now."
    return Headline(Kind.AGENT_SLOW, WARNING, said)


def facts_aside(state: State) -> Headline | None:
    """`dashboard_facts` does not take the relay's facts."""
    if not state.facts_aside:
        return None
    facts, wait = plural(state.facts_aside, "fact"), verb(state.facts_aside, "wait")
    said = f"{facts} refused by dashboard_facts {wait} aside, so the figures are too low."
    return Headline(Kind.FACTS_ASIDE, WARNING, said)


def replay_runs(state: State) -> Headline | None:
    """A replay is under way."""
    plan = state.plan
    if plan is None:
        return None
    done = plan.total - plan.left
    dead = f", {plan.dead:,} of them dead again" if plan.dead else ""
    said = f"Replay {plan.id} by {plan.who} is {plan.state}: {done:,} of {plan.total:,} done{dead}."
    return Headline(Kind.REPLAY_RUNS, WARNING, said)
