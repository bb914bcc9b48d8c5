"""RUNBOOK, "Dead Letter Queue Growing": which failures wait, and which of them a replay helps now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.format import plural, verb
from relay.domain.retry import retry_helps
from relay.incident.diagnosis.chapter import Chapter, Check, Order
from relay.incident.state import state_of

if TYPE_CHECKING:
    from datetime import datetime

    from relay.incident.evidence import Evidence
    from relay.store.browse import Group

_CAUSE_GONE_AFTER_S = 20


def dead_letters(evidence: Evidence) -> Chapter:
    """The chapter."""
    state = evidence.overview
    open_now, fresh = state.open_dead_letters, state.last_1h.dead_letters
    checks = [
        Check(not open_now, f"{open_now} open; {fresh} in 1 h, {state.last_24h.dead_letters} in 24 h"),
        *(
            Check(
                ok=False,
                text=f"{group.count} × {group.last_error}, died {_when(group.first)} to {_when(group.last)}",
            )
            for group in sorted(evidence.groups, key=lambda group: -group.count)[:10]
        ),
    ]
    real = [group for group in evidence.groups if not group.only_tests]
    refused = [group for group in real if not retry_helps(group.final_status)]
    gone = [group for group in real if _cause_is_gone(group, evidence)]
    failures = state.last_1h.failures
    refused_lately = sum(count for status, count in failures.items() if not retry_helps(status))
    order, explains, verdict = Order.WELL, 0, "No dead letter waits."
    if refused and refused_lately:
        worst = max(refused, key=lambda group: (failures.get(group.final_status, 0), group.count))
        order, explains = Order.LOSSES, refused_lately
        verdict = (
            f"{worst.last_error}: {plural(worst.count, 'dead letter')} that retrying will not help, the oldest of "
            f"{_when(worst.first)}; read one payload."
        )
    elif open_now:
        ready = sum(group.count for group in gone)
        order = Order.WAITING
        hopeless = sum(group.count for group in refused)
        verdict = f"{plural(open_now, 'dead letter')} {verb(open_now, 'wait')}"
        verdict += f"; the cause of {ready} is gone: replay them" if ready else ""
        verdict += f"; retrying will not help {hopeless} of them" if hopeless else ""
        verdict += "."
    lines = [
        "Identify the root cause from lastError, above",
        "Fix the underlying issue (Agent SDK, network, configuration)",
    ]
    lines += [f"Replay what failed: {replay_command(text)}" for text in (group.filter for group in gone)] or [
        "Replay what failed once the fix is verified: relay replay --dry-run"
    ]
    return Chapter(
        "dead-letters-growing", "Dead Letter Queue Growing", order, verdict, tuple(checks),
        tuple(lines) if open_now else (), explains, tuple(group.filter for group in gone),
    )  # fmt: skip


def _when(moment: datetime) -> str:
    return f"{moment:%b %d %H:%M:%S}Z"


def _cause_is_gone(group: Group, evidence: Evidence) -> bool:
    """True if a retry helps against such a failure, none has happened for a while, and there is proof that it is over.

    An agent that is healthy now proves nothing if it was healthy all along.
    """
    state = evidence.overview
    agent_ok = any(result.target == "agent" and result.ok for result in evidence.probes)
    own = [streak for streak in evidence.streaks if streak.status == group.final_status]
    first = min((streak.first for streak in own if streak.first is not None), default=group.first)
    last = max([group.last, *(streak.last for streak in own)])
    is_quiet = (state.at - last).total_seconds() > _CAUSE_GONE_AFTER_S
    now = state_of(state, evidence.groups, evidence.plans)
    is_over = now.gets_through_since(last) or now.agent_is_well_since(first, last)
    return agent_ok and retry_helps(group.final_status) and is_quiet and is_over


def replay_command(text: str) -> str:
    """The command that replays what the filter `text` finds."""
    quoted = text.replace("'", "'\\''")
    return f"relay replay --canary 1 --rate 20 --filter '{quoted}'"
