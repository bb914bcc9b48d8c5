"""The timeline of an incident: failures, notifications and actions in one list by time. Pure.

`relay timeline` prints it; escalation and the handover to the next shift are made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from relay.domain.alerts import RULES
from relay.domain.format import figure, plural, span
from relay.domain.rejections import rejection
from relay.domain.retry import short_status
from relay.domain.targets import title_with_route
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.store.actions import OperatorAction
    from relay.store.timeline import AlertChange, Failures, History, PlanRun, RelayRun

_OVER_S = 300
"""Failures are over if none came for so long."""

_EARLIEST_YEAR = 1970
"""Another application may write any moment into a fact, and not every one can be given in another time zone."""

_TEXT_CHARS = 300
_UNITS = {rule.name: rule.unit for rule in RULES}


class Kind(StrEnum):
    """What an entry is about."""

    FAILURE = "failure"
    REFUSED = "refused"
    ALERT = "alert"
    HOLD = "hold"
    BREAKER = "breaker"
    SPOOL = "spool"
    RELAY = "relay"
    REPLAY = "replay"
    HEALTH = "health"
    ACTION = "action"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `by` is the operator who did it, None if a person did not."""

    at: datetime
    kind: Kind
    text: str
    by: str | None = None

    @property
    def line(self) -> str:
        """The entry in one line: time in UTC, kind, what happened, and who did it."""
        who = "" if self.by is None else f"{clean(self.by)}: "
        return f"{self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z  {self.kind:8} {who}{clean(self.text, limit=_TEXT_CHARS)}"


def assemble(history: History) -> list[Entry]:
    """The entries of `history` from its `since` on, oldest first."""
    entries = [
        *(entry for one in history.failures for entry in _failures(one, history.at)),
        *(_alert(one) for one in history.alerts),
        *(
            Entry(one.at, Kind.HEALTH, f"{title_with_route(one.target)} {_health(one.error, ok=one.ok)}")
            for one in history.health
        ),
        *(entry for one in history.relays for entry in _relay(one)),
        *(entry for one in history.plans for entry in _plan(one)),
        *(Entry(one.at, *_event(one.kind, one.detail)) for one in history.events),
        *(_action(one) for one in history.actions),
    ]
    return sorted((one for one in entries if one.at >= history.since), key=lambda one: one.at)


def _failures(failures: Failures, now: datetime) -> Iterator[Entry]:
    if failures.refused:
        reason = rejection(failures.status)
        kind, what, noun = Kind.REFUSED, f"refused ({reason.named})", "webhook" if reason.is_webhook else "request"
    else:
        kind, what, noun = Kind.FAILURE, f"failed ({short_status(failures.status)})", "delivery"
    yield Entry(failures.first, kind, f"the first {noun} {what}")
    if failures.count > 1:
        over = (now - failures.last).total_seconds() >= _OVER_S
        lasted = span((failures.last - failures.first).total_seconds())
        text = f"{'the last of' if over else 'the latest of'} {plural(failures.count, noun)} {what}, over {lasted}"
        yield Entry(failures.last, kind, text)


def _alert(change: AlertChange) -> Entry:
    at = _moment(change.said_at, change.at)
    unit = _UNITS.get(change.rule, "")
    value, threshold = _number(change.value), _number(change.threshold)
    now = "" if value is None else f" ({figure(value, unit)}; threshold {figure(threshold, unit)})"
    return Entry(at, Kind.ALERT, f"{change.severity} {change.rule} {change.state}{now}")


def _moment(said: str | None, recorded: datetime) -> datetime:
    """When an alert changed: what was recorded after Postgres had been away says so itself."""
    try:
        at = recorded if said is None else datetime.fromisoformat(said)
    except ValueError:
        return recorded
    return min(at, recorded) if at.tzinfo and at.year >= _EARLIEST_YEAR else recorded


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _health(error: str | None, *, ok: bool) -> str:
    return "is well" if ok else f"fails: {error or 'no reason given'}"


def _relay(run: RelayRun) -> Iterator[Entry]:
    name = run.name.rpartition("/")[2]
    changed = "" if run.earlier in {None, run.version} else f", before it v{run.earlier}"
    yield Entry(
        run.started_at, Kind.RELAY, f"relay {name} started: v{run.version}{changed}, {plural(run.workers, 'worker')}"
    )
    if run.ended_at is not None:
        how = "stopped" if run.in_order else "sent its last heartbeat; it did not stop in order"
        yield Entry(run.ended_at, Kind.RELAY, f"relay {name} {how}")


def _plan(plan: PlanRun) -> Iterator[Entry]:
    if plan.started_at is not None:
        yield Entry(plan.started_at, Kind.REPLAY, f"plan {plan.id} started: {plural(plan.total, 'delivery')}")
    if plan.finished_at is not None:
        why = "" if plan.stopped_why is None else f": {plan.stopped_why}"
        end = "ended" if plan.stopped_why is None else "was stopped"
        counts = f"{plan.delivered} delivered, {plan.dead} failed, {plan.skipped} skipped of {plan.total}"
        yield Entry(plan.finished_at, Kind.REPLAY, f"plan {plan.id} {end}: {counts}{why}")


def _event(kind: str, detail: str) -> tuple[Kind, str]:
    about = f" ({detail})" if detail else ""
    texts = {
        "breaker.opened": (Kind.BREAKER, f"the circuit breaker opened{about}"),
        "breaker.closed": (Kind.BREAKER, "the circuit breaker closed"),
        "spool.filled": (Kind.SPOOL, f"webhooks went to the spool{about}"),
        "spool.drained": (Kind.SPOOL, f"the spool was empty again{about}"),
    }
    return texts[kind]


_KINDS = {"hold": Kind.HOLD, "release": Kind.HOLD, "acknowledge": Kind.ALERT}
_UNSAID = frozenset({"hold"})
"""Details that only name a row."""


def _action(action: OperatorAction) -> Entry:
    kind = _KINDS.get(action.action, Kind.REPLAY if action.action.startswith("replay") else Kind.ACTION)
    details = {**action.details, **(action.result or {})}
    rule = details.pop("rule", None) if action.action == "acknowledge" else None
    if "for_s" in details and isinstance(details["for_s"], (int, float)):
        details["for"] = span(details.pop("for_s"))
    said = [f"{key} {value}" for key, value in details.items() if value not in (None, "", []) and key not in _UNSAID]
    parts = [f"plan {action.plan_id}"] if action.plan_id is not None else []
    parts += said + ([action.reason] if action.reason else [])
    what = action.action if rule is None else f"{action.action} {rule}"
    return Entry(action.at, kind, f"{what} ({'; '.join(parts)})" if parts else what, by=action.who)
