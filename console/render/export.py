"""What is exported of rows and log lines, as JSON or as CSV. Pure.

JSON is ASCII with escapes. In CSV, texts are clean, and one that a spreadsheet would run as a formula is quoted.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from relay.text import clean, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from console.data.log_entry import Entry
    from relay.store.browse import Row

FORMATS = ("JSON", "CSV")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

ROW_FIELDS = (
    "deliveryId", "state", "event", "conversationId", "test", "attempts", "durationMs", "finalStatus", "lastError",
    "receivedAt", "finishedAt", "waits", "nextAttemptAt",
)  # fmt: skip
LINE_FIELDS = ("at", "level", "message", "details", "deliveryId")


def row_values(row: Row) -> tuple[Any, ...]:
    """Return the values of a row, in the order of `ROW_FIELDS`."""
    return (
        row.delivery_id, row.state.value, row.event, row.conversation_id, row.test, row.attempts, row.duration_ms,
        row.final_status, row.last_error, _time(row.received_at), _time(row.finished_at), row.waits,
        _time(row.next_attempt_at),
    )  # fmt: skip


def line_values(entry: Entry) -> tuple[Any, ...]:
    """Return the values of a log line, in the order of `LINE_FIELDS`."""
    return _time(entry.at), entry.level, entry.message, entry.details, entry.delivery_id


def exported(form: str, fields: Sequence[str], values: Sequence[Sequence[Any]]) -> str:
    """Return the text of the file in one of `FORMATS`."""
    if form == "JSON":
        objects: list[Mapping[str, Any]] = [dict(zip(fields, one, strict=True)) for one in values]
        return json.dumps(objects, indent=1) + "\n"
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([[_cell(value) for value in one] for one in values])
    return written.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = clean(str(value), limit=None)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
