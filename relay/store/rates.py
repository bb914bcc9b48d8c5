"""Rates that relays share: when the next delivery may start, by the clock of Postgres, for a destination and for all.

A relay locks the rows, starts what they allow, and charges it, in one transaction. `relay.forwarding.rate_limit` says
how many that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from relay.store.database import Connection

_ADD = """
    INSERT INTO relay.rates (scope, rate) SELECT * FROM unnest(%s::text[], %s::float8[]) AS n(scope, rate) ORDER BY 1
    ON CONFLICT DO NOTHING
"""
# The clock is read once the rows are locked: other relays may have held them for a while.
_LOCK = """
    WITH locked AS MATERIALIZED (
        SELECT scope, rate, next_at FROM relay.rates WHERE scope = ANY(%s) ORDER BY scope FOR UPDATE
    ), clock AS MATERIALIZED (
        SELECT clock_timestamp() AS at FROM (SELECT count(*) FROM locked) AS all_locked
    )
    SELECT scope, rate, extract(epoch FROM at - next_at)::float8, at FROM locked, clock
"""
# A row that another session holds, or a relay that is stopped in the middle, must not stop the other relays for long.
_LIMITS = """
    SELECT set_config('lock_timeout', '250ms', true), set_config('idle_in_transaction_session_timeout', '2s', true)
"""
_CHARGE = """
    UPDATE relay.rates r SET next_at = %s - make_interval(secs => n.since_s), rate = n.rate
      FROM unnest(%s::text[], %s::float8[], %s::float8[]) AS n(scope, rate, since_s) WHERE r.scope = n.scope
"""


@dataclass(frozen=True, slots=True)
class Levels:
    """How many seconds before `at` the next delivery of each scope was allowed; negative for after it."""

    at: datetime
    since_s: Mapping[str, float]


async def lock(connection: Connection, rates: Mapping[str, float]) -> Levels:
    """Lock the rates of these scopes, in deliveries a second, until the transaction ends.

    What is left to wait at another rate is scaled: a slow release delays nothing of a faster one.

    Raises:
        psycopg.errors.LockNotAvailable: another session holds them, or later a row that the transaction needs.
    """
    scopes = list(rates)
    await connection.execute(_LIMITS)
    rows = await (await connection.execute(_LOCK, (scopes,))).fetchall()
    if len(rows) < len(scopes):
        await connection.execute(_ADD, (scopes, list(rates.values())))
        rows = await (await connection.execute(_LOCK, (scopes,))).fetchall()
    since_s = {scope: since if since > 0 else since * rate / rates[scope] for scope, rate, since, _ in rows}
    return Levels(rows[0][3], since_s)


async def charge(connection: Connection, rates: Mapping[str, float], levels: Levels) -> None:
    """Record what is left of the rates that this transaction has locked."""
    since_s = [levels.since_s[scope] for scope in rates]
    await connection.execute(_CHARGE, (levels.at, list(rates), list(rates.values()), since_s))
