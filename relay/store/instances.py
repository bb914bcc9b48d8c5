"""Running relays in Postgres: their heartbeats, their leases, and the duties that one of them does for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg.sql import SQL

from relay.store.database import rows_of

if TYPE_CHECKING:
    from datetime import datetime

    from relay.store.database import Connection

DUTY_S = 15.0
"""How long a relay has a duty, unless the duty says otherwise. It asks for it again before that is over."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One relay process. `name` identifies the address that it is bound to, which one relay at a time can hold.

    `boot` is shared by the workers of one start, `slot` distinguishes them.
    """

    id: UUID
    name: str
    boot: UUID
    slot: int
    pid: int
    version: str
    signed: bool
    agent: str


@dataclass(frozen=True, slots=True)
class Liveness:
    """A relay as of its last heartbeat. Ages are in seconds, by the database's clock."""

    name: str
    slot: int
    version: str
    signed: bool
    agent: str
    in_flight: int
    age_s: float
    alive: bool
    started_at: datetime


_REGISTER = """
    WITH predecessors AS (
        UPDATE relay.instances SET lease_until = '-infinity', stopped_at = coalesce(stopped_at, now())
         WHERE name = %(name)s AND id <> %(id)s AND (boot <> %(boot)s OR slot = %(slot)s)
           AND lease_until > '-infinity'
        RETURNING id
    ), own AS (
        INSERT INTO relay.instances AS i (id, name, boot, slot, pid, version, signed, agent, lease_until)
        VALUES (%(id)s, %(name)s, %(boot)s, %(slot)s, %(pid)s, %(version)s, %(signed)s, %(agent)s,
                now() + make_interval(secs => %(lease_s)s))
        ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until, heartbeat_at = now()
    )
    SELECT count(*) FROM predecessors
"""


async def register(connection: Connection, instance: Instance, lease_s: float) -> int:
    """Announce this relay and end the leases of those it replaces; returns how many those were.

    Two relays cannot be bound to one address, nor two workers have one slot. The previous holder is therefore dead,
    and its deliveries need not wait for its lease to expire.
    """
    cursor = await connection.execute(
        _REGISTER,
        {
            "id": instance.id,
            "name": instance.name,
            "boot": instance.boot,
            "slot": instance.slot,
            "pid": instance.pid,
            "version": instance.version,
            "signed": instance.signed,
            "agent": instance.agent,
            "lease_s": lease_s,
        },
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


_BEAT_S = 5.0


def beat_every_s(lease_s: float) -> float:
    """The pause between two heartbeats of a relay: 5 s, and a third of its lease at most."""
    return min(_BEAT_S, lease_s / 3)


_BEAT = """
    UPDATE relay.instances
       SET heartbeat_at = now(), lease_until = now() + make_interval(secs => %(lease_s)s), stopped_at = NULL,
           in_flight = %(in_flight)s
     WHERE id = %(id)s
"""


async def beat(connection: Connection, instance: UUID, *, lease_s: float, in_flight: int) -> bool:
    """Renew every lease of `instance` for `lease_s` seconds. False if its row no longer exists: register again."""
    cursor = await connection.execute(_BEAT, {"id": instance, "lease_s": lease_s, "in_flight": in_flight})
    return cursor.rowcount == 1


_END = """
    UPDATE relay.instances SET lease_until = '-infinity', stopped_at = now(), heartbeat_at = now(), in_flight = 0
     WHERE id = %s
"""


async def end(connection: Connection, instance: UUID) -> None:
    """Record that this relay has stopped and holds no lease."""
    await connection.execute(_END, (instance,))


DOWN_AFTER_S = 60
"""A relay without a heartbeat for this long is down (DESIGN, 7: relay-down)."""

AWAY_S = 600
"""A relay whose last heartbeat is this close to the start of Postgres may be alive: it could not write meanwhile."""

HEARD_AT = SQL(f"""
    CASE WHEN stopped_at IS NULL AND heartbeat_at > pg_postmaster_start_time() - interval '{AWAY_S} s'
         THEN greatest(heartbeat_at, pg_postmaster_start_time()) ELSE heartbeat_at END
""")
"""SQL: what a relay's silence counts from, its heartbeat or, if that was before it, the start of Postgres."""

_LIVENESS = SQL("""
    SELECT name, slot, version, signed, agent, in_flight,
           extract(epoch FROM now() - heartbeat_at)::float8 AS age_s,
           stopped_at IS NULL AND {heard_at} > now() - make_interval(secs => %(down_s)s) AS alive, started_at
      FROM relay.instances
     WHERE heartbeat_at > now() - interval '1 day'
     ORDER BY alive DESC, heartbeat_at DESC LIMIT 64
""").format(heard_at=HEARD_AT)


async def liveness(connection: Connection) -> list[Liveness]:
    """The relays with a heartbeat in the last day, those alive first.

    No relay can write a heartbeat while Postgres is away, so each has until `DOWN_AFTER_S` after Postgres started.
    """
    cursor = await rows_of(connection, Liveness).execute(_LIVENESS, {"down_s": DOWN_AFTER_S})
    return await cursor.fetchall()


_UNATTENDED = f"""
    WITH runs AS (
        SELECT started_at, heartbeat_at AS ended_at FROM relay.instances
         WHERE heartbeat_at > now() - interval '1 day'
    ), gaps AS (
        SELECT max(ended_at) OVER (ORDER BY started_at, ended_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                   AS since, started_at AS until FROM runs
    )
    SELECT since, until FROM gaps
     WHERE until > since + interval '{DOWN_AFTER_S} s'
       AND NOT EXISTS (SELECT FROM relay.operator_actions a
                        WHERE a.action = 'note' AND a.details ->> 'backfill' = 'true' AND a.at > gaps.until
                          AND a.details ->> 'since' <= to_char(gaps.since AT TIME ZONE 'UTC', '{{iso}}')
                          AND a.details ->> 'until' >= to_char(gaps.until AT TIME ZONE 'UTC', '{{iso}}'))
     ORDER BY until DESC
""".replace("{iso}", 'YYYY-MM-DD"T"HH24:MI:SS')  # noqa: S608 - constants


async def unattended(connection: Connection) -> list[tuple[datetime, datetime]]:
    """The windows of the last day in which no relay ran, newest first: a relay has started since then.

    A relay counts until its last heartbeat: one that was killed is marked as stopped only when the next one starts.
    Windows of up to `DOWN_AFTER_S` are left out, and so are those that a complete backfill has covered.
    """
    cursor = await connection.execute(_UNATTENDED.encode())
    return [(row[0], row[1]) for row in await cursor.fetchall()]


_TAKE_DUTY = """
    INSERT INTO relay.duties AS d (name, owner, until)
    VALUES (%(name)s, %(owner)s, now() + make_interval(secs => %(for_s)s))
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
     WHERE d.owner = excluded.owner OR d.until < now()
"""


async def take_duty(connection: Connection, name: str, owner: UUID, *, for_s: float = DUTY_S) -> bool:
    """True if `owner` has the duty `name` for the next `for_s` seconds: `owner` holds it already, or no relay did."""
    cursor = await connection.execute(_TAKE_DUTY, {"name": name, "owner": owner, "for_s": for_s})
    return cursor.rowcount == 1


_LEAVE_DUTIES = "DELETE FROM relay.duties WHERE owner = %s"


async def leave_duties(connection: Connection, owner: UUID) -> None:
    """Free every duty of `owner`, so that another relay takes it on at once."""
    await connection.execute(_LEAVE_DUTIES, (owner,))


_TOUCH = """
    UPDATE relay.instances SET heartbeat_at = heartbeat_at
     WHERE id = (SELECT id FROM relay.instances WHERE id = %s FOR UPDATE SKIP LOCKED)
"""


async def touch(connection: Connection, owner: UUID) -> None:
    """Write the row of the relay `owner` without a change, so that its transaction is one that has to be committed.

    Does nothing while another session holds the row.
    """
    await connection.execute(_TOUCH, (owner,))


_ALIVE = """
    UPDATE relay.instances SET heartbeat_at = now()
     WHERE id = (SELECT id FROM relay.instances
                  WHERE id = %s AND stopped_at IS NULL AND heartbeat_at < now() - make_interval(secs => %s)
                    FOR UPDATE SKIP LOCKED)
"""


async def show_alive(connection: Connection, owner: UUID) -> None:
    """Date the heartbeat of the relay `owner` now, if the last one is old: it could write none while Postgres was away.

    Its lease stays as it is.
    """
    await connection.execute(_ALIVE, (owner, DOWN_AFTER_S / 2))


_CAN_WRITE = "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'"


async def can_write(connection: Connection) -> bool:
    """False on a standby and wherever transactions are read-only."""
    cursor = await connection.execute(_CAN_WRITE)
    row = await cursor.fetchone()
    return bool(row and row[0])
