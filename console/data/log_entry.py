"""One line of the forwarding log, cleaned once, as the console holds it. Pure."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.text import clean

if TYPE_CHECKING:
    from datetime import datetime

    from relay.store.log import LogLine

_UNSHOWN = {"agentEndpoint", "deliveryId"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. Its text is clean; `details` are its fields as `attempt: 1, duration: 41`."""

    id: int
    at: datetime
    level: str
    message: str
    details: str
    delivery_id: str | None

    @property
    def is_failure(self) -> bool:
        """True for a warning or an error."""
        return self.level in {"warning", "error"}

    def mentions(self, wanted: str) -> bool:
        """True if the line shows `wanted`, which is in lower case. Does not draw it: a search asks 50,000 lines."""
        reference = (self.delivery_id or "")[:8]
        if wanted in f"{reference}  {self.message}  {self.details}".lower():
            return True
        return ":" in wanted and wanted in f"{self.at:%H:%M:%S.%f}"


def entry_of(line_id: int, line: LogLine) -> Entry:
    """The entry of a line that was read, with its text cleaned. Texts that many lines share are held once."""
    fields = ", ".join(f"{key}: {value}" for key, value in line.fields.items() if key not in _UNSHOWN)
    return Entry(
        id=line_id,
        at=line.at,
        level=sys.intern(clean(line.level, limit=20)),
        message=sys.intern(clean(line.message, limit=300)),
        details=sys.intern(clean(fields, limit=300)),
        delivery_id=None if line.delivery_id is None else sys.intern(line.delivery_id),
    )
