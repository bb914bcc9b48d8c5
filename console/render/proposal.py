"""Draws a replay or a discard that waits for its confirmation: where to, how, what speaks against it. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import PLAN
from console.keymap import key_of
from console.render.formatting import coarse_age, cut, signed_name
from console.render.header import environment_badge
from relay.domain.format import clock, milliseconds, plural, span, verb
from relay.settings import AGENT_PATH
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.data.operator_session import Proposal
    from relay.replay.requests import Pace
    from relay.store.proposals import Overlap
    from relay.store.replays import DeadLetter

LISTED = 6
"""Deliveries listed in a question."""
BY_KEY = 50
"""Up to so many listed ones are confirmed by a key; for more, the count is typed."""
_CAUSES, _NAMED_PLANS = 2, 2
_DRY_ROWS = 8
_SHOWN_LETTERS = 8


def plan_question(proposal: Proposal, operator: str, environment: str | None, why_it_waits: str = "") -> list[Content]:
    """Return what would be sent, where to, as whom, how, and what an operator should know before it is.

    `why_it_waits` says what keeps replays from being sent.
    """
    letters = proposal.letters
    edited = " with an edited body" if proposal.edited_body is not None else ""
    lines = [
        Content.assemble(
            (plural(len(letters), "delivery"), "bold"),
            f"{edited} (frozen {clock(proposal.frozen_at)}) → ",
            (clean((proposal.agent or "").removesuffix(AGENT_PATH), limit=80), "bold"),
            " as ",
            (operator, "bold"),
            *(() if environment is None else ("  ", environment_badge(environment))),
        ),
    ]
    if len(letters) > 1:
        lines.append(_pace(proposal.pace, len(letters)))
    warnings = [*map(_overlap, proposal.overlaps[:_NAMED_PLANS]), *_answered(proposal)]
    if why_it_waits:
        warnings.insert(0, Content.styled(f"{why_it_waits[0].upper()}{why_it_waits[1:]}", "$text-warning bold"))
    if warnings:
        lines.append(Content("   ").join(warnings))
    lines += which(letters, listed=len(letters) == 1 or (len(letters) <= BY_KEY and not proposal.filter))
    lines.append(_agent_now(proposal) + Content("  This cannot be undone."))
    return lines


def _pace(pace: Pace, count: int) -> Content:
    """Return rate, canary and stop rule with the keys that change them, and how long it takes at this rate."""
    rate = "no limit" if pace.rate is None else f"{pace.rate:g}/s"
    canary = str(pace.canary_of(count)) if pace.canary_of(count) else "none"
    stop = f"at {pace.stop_after}" if pace.stop_after else "never"
    about = pace.seconds(count)
    faster, slower, canary_key, stop_key = (key_of(PLAN, name) for name in ("faster", "slower", "canary", "stop_rule"))
    takes = "" if about is None else f"   about {span(about)} at this rate"
    return Content.assemble(
        "rate ", (rate, "bold"), (f" ({faster}/{slower})", "$text-muted"),
        "   canary ", (canary, "bold"), (f" ({canary_key})", "$text-muted"),
        "   stop ", (stop, "bold"), (f" ({stop_key})", "$text-muted"),
        takes,
    )  # fmt: skip


def _overlap(overlap: Overlap) -> Content:
    name = signed_name(overlap.requested_by, overlap.login, limit=40)
    return Content.assemble(
        (f"{name} is replaying {overlap.deliveries:,} of these (#{overlap.plan_id}); each is sent once",
         "$text-warning bold"),
    )  # fmt: skip


def _answered(proposal: Proposal) -> list[Content]:
    """Return how many are answered in Chatwoot by now, and whether they are sent; why that is not known."""
    if proposal.answered_fault:
        fault = f"Which are answered in Chatwoot by now is not known: {clean(proposal.answered_fault, limit=120)}"
        return [Content.styled(fault, "$text-warning")]
    if proposal.asks_chatwoot:
        return [Content.styled("asking Chatwoot which are answered by now …", "$text-muted")]
    if not proposal.answered:
        return []
    count = len(proposal.answered)
    key = key_of(PLAN, "include_answered")
    what = f"included; {key} leaves them out" if proposal.includes_answered else f"left out; {key} includes"
    answered = f"{count:,} {verb(count, 'are')} answered in Chatwoot by now ({what})"
    return [Content.styled(answered, "$text-warning")]


def _agent_now(proposal: Proposal) -> Content:
    """Return the agent's last probe, and how the last deliveries ended."""
    health, outcomes = proposal.health, proposal.outcomes
    parts = [Content("Agent SDK now: ")]
    if health is None:
        parts.append(Content.styled("not probed yet", "$text-warning"))
    else:
        probed = (
            f"{health.status or health.error} in {milliseconds(health.latency_ms)} ({coarse_age(health.age_s)} ago)"
        )
        parts.append(Content.styled(probed, "$text-success" if health.ok else "$text-error bold"))
    if outcomes.total:
        ended = f"{outcomes.delivered} of the last {outcomes.total} delivered"
        style = "$text-success" if outcomes.delivered == outcomes.total else "$text-warning bold"
        parts += [Content(", "), Content.styled(ended, style)]
    return Content("").join([*parts, Content(".")])


def which(letters: Sequence[DeadLetter], *, listed: bool) -> list[Content]:
    """Return the first ones, a line each, if `listed`; else their most frequent errors with counts."""
    if listed:
        lines = [Content(f"  {_name(letter, whole=len(letters) == 1)}") for letter in letters[:LISTED]]
        more = len(letters) - LISTED
        return [*lines, Content(f"  … and {more} more")] if more > 0 else lines
    causes = Counter((letter.final_status or "–", letter.last_error or "–") for letter in letters).most_common()
    counted = [f"{number:,} × {cut(error, 80)}" for (_, error), number in causes[:_CAUSES]]
    more = len(causes) - _CAUSES
    return [Content("  " + ";  ".join(counted) + (f";  and {plural(more, 'other cause')}" if more > 0 else ""))]


def _name(letter: DeadLetter, *, whole: bool) -> str:
    """Return its id, event, conversation and status; the id is cut as the list has it, unless `whole`."""
    event, conversation = cut(letter.event or "-", 40), cut(letter.conversation_id or "-", 20)
    status = cut(letter.final_status or "-", 20)
    delivery_id = cut(letter.delivery_id, 40) if whole else clean(letter.delivery_id[:8])
    return f"{delivery_id}  {event}  conv {conversation}  {status}"


def dry_run(proposal: Proposal) -> list[Content]:
    """Return exactly what would be sent: counts by cause and event, and the first deliveries."""
    letters = proposal.letters
    causes = Counter((letter.final_status or "–", letter.last_error or "–") for letter in letters)
    events = Counter(cut(letter.event or "–", 40) for letter in letters)
    shown = causes.most_common(_DRY_ROWS)
    room = max(0, _SHOWN_LETTERS - len(shown))
    more = len(letters) - room
    return [
        Content.assemble((f"{plural(len(letters), 'delivery')} would be sent", "bold"), ", oldest first:"),
        *(Content(f"  {number:>6,}  {cut(status, 20)}  {cut(error, 80)}") for (status, error), number in shown),
        Content("  events: " + ", ".join(f"{event} {number:,}" for event, number in events.most_common(5))),
        *(Content(f"  {_name(letter, whole=False)}") for letter in letters[:room]),
        *([Content(f"  … and {more:,} more")] if room and more > 0 else []),
    ]
