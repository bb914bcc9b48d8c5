"""Puts the chapters together and into their order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from relay.incident.diagnosis.backlog import backlog
from relay.incident.diagnosis.chapter import Chapter, Diagnosis, Order
from relay.incident.diagnosis.chatwoot_fails import chatwoot_fails
from relay.incident.diagnosis.dead_letters import dead_letters
from relay.incident.diagnosis.facts_refused import facts_refused
from relay.incident.diagnosis.not_received import not_received
from relay.incident.diagnosis.retries import retries
from relay.incident.diagnosis.signatures import signatures
from relay.incident.diagnosis.webhooks_refused import webhooks_refused
from relay.incident.headline import headline

if TYPE_CHECKING:
    from relay.incident.evidence import Evidence


_FINDINGS = {Order.SILENCE, Order.SETUP}
"""What the store alone does not show. All else is in the state that the headline is made of."""


def _graded(chapter: Chapter) -> Chapter:
    """`chapter`, as one that has found something if one of its checks failed."""
    failed = next((check for check in chapter.checks if check.ok is False), None)
    if chapter.problem or failed is None:
        return chapter
    return replace(chapter, order=Order.SETUP, verdict=f"{failed.text[0].upper()}{failed.text[1:]}.", explains=1)


def diagnose(evidence: Evidence) -> Diagnosis:
    """The runbook's four chapters on `evidence`, and those that the runbook lacks where they have found something."""
    chapters = [not_received(evidence), retries(evidence), dead_letters(evidence), signatures(evidence)]
    others = (chatwoot_fails(evidence), webhooks_refused(evidence), facts_refused(evidence), backlog(evidence))
    chapters += [chapter for chapter in others if chapter is not None]
    chapters = [_graded(chapter) for chapter in chapters]
    chapters.sort(key=lambda chapter: (chapter.order, -chapter.explains))
    found = next((chapter.verdict for chapter in chapters if chapter.order in _FINDINGS), None)
    return Diagnosis(evidence.overview.at, headline(replace(evidence.state, finding=found)), tuple(chapters))
