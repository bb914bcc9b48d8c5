"""The chapter that the runbook lacks: deliveries wait, because forwarding is stopped or does not keep up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.format import plural, verb
from relay.incident.diagnosis.chapter import Chapter, Check, Order, span

if TYPE_CHECKING:
    from relay.incident.evidence import Evidence
    from relay.store.backlog import BacklogState

_OVERDUE_S = 300
_KEPT = "Nothing is lost: what waits is in Postgres and is forwarded in order"
_RELEASE = "When the reason for the hold is gone: relay release (--rate N for a slow start)"
_PROBES = "The breaker closes by itself once a probe succeeds: find out why the Agent SDK fails"
_MORE_SLOTS = "If the Agent SDK can take more: raise RELAY_MAX_IN_FLIGHT, RELAY_AGENT_CONCURRENCY or RELAY_AGENT_RATE"


def backlog(evidence: Evidence) -> Chapter | None:
    """The chapter, if something waits or forwarding is stopped."""
    state = evidence.overview.backlog
    if not state.waiting and state.stopped is None:
        return None
    found = _found(state)
    order, verdict, lines = Order.WELL, f"{found}.", [_KEPT]
    if state.stopped is not None:
        order, verdict = Order.STOPPED, state.stopped
        lines.append(_PROBES if state.hold is None else _RELEASE)
    elif state.gone:
        order = Order.LOSSES
    elif (state.overdue_s or 0) > _OVERDUE_S:
        order = Order.LOSSES
        lines.append(_MORE_SLOTS)
    lines += state.without_relay
    return Chapter(
        "backlog", "Deliveries Wait", order, verdict, (Check(order is Order.WELL, found),), tuple(lines),
        explains=state.waiting,
    )  # fmt: skip


def _found(state: BacklogState) -> str:
    if not state.waiting:
        return "No delivery waits"
    reasons = ", ".join(f"{number:,} for {reason}" for reason, number in sorted(state.by_reason.items()))
    age = "" if state.oldest_s is None else f", the oldest for {span(state.oldest_s)}"
    return f"{plural(state.waiting, 'delivery')} {verb(state.waiting, 'wait')} ({reasons}){age}"
