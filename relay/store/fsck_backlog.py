"""What the tables of the backlog must agree on: order in conversations, the counts, the marks of destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.sql import SQL

from relay.store.destinations import is_gone
from relay.store.fsck_check import Check, differing
from relay.store.instances import DOWN_AFTER_S

if TYPE_CHECKING:
    from psycopg.sql import Composed

_BATCH = SQL("10000")

# Positions are issued and taken in one statement, so that both are of one snapshot.
_POSITIONS = SQL("""
    SELECT c.key, max(d.position) AS newest
      FROM relay.conversations c JOIN relay.deliveries d ON d.conversation_key = c.key
     GROUP BY c.key, c.issued HAVING max(d.position) > c.issued
""")
_ISSUE = SQL("""
    UPDATE relay.conversations c SET issued = greatest(c.issued, w.newest) FROM ({}) AS w WHERE w.key = c.key
""").format(_POSITIONS)

# A head that names nothing claimable: the conversation's next delivery would wait for ever. `relay.promote` checks it
# again once the conversation's row is locked; positions are issued once, so that such a head cannot become right.
_STALE = SQL("""
    relay.conversations c
     WHERE c.head IS NOT NULL
       AND NOT EXISTS (SELECT FROM relay.deliveries d
                        WHERE d.conversation_key = c.key AND d.position = c.head AND NOT d.blocked
                          AND d.state IN ('received', 'forwarding', 'waiting'))
""")
_PROMOTE = SQL("SELECT relay.promote(array_agg(c.key), array_agg(c.head)) FROM {}").format(_STALE)
_HEADLESS = SQL("""
    relay.deliveries d LEFT JOIN relay.conversations c ON c.key = d.conversation_key
     WHERE d.blocked AND d.state IN ('received', 'waiting') AND c.head IS NULL AND d.conversation_key IS NOT NULL
""")
_GIVE_HEAD = SQL("""
    INSERT INTO relay.conversations AS c (key, issued, head)
    SELECT d.conversation_key, max(d.position), 0 FROM {} GROUP BY d.conversation_key ORDER BY d.conversation_key
        ON CONFLICT (key) DO UPDATE SET head = 0, issued = greatest(c.issued, excluded.issued) WHERE c.head IS NULL
""").format(_HEADLESS)

# The kinds are those of the trigger `relay.count_dead`.
_WAITING = SQL("""
    SELECT CASE WHEN waits = 'destination' THEN 'destination' WHEN blocked THEN 'order'
                WHEN state = 'received' THEN 'ready' ELSE coalesce(waits, 'retry') END AS kind, count(*) AS number
      FROM relay.deliveries WHERE state IN ('received', 'waiting') GROUP BY 1
""")
_COUNTED = SQL("""
    SELECT kind, sum(number) AS number FROM relay.backlog_counts GROUP BY 1 HAVING sum(number) <> 0
""")
_CORRECT_COUNTS = SQL("""
    INSERT INTO relay.backlog_counts AS kept (kind, writer, number)
    SELECT kind, 0, coalesce(w.number, 0) - coalesce(c.number, 0)
      FROM ({}) AS w FULL JOIN ({}) AS c USING (kind) WHERE w.number IS DISTINCT FROM c.number ORDER BY kind
        ON CONFLICT ON CONSTRAINT backlog_counts_key DO UPDATE SET number = kept.number + excluded.number
""").format(_WAITING, _COUNTED)

# Relays set and take the marks within seconds: what they have had a minute for is wrong. Without a live relay none is.
_GRACE = SQL("interval '1 minute'")
_MARKED_IN_VAIN = SQL("""
    relay.deliveries d
     WHERE d.state IN ('received', 'waiting') AND d.waits = 'destination'
       AND (coalesce(d.destination, '') = ''
            OR NOT {gone} AND EXISTS (SELECT FROM relay.instances i
                                       WHERE i.agent = d.destination AND i.stopped_at IS NULL
                                         AND i.started_at < now() - {grace}))
""").format(gone=is_gone(SQL("d.destination")), grace=_GRACE)
_UNMARKED = SQL("""
    relay.deliveries d
     WHERE d.state IN ('received', 'waiting') AND d.waits IS DISTINCT FROM 'destination'
       AND d.destination <> '' AND d.since < now() - {grace} AND {gone}
       AND NOT EXISTS (SELECT FROM relay.instances i
                        WHERE i.agent = d.destination AND i.heartbeat_at > now() - {grace} - {down})
       AND EXISTS (SELECT FROM relay.instances i
                    WHERE i.stopped_at IS NULL AND i.heartbeat_at > now() - {down} AND i.started_at < now() - {grace})
""").format(grace=_GRACE, gone=is_gone(SQL("d.destination")), down=SQL(f"interval '{DOWN_AFTER_S} s'"))


def _each(function: str, wrong: SQL | Composed) -> SQL | Composed:
    """Calls a function that marks or restores the deliveries of a destination, for each one that `wrong` finds."""
    statement = """
        SELECT relay.{}(w.destination, {})
          FROM (SELECT DISTINCT coalesce(d.destination, '') AS destination FROM {}) AS w
    """
    return SQL(statement).format(SQL(function), _BATCH, wrong)


BACKLOG_CHECKS = (
    Check(
        "positions in conversations",
        SQL("SELECT count(*) FROM ({}) AS behind").format(_POSITIONS),
        "gives a position that is taken, so that its next webhook may overtake an earlier one",
        (_ISSUE,),
    ),
    Check(
        "heads of conversations",
        SQL("SELECT count(*) FROM {}").format(_STALE),
        "names no delivery that is forwarded or may be: what follows in the conversation waits for ever",
        (_PROMOTE,),
    ),
    Check(
        "blocked deliveries have a head",
        SQL("SELECT count(*) FROM {}").format(_HEADLESS),
        "waits for an earlier delivery of its conversation, which has none",
        (_GIVE_HEAD, _PROMOTE),
    ),
    Check(
        "marks of destinations",
        SQL("SELECT (SELECT count(*) FROM {}) + (SELECT count(*) FROM {})").format(_MARKED_IN_VAIN, _UNMARKED),
        "waits for a destination that has a live relay or no name, or does not say that its own has no relay",
        (_each("restore_destination", _MARKED_IN_VAIN), _each("release_destination", _UNMARKED)),
    ),
    Check(
        "counts of the backlog",
        differing(_WAITING, _COUNTED),
        "differs from a recount of what waits",
        (_CORRECT_COUNTS,),
    ),
)
