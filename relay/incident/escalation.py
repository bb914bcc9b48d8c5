"""An escalation: the runbook's evidence as an entry of `reports/manager/ESCALATION.md`, appended, never overwritten.

RUNBOOK, "Escalation"; DESIGN, 8. It contains no payload: its readers need not see what customers wrote. `incident`
gathers the evidence, `entry` formats it, `append` writes it to the report.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from relay.domain.alerts import Severity
from relay.domain.delivery import State
from relay.domain.format import NO_DATA, average, figure, percent
from relay.errors import RelayError
from relay.incident.diagnosis import Diagnosis, diagnose
from relay.incident.evidence import gather
from relay.incident.handover import lines_of
from relay.incident.markdown import bullets, section, table, text
from relay.incident.timeline import assemble
from relay.store import actions, browse, log, timeline
from relay.store.filters import compile_filter
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.incident.evidence import Evidence
    from relay.incident.timeline import Entry
    from relay.settings import Settings
    from relay.store.actions import OperatorAction
    from relay.store.browse import Row
    from relay.store.database import Connection
    from relay.store.log import LogLine

REPORT = Path("reports/manager/ESCALATION.md")
LEVELS = ("p0", "p1", "p2")
_LETTERS, _LINES, _FIXES = 10, 10, 20
_ENTRIES, _BACK = 60, timedelta(hours=24)
_LINES_READ = 500
_HEAD = "# Escalations\n\nNewest last. Entries are appended and never changed.\n"


@dataclass(frozen=True, slots=True)
class Incident:
    """The content of an escalation. `letters` are the newest dead letters, `lines` the log's newest errors.

    `entries` are the timeline of the last 24 hours, oldest first.
    """

    level: str
    operator: str
    reason: str
    evidence: Evidence
    diagnosis: Diagnosis
    letters: Sequence[Row]
    lines: Sequence[LogLine]
    fixes: Sequence[OperatorAction]
    entries: Sequence[Entry] = ()

    @property
    def notify(self) -> tuple[str, ...]:
        """Whom to notify (RUNBOOK, "Escalation Steps", step 3)."""
        people = ["Engineering Manager"] if self.level in {"p0", "p1"} else []
        if _drafts_are_affected(self.evidence):
            people.append("AI-Customer lane (draft generation is affected)")
        return (*people, "CEO") if self.level == "p0" else tuple(people)

    @property
    def notified(self) -> str:
        """`notify` in one line; `the team only` if it is empty."""
        return ", ".join(self.notify) or "the team only"


def _drafts_are_affected(evidence: Evidence) -> bool:
    agent_fails = any(result.target == "agent" and not result.ok for result in evidence.probes)
    return agent_fails or evidence.overview.last_1h.rate.failed > 0


def proposed_level(evidence: Evidence) -> str:
    """`p0`, `p1` or `p2`, from the alerts that fire; an alert that calls for an escalation makes it `p1` at least.

    An alert whose condition is over counts no more.
    """
    firing = {verdict.rule.severity for verdict in evidence.overview.firing if verdict.holds}
    if Severity.P0 in firing:
        return "p0"
    return "p1" if firing & {Severity.P1, Severity.CRITICAL, Severity.ESCALATE} else "p2"


async def incident(
    connection: Connection, settings: Settings, *, operator: str, reason: str = "", level: str | None = None
) -> Incident:
    """Gather the evidence that the runbook asks for.

    Raises:
        StoreUnavailable: Postgres is away.
    """
    evidence = await gather(connection, settings)
    history = await timeline.read(connection, evidence.overview.at - _BACK)
    lines = [line for _, line in await log.before(connection, None, _LINES_READ)]
    return Incident(
        level=level or proposed_level(evidence),
        operator=operator,
        reason=reason,
        evidence=evidence,
        diagnosis=diagnose(evidence),
        letters=await browse.window(connection, compile_filter(""), states=(State.DEAD,), limit=_LETTERS),
        lines=[line for line in lines if line.level in {"warning", "error"}][-_LINES:],
        fixes=await actions.newest(connection, limit=_FIXES),
        entries=assemble(history),
    )


def entry(found: Incident) -> str:
    """The incident as Markdown, ending in a line end."""
    state = found.evidence.overview
    demo = "DEMO, invented data: " if state.demo else ""
    parts = [
        f"## {state.at:%Y-%m-%d %H:%M:%S}Z {found.level.upper()}: {demo}{text(found.diagnosis.headline)}",
        bullets(
            [
                f"Tags: `support`, `webhook`, `{found.level}`",
                f"Notify: {found.notified}",
                f"Filed by: {text(found.operator)}",
                *([f"Reason: {text(found.reason)}"] if found.reason else []),
                *([] if found.evidence.runbook is None else [f"Follow: {text(found.evidence.runbook)}"]),
            ]
        ),
        section("Alerts", _alerts(found)),
        section("Timeline", lines_of(found.entries, "Nothing is on record.", most=_ENTRIES)),
        section("Recent dead letters", _letters(found)),
        section("Error patterns", _patterns(found)),
        section("Health", _health(found)),
        section("Error log", [f"    {_log_line(line)}" for line in found.lines] or ["No warning and no error."]),
        section("Attempted fixes", _fixes(found)),
        section(
            "Diagnosis", bullets(f"{chapter.title}: {text(chapter.verdict)}" for chapter in found.diagnosis.chapters)
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _alerts(found: Incident) -> list[str]:
    rows = [
        (v.rule.severity, v.rule.name, v.rule.condition, figure(v.value, v.rule.unit),
         (f"{v.since:%Y-%m-%d %H:%M:%S}Z" if v.since else "just now") + ("" if v.holds else "; is over, ending"))
        for v in found.evidence.overview.firing
    ]  # fmt: skip
    return table(("severity", "rule", "condition", "now", "since"), rows) if rows else ["No active alerts."]


def _letters(found: Incident) -> list[str]:
    state = found.evidence.overview
    counts = (
        f"{state.open_dead_letters} open; {state.last_1h.dead_letters} in 1 h, {state.last_24h.dead_letters} in 24 h."
    )
    if not found.letters:
        return [counts]
    rows = [
        (f"{row.finished_at:%m-%d %H:%M:%S}Z" if row.finished_at else "–", row.delivery_id, row.event or "–",
         row.conversation_id or "–", row.attempts, row.final_status, row.last_error)
        for row in found.letters
    ]  # fmt: skip
    head = ("dead since", "delivery", "event", "conversation", "attempts", "status", "error")
    return [counts, "", *table(head, rows)]


def _patterns(found: Incident) -> list[str]:
    state = found.evidence.overview
    rates = [
        f"{percent(figures.rate.percent, decimals=2, missing=NO_DATA)} in {name}"
        for name, figures in (("15 min", state.last_15min), ("1 h", state.last_1h), ("24 h", state.last_24h))
    ]
    failures = ", ".join(f"{status} × {count}" for status, count in state.last_1h.failures.items()) or "none"
    lines = [
        f"- Success rate: {', '.join(rates)}",
        f"- Attempts on average in 1 h: {average(state.last_1h.average_attempts, missing=NO_DATA)}",
        f"- Failures by final status in 1 h: {failures}",
    ]
    rows = [
        (group.count, group.final_status, group.last_error, f"{group.first:%m-%d %H:%M:%S}Z",
         f"{group.last:%m-%d %H:%M:%S}Z")
        for group in found.evidence.groups[:10]
    ]  # fmt: skip
    return [*lines, "", *table(("open", "status", "error", "oldest died", "newest died"), rows)] if rows else lines


def _health(found: Incident) -> list[str]:
    probes = [f"- {result.line.strip()}, {result.latency_ms:.0f} ms" for result in found.evidence.probes]
    alive = found.evidence.overview.alive
    return [*probes, f"- Relay workers alive: {len(alive)}" + (f", v{alive[0].version}" if alive else "")]


def _log_line(line: LogLine) -> str:
    fields = ", ".join(f"{key}: {value}" for key, value in line.fields.items())
    return clean(f"{line.at:%H:%M:%S}Z [{line.scope}] {line.message} {{ {fields} }}", limit=300)


def _fixes(found: Incident) -> list[str]:
    rows = [
        (f"{fix.at:%m-%d %H:%M:%S}Z", fix.who, fix.action,
         " ".join(filter(None, [f"plan {fix.plan_id}" if fix.plan_id else "", fix.reason, _details(fix)])))
        for fix in found.fixes
    ]  # fmt: skip
    return table(("when", "who", "what", "details"), rows) if rows else ["None on record."]


def _details(fix: OperatorAction) -> str:
    return ", ".join(f"{key}: {value}" for key, value in {**fix.details, **(fix.result or {})}.items() if value)


def append(filed: str, report: Path = REPORT) -> Path:
    """Append an entry to the report in one piece, also beside other writers; returns the report's path.

    Raises:
        RelayError: it cannot be written.
    """
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        with report.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(("\n" if os.fstat(file.fileno()).st_size else _HEAD + "\n") + filed)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RelayError(f"{report}: the escalation cannot be written ({error.strerror})") from error
    return report


async def file(connection: Connection, found: Incident, text: str, report: Path = REPORT) -> Path:
    """Record the escalation in the audit and append `text`, its entry, to the report; either both or neither.

    Raises:
        RelayError: the report cannot be written.
        Refused: the audit does not take it.
        psycopg.Error: this login may not write the audit, or Postgres is away.
    """
    async with connection.transaction():
        details = {"level": found.level, "report": str(report)}
        await actions.record(connection, found.operator, "escalate", found.reason, details)
        return append(text, report)
