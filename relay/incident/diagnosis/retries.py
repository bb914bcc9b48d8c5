"""RUNBOOK, "High Retry Rate": what the Agent SDK does wrong, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.format import plural
from relay.domain.retry import Failure, cause_of, retry_helps
from relay.incident.diagnosis.chapter import Chapter, Check, Order, reached
from relay.incident.failing import is_over

if TYPE_CHECKING:
    from datetime import datetime

    from relay.incident.evidence import Evidence

MANY_ATTEMPTS = 1.5
SLOW_MS = 2_000
_NETWORK = frozenset(failure.value for failure in Failure)


def retries(evidence: Evidence) -> Chapter:
    """The chapter."""
    state = evidence.overview
    figures = state.last_1h
    retried = {status: count for status, count in figures.failures.items() if retry_helps(status)}
    failed = sum(retried.values())
    average = figures.average_attempts
    slow_ms = state.last_15min.average_ms
    agent = next((result for result in evidence.probes if result.target == "agent"), None)
    checks = [
        Check(
            None if average is None else average <= MANY_ATTEMPTS,
            "no delivery in 1 h" if average is None else f"{average:.2f} attempts on average over 1 h",
        ),
        Check(
            not failed,
            f"{plural(failed, 'delivery')} failed after retries in the last hour ({_by_status(retried)})"
            if failed
            else "no delivery failed after retries in the last hour",
        ),
        Check(
            None if slow_ms is None else slow_ms <= SLOW_MS,
            "no success in 15 min" if slow_ms is None else f"forwarding takes {slow_ms:.0f} ms on average over 15 min",
        ),
        Check(evidence.agent.ok, reached(evidence.agent, "the Agent SDK")),
    ]
    if agent is not None:
        checks.append(Check(agent.ok, f"{agent.label} now: {agent.status or agent.error} in {agent.latency_ms:.0f} ms"))
    is_down = agent is not None and not agent.ok
    slow = slow_ms is not None and slow_ms > SLOW_MS
    order, explains, verdict = Order.WELL, 0, "The Agent SDK takes what it is sent."
    if failed:
        worst = max(retried, key=lambda status: retried[status])
        total = sum(figures.failures.values())
        ended = _ended(retried, evidence)
        began = _began(worst, evidence) + (f" to {ended:%H:%M:%S}Z" if ended else "")
        now = (
            f"; its /health fails too ({agent.status or agent.error})"
            if agent is not None and is_down
            else ("; its /health answers well now" if agent is not None else "")
        )
        order, explains = Order.LOSSES if ended is None or is_down else Order.WAITING, failed
        does = cause_of(worst) if ended is None else f"The Agent SDK failed earlier ({worst})"
        verdict = f"{does}: {retried[worst]:,} of {plural(total, 'failure')} in the last hour{began}{now}."
    elif is_down:
        assert agent is not None
        order, explains, verdict = (
            Order.SETUP,
            1,
            f"The Agent SDK's health check fails ({agent.status or agent.error}).",
        )
    elif slow:
        order, explains = Order.SETUP, max(1, state.last_15min.rate.delivered)
        verdict = f"The Agent SDK is slow: {slow_ms:.0f} ms on average over 15 min, and nothing fails yet."
    elif average is not None and average > MANY_ATTEMPTS:
        order, explains = Order.SETUP, 1
        verdict = f"Deliveries take {average:.2f} attempts on average, and get through in the end."
    if slow and failed:
        verdict = verdict.rstrip(".") + f"; what gets through takes {slow_ms:.0f} ms."
    return Chapter(
        "high-retry-rate", "High Retry Rate", order, verdict, tuple(checks),
        _resolution(evidence, retried, slow=slow or is_down), explains,
    )  # fmt: skip


def _began(status: str, evidence: Evidence) -> str:
    """Since when deliveries have failed with `status`, by the recorded facts: open dead letters change with replays."""
    streak = next((one for one in evidence.streaks if one.status == status and not one.replayed), None)
    if streak is None:
        return ""
    if streak.first is None:
        return ", for more than a day"
    day = "" if streak.first.date() == evidence.overview.at.date() else f"{streak.first:%b %d} "
    return f", since {day}{streak.first:%H:%M:%S}Z"


def _ended(retried: dict[str, int], evidence: Evidence) -> datetime | None:
    """When the last delivery failed after retries, if that is over; None while it goes on."""
    state = evidence.state
    streaks = [one for one in evidence.streaks if one.status in retried and not one.replayed]
    if not streaks or not all(is_over(state, one) for one in streaks):
        return None
    return max(one.last for one in streaks)


def _by_status(counts: dict[str, int]) -> str:
    return ", ".join(f"{status} × {count}" for status, count in sorted(counts.items(), key=lambda item: -item[1]))


def _resolution(evidence: Evidence, retried: dict[str, int], *, slow: bool) -> tuple[str, ...]:
    host = evidence.agent.target
    lines: list[str] = []
    if slow or any(status.isdigit() and status != "429" for status in retried) or Failure.TIMEOUT in retried:
        lines += [
            "The Agent SDK may be overloaded or down",
            f"Check its health: curl {evidence.agent_url}/health",
            f"Review its logs{'' if evidence.agent_logs is None else f': {evidence.agent_logs}'}",
        ]
    if "429" in retried:
        lines += ["Rate limiting: reduce the webhooks' frequency", "Or increase the Agent SDK's capacity"]
    if any(status in _NETWORK - {Failure.TIMEOUT} for status in retried):
        lines += [f"Connectivity: test with ping {host.rpartition(':')[0]}", "Check DNS resolution"]
    return tuple(lines)
