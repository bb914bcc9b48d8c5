"""Holds and the circuit breaker: what stops forwarding, or slows it, on all relays together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.store.actions import signed
from relay.store.database import exact, rows_of
from relay.store.failures import refusals

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from relay.store.database import Connection

ALIVE_S = 15
"""A relay without a heartbeat for so long gets no share of the limits that all relays have together."""


@dataclass(frozen=True, slots=True)
class GateState:
    """Whether and how fast relays may forward.

    The last hold was released at `rate` deliveries a second, and the backlog has not drained since; `closed_s`
    seconds ago the breaker closed, None if it is open or that is more than an hour ago. `relays` with this one's
    destination are alive; this one has the place `rank` among them, from 0.
    """

    held: bool
    open: bool
    rate: float | None
    closed_s: float | None
    relays: int
    rank: int


_READ = """
    SELECT g.held, g.open,
           (SELECT h.rate FROM relay.holds h
             WHERE h.drained_at IS NULL AND h.released_at IS NOT NULL
               AND h.id = (SELECT max(id) FROM relay.holds)) AS rate,
           (SELECT extract(epoch FROM now() - b.closed_at)::float8 FROM relay.breaker b
             WHERE b.closed_at > now() - interval '1 hour') AS closed_s,
           greatest(1, i.relays)::integer AS relays, i.rank::integer AS rank
      FROM relay.gate g, (
           SELECT count(*) AS relays, count(*) FILTER (WHERE id < %(owner)s) AS rank FROM relay.instances
            WHERE stopped_at IS NULL AND heartbeat_at > now() - make_interval(secs => %(alive_s)s)
              AND agent = (SELECT o.agent FROM relay.instances o WHERE o.id = %(owner)s)) AS i
"""


async def read(connection: Connection, owner: UUID) -> GateState:
    """The state now, for the relay `owner`."""
    given = {"owner": owner, "alive_s": ALIVE_S}
    state = await (await rows_of(connection, GateState).execute(_READ, given)).fetchone()
    assert state is not None
    return state


_END_HOLDS = (
    "SELECT relay.end_holds() WHERE EXISTS (SELECT FROM relay.holds WHERE released_at IS NULL AND until <= now())"
)


_END_DRAIN = """
    SELECT relay.end_drain() WHERE EXISTS (SELECT FROM relay.holds h
     WHERE h.id = (SELECT max(n.id) FROM relay.holds n) AND h.rate IS NOT NULL AND h.drained_at IS NULL)
"""


async def end_holds(connection: Connection) -> None:
    """Record the end of a hold whose time is over, and of a drain that is complete: its rate's limit ends."""
    await connection.execute(_END_HOLDS)
    await connection.execute(_END_DRAIN)


_RELEASE_ORDER = "SELECT relay.release_order(make_interval(secs => %(after_s)s))"


async def release_order(connection: Connection, after_s: float) -> None:
    """Let the next delivery of a conversation go whose first one has been in a retry wait for `after_s` seconds.

    The wait ends when the next attempt is due. A conversation whose rows another session holds is left out.
    """
    await connection.execute(_RELEASE_ORDER, {"after_s": after_s})


_HEAL_ORDER = "SELECT relay.heal_order(%s, %s)"


async def heal_order(connection: Connection, after: str, most: int) -> str:
    """Let the next delivery go of conversations that wait for one that is over, or no longer exists.

    Checks up to `most` conversations in which deliveries wait, in the order of their keys, after the key
    `after`. Returns the last one's key: begin there the next time. It is empty after the last of all.
    """
    row = await (await exact(connection).execute(_HEAL_ORDER, (after, most))).fetchone()
    return str(row[0]) if row is not None and row[0] is not None else ""


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold in force: who holds forwarding, why, since when and until when (None: until it is released)."""

    id: int
    since: datetime
    until: datetime | None
    operator: str
    login: str
    reason: str

    @property
    def who(self) -> str:
        """The operator, with the login where it differs."""
        return signed(self.operator, self.login)


_HOLD = "SELECT relay.hold(operator => %s, reason => %s, for_s => %s)"
_RELEASE = "SELECT relay.release(operator => %s, rate => %s)"
CURRENT_HOLD = """
    SELECT id, since, until, operator, login, reason FROM relay.holds
     WHERE released_at IS NULL AND (until IS NULL OR until > now()) ORDER BY id DESC LIMIT 1
"""


async def hold(connection: Connection, operator: str, reason: str, for_s: float | None = None) -> int:
    """Hold forwarding on all relays, for `for_s` seconds or until it is released. Returns the hold's id.

    Raises:
        Refused: there is no reason, or the time is not a positive one of a year at most.
    """
    with refusals():
        row = await (await connection.execute(_HOLD, (operator, reason, for_s))).fetchone()
    assert row is not None
    return int(row[0])


async def release(connection: Connection, operator: str, rate: float | None = None) -> bool:
    """End the hold; what waits drains, at `rate` deliveries a second if given. False if there is no hold.

    While it drains at a rate, this changes the rate.

    Raises:
        Refused: the rate is not from 0.001 to 1,000,000.
    """
    with refusals():
        row = await (await connection.execute(_RELEASE, (operator, rate))).fetchone()
    return row is not None and row[0] is not None


async def current_hold(connection: Connection) -> Hold | None:
    """The hold in force, or None."""
    return await (await rows_of(connection, Hold).execute(CURRENT_HOLD)).fetchone()


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """The open circuit breaker: since when, why, and when the next delivery is tried as a probe."""

    since: datetime
    why: str
    probe_at: datetime | None


OPEN_BREAKER = "SELECT opened_at, why, probe_at FROM relay.breaker WHERE opened_at IS NOT NULL"


_COUNT = """
    INSERT INTO relay.attempt_counts (instance, attempts, failed) VALUES (%s, %s, %s)
    ON CONFLICT (instance) DO UPDATE SET attempts = excluded.attempts, failed = excluded.failed, at = now()
"""
_TOTAL = """
    SELECT coalesce(sum(attempts), 0)::integer, coalesce(sum(failed), 0)::integer FROM relay.attempt_counts
     WHERE at > now() - interval '5 seconds'
"""


async def count_attempts(connection: Connection, owner: UUID, attempts: int, failed: int) -> tuple[int, int]:
    """Record this relay's attempts of the last minute; returns all relays' attempts, and those that failed."""
    await connection.execute(_COUNT, (owner, attempts, failed))
    row = await (await connection.execute(_TOTAL)).fetchone()
    return row or (0, 0)


_OPEN = """
    UPDATE relay.breaker
       SET opened_at = now(), why = %(why)s, probe_at = now() + make_interval(secs => %(pause_s)s),
           pause_s = %(first_s)s, closed_at = NULL
     WHERE opened_at IS NULL
"""
_PROBE = """
    UPDATE relay.breaker
       SET probe_at = now() + make_interval(secs => least(pause_s * 2, %(most_s)s) + %(attempt_s)s),
           pause_s = least(pause_s * 2, %(most_s)s)
     WHERE opened_at IS NOT NULL AND probe_at <= now()
    RETURNING probed_key
"""
_PROBED = """
    UPDATE relay.breaker SET probed_key = %(key)s WHERE opened_at IS NOT NULL
"""
_FAILED = """
    UPDATE relay.breaker
       SET probe_at = now() + make_interval(secs => pause_s) WHERE opened_at IS NOT NULL
"""
_CLOSE = """
    UPDATE relay.breaker SET opened_at = NULL, why = NULL, probe_at = NULL, closed_at = now()
     WHERE opened_at IS NOT NULL
"""
_CLOSE_UNUSED = f"""{_CLOSE} AND NOT EXISTS (
    SELECT FROM relay.attempt_counts c JOIN relay.instances i ON i.id = c.instance
     WHERE i.stopped_at IS NULL AND c.at > now() - interval '{ALIVE_S} seconds')
"""
_SKIPPED = "UPDATE relay.breaker SET probe_at = now(), pause_s = %(pause_s)s WHERE opened_at IS NOT NULL"


async def open_the_breaker(connection: Connection, why: str, *, pause_s: float, first_s: float) -> bool:
    """Open the breaker; the first probe is due after `pause_s`. False if it is open already.

    The pause after the first probe is twice `first_s`, and doubles from then on.
    """
    return (await connection.execute(_OPEN, {"why": why, "pause_s": pause_s, "first_s": first_s})).rowcount == 1


async def take_probe(connection: Connection, *, attempt_s: float, most_s: float) -> tuple[bool, str | None]:
    """Whether a probe is due and this relay's to make, and the conversation that the last one was of.

    The next one is due after the attempt, which lasts `attempt_s` at most, and a pause that doubles up to `most_s`.
    """
    row = await (await connection.execute(_PROBE, {"attempt_s": attempt_s, "most_s": most_s})).fetchone()
    return (False, None) if row is None else (True, row[0])


async def probing(connection: Connection, key: str | None) -> None:
    """Record the conversation that is probed with."""
    await connection.execute(_PROBED, {"key": key})


async def no_probe(connection: Connection, pause_s: float) -> None:
    """Nothing waits that could be a probe: the next delivery is one at once."""
    await connection.execute(_SKIPPED, {"pause_s": pause_s})


async def probe_failed(connection: Connection) -> None:
    """Record that the probe failed: the next one is due after the pause."""
    await connection.execute(_FAILED)


async def close_the_breaker(connection: Connection) -> bool:
    """Close the breaker. False if it is closed already."""
    return (await connection.execute(_CLOSE)).rowcount == 1


async def close_unused_breaker(connection: Connection) -> bool:
    """Close a breaker that no relay uses any more: no live one counts its attempts. True if that closed it."""
    return (await connection.execute(_CLOSE_UNUSED.encode())).rowcount == 1
