"""What is over, what waits for an operator, and that all is well: each a function of the state. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

from relay.domain.format import day_clock, measured, milliseconds, plural, span, verb
from relay.domain.rejections import rejection
from relay.domain.retry import retry_helps
from relay.incident.cause import WARNING, WELL, Headline, Kind
from relay.incident.failing import MANY_REFUSED, failing_group, is_over

if TYPE_CHECKING:
    from relay.domain.alerts import Verdict
    from relay.incident.state import State

_RECENT_S = 120
"""Within this time after the last failure the headline says when that was."""


def recovered(state: State) -> Headline | None:
    """The Agent SDK answers again, a moment ago."""
    group = failing_group(state)
    streak = None if group is None else state.streak_of(group.final_status)
    if group is None or streak is None or streak.first is None or not retry_helps(group.final_status):
        return None
    if state.age_s(streak.last) > _RECENT_S or not is_over(state, streak):
        return None
    failed = f"{group.last_error} from {day_clock(streak.first, state.at)} to {day_clock(streak.last, state.at)}"
    wait = f"{plural(state.dead_letters, 'dead letter')} {verb(state.dead_letters, 'wait')}."
    if state.gets_through_since(streak.last):
        since = "" if state.answers_since is None else f" since {day_clock(state.answers_since, state.at)}"
        again = f"Agent SDK answers again{since}"
    else:
        again = "The Agent SDK's /health answers again"
    return Headline(Kind.RECOVERED, WARNING, f"{again} ({failed}). {wait}", group, (f"{again}. {wait}", f"{again}."))


def gap(state: State) -> Headline | None:
    """No relay ran for a while, within the last hour."""
    if state.unattended is None:
        return None
    ended, began = state.unattended
    lasted = span((began - ended).total_seconds())
    said = f"No relay ran from {day_clock(ended, state.at)} to {day_clock(began, state.at)} ({lasted})"
    remedy = "what Chatwoot sent then is missing here"
    whole = f"{said}: {remedy}. `relay backfill` fetches it."
    return Headline(
        Kind.GAP, WARNING, f"{whole}{_what_waits(state)}",
        shorter=(*_unless_same(whole, state), f"{said}. Run `relay backfill`.", f"{said}."),
    )  # fmt: skip


def _what_waits(state: State) -> str:
    """How many dead letters wait besides, with a space before it; empty for none and for tests alone."""
    wait = "waits" if state.dead_letters == 1 else "wait"
    return f" {plural(state.dead_letters, 'dead letter')} {wait}." if state.real_groups else ""


def _unless_same(whole: str, state: State) -> tuple[str, ...]:
    return (whole,) if state.real_groups else ()


def refused(state: State) -> Headline | None:
    """Webhooks were refused in the last hour, and that is over: many, or some that are lost."""
    found = state.refused_webhooks
    total = sum(one.count for one in found)
    if total < MANY_REFUSED and not any(rejection(one.reason).is_lost for one in found):
        return None
    return _refused(state, Kind.EARLIER_REFUSED)


def few_refused(state: State) -> Headline | None:
    """One or a few webhooks were refused in the last hour."""
    return _refused(state, Kind.FEW_REFUSED)


def _refused(state: State, kind: Kind) -> Headline | None:
    found = state.refused_webhooks
    if not found:
        return None
    worst = max(found, key=lambda one: (rejection(one.reason).is_lost, one.count))
    total = sum(one.count for one in found)
    others = f", {total - worst.count:,} for other reasons" if total > worst.count else ""
    named = f"({rejection(worst.reason).named})"
    last = max(one.last for one in found)
    if kind is Kind.FEW_REFUSED:
        said = f"{plural(worst.count, 'webhook')} refused {named}{others}, the last {span(state.age_s(last))} ago."
        return Headline(kind, WARNING, said)
    between = f"from {day_clock(worst.first, state.at)} to {day_clock(worst.last, state.at)}"
    said = f"Earlier: {plural(worst.count, 'webhook')} refused {named} {between}{others}"
    whole = f"{said}. They are lost; `relay backfill` fetches them."
    return Headline(kind, WARNING, f"{whole}{_what_waits(state)}", shorter=(*_unless_same(whole, state), f"{said}."))


def finding(state: State) -> Headline | None:
    """What only a diagnosis sees: something is set up wrongly."""
    return None if state.finding is None else Headline(Kind.FINDING, WARNING, state.finding)


def dead_letters(state: State) -> Headline | None:
    """Nothing fails now, and dead letters are open: how many a replay can help."""
    groups = state.real_groups
    if not groups:
        return None
    quiet = _quiet(state)
    ready = [group for group in groups if retry_helps(group.final_status)]
    final = [group for group in groups if not retry_helps(group.final_status)]
    if ready:
        largest = max(ready, key=lambda group: group.count)
        what = f"{plural(sum(group.count for group in ready), 'dead letter')} can be replayed"
        named = f", {largest.count:,} of them: {largest.last_error}" if len(ready) > 1 else f": {largest.last_error}"
        rejected = f"; {sum(group.count for group in final):,} rejected, retrying will not help" if final else ""
    else:
        largest = max(final, key=lambda group: group.count)
        number = plural(sum(group.count for group in final), "dead letter")
        what = f"{number} rejected by the Agent SDK; retrying will not help"
        named = f": {largest.last_error}" if len(final) == 1 else f", {largest.count:,} of them: {largest.last_error}"
        rejected = ""
    return Headline(
        Kind.DEAD_LETTERS, WARNING, f"{quiet.sentence}{what}{named}{rejected}.", largest,
        (f"{quiet.short}{what}{rejected}.", f"{quiet.short}{what}.", f"{what}."),
    )  # fmt: skip


def last_failure(state: State) -> Headline | None:
    """A webhook failed a moment ago, and no dead letter waits."""
    quiet = _quiet(state)
    if quiet.seconds is None or quiet.seconds >= _RECENT_S:
        return None
    return Headline(Kind.EARLIER_FAILURE, WARNING, f"{quiet.sentence}No dead letter waits.")


@dataclass(frozen=True, slots=True)
class _Quiet:
    """For how long nothing has failed, in seconds and as a sentence with a space behind it, empty if that is unknown.

    `short` leaves out whether webhooks came meanwhile.
    """

    seconds: float | None = None
    sentence: str = ""
    short: str = ""


def _quiet(state: State) -> _Quiet:
    """For how long nothing has failed, replays included."""
    failed = [streak.last for streak in state.streaks] + [group.last for group in state.real_groups]
    if state.last_failure_at is not None:
        failed.append(state.last_failure_at)
    if not failed:
        return _Quiet()
    quiet_s = state.age_s(max(failed))
    if quiet_s < _RECENT_S or state.refused_webhooks or state.firing:
        latest = max(state.streaks, key=lambda streak: streak.last, default=None)
        status = "" if latest is None or quiet_s >= _RECENT_S else f" ({latest.status})"
        said = f"The last failure was {span(quiet_s)} ago{status}. "
        return _Quiet(quiet_s, said, said)
    silent = state.accepted_s is not None and state.accepted_s > quiet_s
    short = f"Nothing has failed for {span(quiet_s)}"
    return _Quiet(quiet_s, f"{short}{', and no webhook has come' if silent else ''}. ", f"{short}. ")


def alert(state: State) -> Headline | None:
    """An alert fires whose cause is over: what is so by now, not the rule's text."""
    if not state.firing:
        return None
    verdict = state.firing[0]
    return Headline(Kind.ALERT, WARNING, f"{_now(verdict, state)}.")


def _now(verdict: Verdict, state: State) -> str:
    rule = verdict.rule
    value = measured(verdict.value, rule.unit)
    sentences = {
        "success-rate": f"{value} of recent webhooks were delivered",
        "escalate-success": f"{value} of recent webhooks were delivered",
        "dlq": f"{_webhooks_were(verdict)} dead-lettered in the last hour; none waits",
        "escalate-dlq": f"{_webhooks_were(verdict)} dead-lettered in the last hour; none waits",
        "attempts": f"Deliveries took {value} attempts on average in the last hour",
        "agent-slow": f"Deliveries took {value} on average in the last 15 min{_latest(state)}",
        "escalate-agent-down": "The Agent SDK's health failed until a moment ago",
        "escalate-replies": f"A customer's message has waited {value} for its delivery",
        "relay-down": "A relay runs again",
        "refused-p0": f"{value} of recent webhooks were refused; none is refused now",
        "refused-warning": f"{_webhooks_were(verdict)} refused in the last hour; none is refused now",
        "lost": f"{_webhooks_were(verdict)} refused in the last hour and {verb(_count(verdict), 'are')} lost",
    }
    return next((said for name, said in sentences.items() if rule.name.startswith(name)), f"{rule.condition}: {value}")


def _count(verdict: Verdict) -> int:
    return round(verdict.value or 0)


def _webhooks_were(verdict: Verdict) -> str:
    count = _count(verdict)
    return f"{plural(count, 'webhook')} {verb(count, 'were')}"


def _latest(state: State) -> str:
    return f"; now {milliseconds(median_low(state.latest_ms))}" if state.latest_ms else ""


def well(state: State) -> Headline:
    """All is well."""
    if state.dead_letters:
        tests = f"{plural(state.dead_letters, 'dead letter')} of test webhooks"
        return Headline(Kind.WELL, WELL, f"Nothing is failing. There is nothing but {tests}.")
    return Headline(Kind.WELL, WELL, "Nothing is failing. No dead letter waits.")
