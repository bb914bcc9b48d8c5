"""How deliveries are spread over events and inboxes. Reads the newest ones only, so that its cost has a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.sql import SQL

from relay.store.database import fetched
from relay.store.round_trip import together

if TYPE_CHECKING:
    from datetime import timedelta

    from relay.store.database import Connection

MOST_READ = 2_000
"""As many of the newest deliveries are read: the inbox is in the body, which has to be parsed."""
_READ_BYTES = 64 * 1024
_MOST_SHARES = 100


@dataclass(frozen=True, slots=True)
class Share:
    """The deliveries of one event or one inbox. `name` is the event, or the inbox's id as text; empty if unknown.

    `title` is the inbox's name where a body names it. `waiting` counts those that are not finished; `average_ms` is how
    long the forwarding of the delivered ones took.
    """

    is_inbox: bool
    name: str
    title: str | None
    total: int
    delivered: int
    dead: int
    waiting: int
    discarded: int
    ignored: int
    average_ms: float | None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The shares by event and by inbox, largest first. `read` deliveries are in them; `is_whole`: they are
    all of the window.
    """

    events: list[Share]
    inboxes: list[Share]
    read: int
    is_whole: bool


_INBOX = """coalesce(p.payload #>> ARRAY['inbox', 'id'], p.payload #>> ARRAY['conversation', 'inbox_id'],
                p.payload ->> 'inbox_id', '')"""
# The newest by id, then those of the window among them: insertion order is time order.
_SHARES = SQL(f"""
    WITH newest AS (
        SELECT d.id, d.event, d.state, d.duration_ms, d.received_at,
               CASE WHEN octet_length(d.body) <= %(bytes)s THEN relay.payload(d.body) END AS payload
          FROM (SELECT * FROM relay.deliveries WHERE NOT test ORDER BY id DESC LIMIT %(most)s) AS d
         WHERE d.received_at > now() - %(window)s
    ), named AS (
        SELECT false AS is_inbox, coalesce(p.event, '') AS name, NULL::text AS title, p.* FROM newest AS p
         UNION ALL
        SELECT true, left({_INBOX}, 40), p.payload #>> ARRAY['inbox', 'name'], p.* FROM newest AS p
    )
    SELECT n.is_inbox, n.name, left(max(n.title), 80) AS title, count(*) AS total,
           count(*) FILTER (WHERE n.state = 'delivered') AS delivered,
           count(*) FILTER (WHERE n.state = 'dead') AS dead,
           count(*) FILTER (WHERE n.state IN ('received', 'forwarding', 'waiting')) AS waiting,
           count(*) FILTER (WHERE n.state = 'discarded') AS discarded,
           count(*) FILTER (WHERE n.state = 'ignored') AS ignored,
           avg(n.duration_ms) FILTER (WHERE n.state = 'delivered')::float8 AS average_ms
      FROM named AS n GROUP BY n.is_inbox, n.name ORDER BY count(*) DESC, n.name LIMIT %(shares)s
""")  # noqa: S608 - constants
_READ = """
    SELECT coalesce(min(received_at) <= now() - %(window)s, true) OR count(*) < %(most)s AS is_whole
      FROM (SELECT received_at FROM relay.deliveries WHERE NOT test ORDER BY id DESC LIMIT %(most)s) AS newest
"""


async def read(connection: Connection, window: timedelta) -> Breakdown:
    """Return the shares of the deliveries that came within `window`, test webhooks excluded."""
    given = {"bytes": _READ_BYTES, "most": MOST_READ, "window": window, "shares": _MOST_SHARES}
    shares, read = await together(
        connection, fetched(connection, Share, _SHARES, given), fetched(connection, _is_whole, _READ, given)
    )
    events = [share for share in shares if not share.is_inbox]
    return Breakdown(
        events=events,
        inboxes=[share for share in shares if share.is_inbox],
        read=sum(share.total for share in events),
        is_whole=read[0],
    )


def _is_whole(*, is_whole: bool) -> bool:
    return is_whole
