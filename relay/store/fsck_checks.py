"""What the tables must agree on: for each check a statement that counts what is wrong, and those that repair it.

No repair locks a table that relays write to. Counts are sums over rows of several writers: a repair adds the difference
between a recount and the kept sum, both of one snapshot, as a row of writer 0. Whatever commits meanwhile adds its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.sql import SQL

from relay.store.fsck_backlog import BACKLOG_CHECKS
from relay.store.fsck_check import Check, differing

if TYPE_CHECKING:
    from psycopg.sql import Composed


# The last day, by whole hours: what the figures are read from (see relay.follow_facts).
_SINCE = SQL("date_trunc('hour', now() - interval '25 hours', 'UTC')")
_KEY = SQL("fact_type, test, success, attempts, final_status, slot")
_TALLIED = SQL("""
    WITH tallied AS (
        SELECT date_trunc('minute', f.recorded_at) AS minute, rtrim(format('%s', f.fact_type)) AS fact_type, t.test,
               t.success, t.attempts, t.final_status, t.slot, sum(t.facts) AS facts, sum(t.duration_ms) AS duration_ms
          FROM dashboard_facts f
         CROSS JOIN LATERAL (SELECT relay.json_or_null(format('%s', f.value)) AS value OFFSET 0) AS parsed
         CROSS JOIN LATERAL relay.tally(rtrim(format('%s', f.fact_type)), parsed.value,
                                        relay.json_or_null(format('%s', f.metadata))) t
         WHERE rtrim(format('%s', f.fact_type)) IN ('support.webhook.retry', 'support.webhook.dead_letter',
                                                    'support.webhook.replay', 'support.webhook.rejected')
           AND f.recorded_at BETWEEN {since} AND '9999-12-31' AND (parsed.value IS NOT NULL OR f.value IS NULL)
         GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), by_hour AS (
        SELECT date_trunc('hour', minute, 'UTC') AS hour, {key}, sum(facts) AS facts, sum(duration_ms) AS duration_ms
          FROM tallied GROUP BY 1, 2, 3, 4, 5, 6, 7
    )
""").format(since=_SINCE, key=_KEY)


def _kept(table: str, time: str) -> SQL | Composed:
    return SQL("""
        SELECT {time}, {key}, sum(facts) AS facts, sum(duration_ms) AS duration_ms
          FROM relay.{table} WHERE {time} >= {since}
         GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(facts) <> 0 OR sum(duration_ms) <> 0
    """).format(time=SQL(time), table=SQL(table), key=_KEY, since=_SINCE)


def _roll_up(name: str, table: str, time: str, true: str) -> Check:
    """The check of one table of roll-ups; `true` is the table expression that it must equal."""
    recount, kept = SQL("SELECT * FROM {}").format(SQL(true)), _kept(table, time)
    statement = """
        {tallied} INSERT INTO relay.{table} AS kept
        SELECT {time}, {key}, 0, coalesce(t.facts, 0) - coalesce(k.facts, 0),
               coalesce(t.duration_ms, 0) - coalesce(k.duration_ms, 0)
          FROM ({recount}) AS t FULL JOIN ({sums}) AS k USING ({time}, {key})
         WHERE (t.facts, t.duration_ms) IS DISTINCT FROM (k.facts, k.duration_ms)
         ORDER BY {time}, {key}
            ON CONFLICT ON CONSTRAINT {constraint}
               DO UPDATE SET facts = kept.facts + excluded.facts, duration_ms = kept.duration_ms + excluded.duration_ms
    """
    repair = SQL(statement).format(
        tallied=_TALLIED, table=SQL(table), time=SQL(time), key=_KEY, recount=recount, sums=kept,
        constraint=SQL(f"{table}_key"),
    )  # fmt: skip
    return Check(
        name,
        SQL("{} {}").format(_TALLIED, differing(recount, kept)),
        "differs from a recount of the facts of 25 hours",
        (repair,),
    )


_DEAD = SQL("""
    SELECT coalesce(final_status, '') AS final_status, coalesce(last_error, '') AS last_error,
           coalesce(event, '') AS event, count(*) AS letters
      FROM relay.deliveries WHERE state = 'dead' GROUP BY 1, 2, 3
""")
_COUNTED_DEAD = SQL("""
    SELECT final_status, last_error, event, sum(letters) AS letters FROM relay.dead_causes
     GROUP BY 1, 2, 3 HAVING sum(letters) <> 0
""")
_CORRECT_DEAD = SQL("""
    INSERT INTO relay.dead_causes AS kept (final_status, last_error, event, letters, writer)
    SELECT final_status, last_error, event, coalesce(d.letters, 0) - coalesce(c.letters, 0), 0
      FROM ({}) AS d FULL JOIN ({}) AS c USING (final_status, last_error, event)
     WHERE d.letters IS DISTINCT FROM c.letters ORDER BY 1, 2, 3
        ON CONFLICT ON CONSTRAINT dead_causes_key DO UPDATE SET letters = kept.letters + excluded.letters
""").format(_DEAD, _COUNTED_DEAD)
_ITEMS = SQL("""
    SELECT p.id, count(*) FILTER (WHERE i.state = 'delivered') AS delivered,
           count(*) FILTER (WHERE i.state = 'dead') AS dead, count(*) FILTER (WHERE i.state = 'skipped') AS skipped
      FROM relay.replay_plans p JOIN relay.replay_items i ON i.plan_id = p.id
     WHERE p.state IN ('stopped', 'done') GROUP BY p.id
""")
_ORPHANS = SQL("FROM relay.attempts a WHERE NOT EXISTS (SELECT FROM relay.deliveries d WHERE d.id = a.delivery)")
_ENDLESS = SQL("state IN ('delivered', 'dead') AND finished_at IS NULL")

CHECKS = (
    Check(
        "figures follow dashboard_facts",
        SQL("SELECT (NOT relay.facts_are_followed())::int"),
        "its triggers are gone or disabled, or it was made again",
        (SQL("SELECT relay.follow_facts()"),),
    ),
    _roll_up("roll-ups by minute", "minutes", "minute", "tallied"),
    _roll_up("roll-ups by hour", "hours", "hour", "by_hour"),
    Check(
        "failure groups",
        differing(_DEAD, _COUNTED_DEAD),
        "differs from a recount of the dead letters",
        (_CORRECT_DEAD,),
    ),
    *BACKLOG_CHECKS,
    Check(
        "counts of replay plans",
        SQL("""
            SELECT count(*) FROM relay.replay_plans p JOIN ({}) AS i USING (id)
             WHERE (p.delivered, p.dead, p.skipped) IS DISTINCT FROM (i.delivered, i.dead, i.skipped)
        """).format(_ITEMS),
        "differs from a recount of its items",
        (
            SQL("""
                UPDATE relay.replay_plans p SET delivered = i.delivered, dead = i.dead, skipped = i.skipped
                  FROM ({}) AS i
                 WHERE i.id = p.id
                   AND (p.delivered, p.dead, p.skipped) IS DISTINCT FROM (i.delivered, i.dead, i.skipped)
            """).format(_ITEMS),
        ),
    ),
    Check(
        "attempts have a delivery",
        SQL("SELECT count(*) {}").format(_ORPHANS),
        "belongs to no delivery",
        (SQL("DELETE {}").format(_ORPHANS),),
    ),
    Check(
        "finished deliveries have an end",
        SQL("SELECT count(*) FROM relay.deliveries WHERE {}").format(_ENDLESS),
        "has no time at which it finished",
        (SQL("UPDATE relay.deliveries SET finished_at = greatest(received_at, claimed_at) WHERE {}").format(_ENDLESS),),
    ),
    Check(
        "indexes are valid",
        SQL("""
            SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
             WHERE c.relnamespace = 'relay'::regnamespace AND NOT i.indisvalid
        """),
        "was not built to its end: REINDEX it, or drop it and run `relay migrate`",
    ),
)
