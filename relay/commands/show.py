"""`relay show`: one delivery close up."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Any

import click

from relay.commands.common import as_json, connected, database, print_json, run, say, source_of
from relay.domain.format import exact_clock, plural
from relay.errors import RelayError
from relay.settings import load_settings
from relay.store import delivery_detail
from relay.store.actions import signed
from relay.store.lookup import rows_beginning
from relay.text import clean, rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    from relay.store.databases import Place
    from relay.store.delivery_detail import Detail


@click.command("show")
@click.argument("delivery_id", metavar="ID")
@as_json
def command(delivery_id: str, *, as_json: bool) -> None:
    """Show one delivery: its timeline, attempts, the agent's answers, headers and payload.

    ID is the delivery id, or its beginning. Secrets in headers are masked. Exit 1 if there is no such delivery.
    """

    async def work(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            rows = await rows_beginning(connection, delivery_id)
            found = await delivery_detail.detail(connection, rows[0]) if len(rows) == 1 else None
        if len(rows) > 1:
            raise RelayError(f"Several deliveries begin with {clean(delivery_id)}: give more of the id")
        if found is None:
            raise RelayError(f"There is no delivery {clean(delivery_id)} in {place.name}")
        if as_json:
            print_json({"database": source.document} | _document(found))
        else:
            say([f"database: {source.line}", *_lines(found)])
        return 0

    with database(load_settings(), or_demo=True) as place:
        run(work(place))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _document(found: Detail) -> dict[str, Any]:
    row = found.row
    return {
        "delivery_id": row.delivery_id,
        "state": row.state,
        "event": row.event,
        "conversation_id": row.conversation_id,
        "test": row.test,
        "runs": row.run,
        "received_at": _text(row.received_at),
        "finished_at": _text(row.finished_at),
        "final_status": row.final_status,
        "last_error": row.last_error,
        "agent_status": found.agent_status,
        "destination": found.destination,
        "waits": row.waits,
        "duration_ms": row.duration_ms,
        "attempts": [
            {
                "run": one.run,
                "number": one.number,
                "started_at": _text(one.started_at),
                "wait_ms": one.wait_ms,
                "duration_ms": one.duration_ms,
                "status": one.status,
                "error": one.error,
                "answer": one.answer,
            }
            for one in found.attempts
        ],
        "replays": [
            {
                "plan": one.plan_id,
                "requested_by": one.requested_by,
                "login": one.login,
                "reason": one.reason,
                "state": one.state,
            }
            for one in found.replays
        ],
        "discards": [
            {"at": _text(one.at), "operator": one.operator, "login": one.login, "reason": one.reason}
            for one in found.discards
        ],
        "headers": [{"name": name, "value": value} for name, value in found.headers],
        "payload": _body(found),
        "payload_bytes": found.body_length,
    }


def _body(found: Detail) -> str:
    return clean(found.body.decode("utf-8", "replace"), limit=None, newlines=True)


def _lines(found: Detail) -> list[str]:
    row = found.row
    facts = [
        ("event", row.event),
        ("conversation", row.conversation_id),
        ("error", row.last_error),
        ("destination", found.destination),
        ("waits for", row.waits),
    ]
    lines = [f"delivery {row.delivery_id}: {row.state}" + (" (test)" if row.test else "")]
    lines += [f"  {name}: {value}" for name, value in facts if value]
    lines += ["", "timeline"]
    lines += [f"  {exact_clock(at)}  {what}" for at, what in sorted(_timeline(found), key=lambda pair: pair[0])]
    for one in found.attempts:
        if one.answer:
            lines += ["", f"answer to attempt {one.number} of run {one.run}", indent(one.answer, "  ")]
    lines += ["", "headers", *(f"  {name}: {value}" for name, value in found.headers)]
    cut = f", the first {len(found.body):,} of them" if len(found.body) < found.body_length else ""
    return [*lines, "", f"payload ({plural(found.body_length, 'byte')}{cut})", _body(found)]


def _timeline(found: Detail) -> list[tuple[datetime, str]]:
    row = found.row
    events = [(row.received_at, "received")]
    for one in found.attempts:
        said = f"attempt {one.number} of run {one.run}: {one.status} after {one.duration_ms} ms"
        events.append((one.started_at, said + (f", {one.error}" if one.error else "")))
    events += [
        (one.settled_at, f"replay {one.plan_id} by {signed(one.requested_by, one.login)}: {one.state}")
        for one in found.replays
        if one.settled_at is not None
    ]
    events += [(one.at, f"discarded by {signed(one.operator, one.login)}: {one.reason}") for one in found.discards]
    if row.finished_at is not None:
        events.append((row.finished_at, f"{row.state}"))
    return events
