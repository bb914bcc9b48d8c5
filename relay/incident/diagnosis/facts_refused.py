"""The chapter that the runbook lacks: `dashboard_facts` does not take the relay's facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.format import plural, verb
from relay.incident.diagnosis.chapter import Chapter, Check, Order, span
from relay.store.refusal import MOST_COUNTED, explain

if TYPE_CHECKING:
    from relay.incident.evidence import Evidence


def facts_refused(evidence: Evidence) -> Chapter | None:
    """The chapter, if facts wait aside."""
    waiting = evidence.overview.facts_aside
    if waiting is None:
        return None
    reason, remedy = explain(waiting.reason)
    facts = f"{waiting.facts:,} or more facts" if waiting.facts == MOST_COUNTED else plural(waiting.facts, "fact")
    wait = verb(waiting.facts, "wait")
    age = span(waiting.oldest_s)
    return Chapter(
        "facts-refused", "Facts Refused by dashboard_facts", Order.LOSSES,
        f"dashboard_facts does not take the relay's facts: {reason}; {facts} {wait} aside, so the figures are too low.",
        (Check(ok=False, text=f"{facts} {wait} in relay.facts_aside, the oldest for {age}: {reason}"),),
        (
            remedy[0].upper() + remedy[1:],
            "The relay moves the facts over within a minute, with the time they were recorded at",
            "To give them up instead: DELETE FROM relay.facts_aside",
        ),
        explains=waiting.facts,
    )  # fmt: skip
