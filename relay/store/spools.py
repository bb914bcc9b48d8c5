"""The spools of all hosts, as their relays report them to Postgres: what `relay status`, console and alerts show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.format import plural
from relay.errors import Refused
from relay.store.database import rows_of

if TYPE_CHECKING:
    from uuid import UUID

    from relay.store.database import Connection
    from relay.store.spool_file import SpoolState

_SILENCE_S = 15


@dataclass(frozen=True, slots=True)
class SpoolReport:
    """A spool as of its last report. Ages are in seconds, by the database's clock.

    `waiting_s` is how long it has not been empty while its relay reached Postgres; None if it is empty.
    """

    host: str
    path: str
    receipts: int
    refused: int
    bytes: int
    max_bytes: int
    error: str | None
    oldest_s: float | None
    waiting_s: float | None
    reported_s: float

    @property
    def share(self) -> float:
        """How full it is, from 0 to 1."""
        return self.bytes / self.max_bytes if self.max_bytes else 0.0


_REPORT = f"""
    INSERT INTO relay.spools AS s
           (id, host, path, receipts, refused, bytes, max_bytes, oldest_at, error, since)
    VALUES (%(id)s, %(host)s, %(path)s, %(receipts)s, %(refused)s, %(bytes)s, %(max_bytes)s, %(oldest_at)s, %(error)s,
            CASE WHEN %(receipts)s > 0 THEN now() END)
    ON CONFLICT (id) DO UPDATE
       SET host = excluded.host, path = excluded.path, receipts = excluded.receipts, refused = excluded.refused,
           bytes = excluded.bytes, max_bytes = excluded.max_bytes, oldest_at = excluded.oldest_at,
           error = excluded.error, reported_at = now(),
           since = CASE WHEN excluded.receipts = 0 THEN NULL
                        WHEN s.reported_at > now() - interval '{_SILENCE_S} s' THEN coalesce(s.since, now())
                        ELSE now() END
"""  # noqa: S608 - constants


async def report(connection: Connection, state: SpoolState, *, host: str, path: str) -> None:
    """Record what a spool holds. A pause in the reports means that Postgres was away: `waiting_s` begins anew."""
    values = {
        "id": state.id,
        "host": host,
        "path": path,
        "receipts": state.receipts,
        "refused": state.refused,
        "bytes": state.bytes,
        "max_bytes": state.max_bytes,
        "oldest_at": state.oldest_at,
        "error": state.error,
    }
    await connection.execute(_REPORT.encode(), values)


_REPORTS = """
    SELECT host, path, receipts, refused, bytes, max_bytes, error,
           extract(epoch FROM now() - oldest_at)::float8 AS oldest_s,
           extract(epoch FROM now() - since)::float8 AS waiting_s,
           extract(epoch FROM now() - reported_at)::float8 AS reported_s
      FROM relay.spools WHERE reported_at > now() - interval '1 day'
     ORDER BY receipts DESC, reported_at DESC LIMIT 64
"""


async def reports(connection: Connection) -> list[SpoolReport]:
    """The spools that were reported in the last day, the fullest first."""
    cursor = await rows_of(connection, SpoolReport).execute(_REPORTS)
    return await cursor.fetchall()


async def refuse_unless_empty(connection: Connection, local: SpoolState | None) -> None:
    """Raises `Refused` if a spool that was reported, or the `local` one, holds receipts: Postgres lacks them so far."""
    for one in await reports(connection):
        if one.receipts:
            _refuse(one.receipts, f"{one.path} on {one.host}")
    if local is not None and local.receipts:
        _refuse(local.receipts, "in RELAY_DATA_DIR")


def _refuse(receipts: int, place: str) -> None:
    raise Refused(
        f"The spool {place} still holds {plural(receipts, 'receipt')}, which would be sent twice. A relay that runs "
        "there drains it; `relay status` shows how far it is"
    )


_NAME = "SELECT id FROM relay.identity"


async def database_name(connection: Connection) -> str:
    """The name that this database keeps wherever it moves."""
    row: tuple[UUID] | None = await (await connection.execute(_NAME)).fetchone()
    assert row is not None
    return str(row[0])
