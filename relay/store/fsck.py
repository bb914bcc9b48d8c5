"""Checks what the tables must agree on, and repairs what can be computed anew.

Needs the rights of the tables' owner. Each repair is a transaction that waits for a lock for `LOCK_MS` at most, since
relays may queue behind it meanwhile. It is tried `TRIES` times.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg.errors import LockNotAvailable
from psycopg.sql import SQL, Identifier, Literal

from relay.store.fsck_checks import CHECKS
from relay.store.migrate import migrations, versions
from relay.store.waits import lock_holders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from relay.store.database import Connection
    from relay.store.fsck_check import Check

LOCK_MS, TRIES, PAUSE_S = 500, 3, 0.25


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found: how many places are `wrong`, what is so of each, and whether they are `repaired`."""

    check: str
    wrong: int
    detail: str
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """True if nothing is wrong, or nothing is any more."""
        return not self.wrong or self.repaired


_SEQUENCES = """
    SELECT c.oid::regclass::text, a.attname, n.nspname, s.relname
      FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
      JOIN pg_namespace n ON n.oid = s.relnamespace
      JOIN pg_class c ON c.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.deptype IN ('i', 'a')
       AND (c.relnamespace = 'relay'::regnamespace OR c.oid = to_regclass('dashboard_facts'))
     ORDER BY 1
"""
_BEHIND = """
    SELECT newest.id FROM (SELECT max({column}) AS id FROM {table}) AS newest, {sequence} AS s
     WHERE newest.id >= s.last_value + s.is_called::int
"""
_LOCK_TIMEOUT = SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{LOCK_MS}ms"))


async def check(connection: Connection, *, repair: bool) -> AsyncIterator[CheckResult]:
    """Yield what each check finds. With `repair` what can be repaired is, and is checked again.

    Raises:
        psycopg.Error: the login may not read or repair, or Postgres is away.
    """
    done = await versions(connection)
    pending = [step.name for step in migrations() if step.version not in done]
    named = ", ".join(pending[:3]) + (" …" if len(pending) > 3 else "")
    yield CheckResult("migrations", len(pending), f"not applied ({named}): run `relay migrate`")
    if pending:
        return
    yield await _settled(connection, "sequences", _count_sequences, _move_sequences if repair else None, _SEQUENCE_TEXT)
    for one in CHECKS:
        count, mend = partial(_count, one), partial(_repair, one)
        yield await _settled(connection, one.name, count, mend if repair and one.repair else None, one.wrong)


async def _count(one: Check, connection: Connection) -> int:
    row = await (await connection.execute(one.count)).fetchone()
    return int(row[0]) if row else 0


async def _repair(one: Check, connection: Connection) -> None:
    for statement in one.repair:
        await connection.execute(statement)


_SEQUENCE_TEXT = "gives an id that is taken, as after a logical restore: the next row would be refused"


async def _settled(
    connection: Connection,
    name: str,
    count: Callable[[Connection], Awaitable[int]],
    mend: Callable[[Connection], Awaitable[Any]] | None,
    text: str,
) -> CheckResult:
    wrong = left = await count(connection)
    if not wrong or mend is None:
        return CheckResult(name, wrong, text)
    while left:
        try:
            await _mended(connection, mend)
        except LockNotAvailable:
            found = "; ".join(await lock_holders(connection)) or "a session that has ended meanwhile"
            return CheckResult(name, wrong, f"{text}. Not repaired: it waits for a lock of {found}")
        before, left = left, await count(connection)
        if left >= before:
            break
    return CheckResult(name, wrong, text, repaired=not left)


async def _mended(connection: Connection, mend: Callable[[Connection], Awaitable[Any]]) -> None:
    """Repair in one transaction, again after a pause if another session holds a lock.

    Raises:
        LockNotAvailable: another session holds it all the time.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            async with connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await mend(connection)
        except LockNotAvailable:
            if not tries_left:
                raise
            await asyncio.sleep(PAUSE_S)  # for those that queued behind it
        else:
            return


async def _behind(connection: Connection) -> list[tuple[str, int]]:
    """The sequences that are behind their column, each with the newest id."""
    found: list[tuple[str, int]] = []
    for table, column, schema, name in await (await connection.execute(_SEQUENCES)).fetchall():
        sequence = Identifier(schema, name)
        statement = SQL(_BEHIND).format(column=Identifier(column), table=SQL(table), sequence=sequence)
        row = await (await connection.execute(statement)).fetchone()
        if row is not None:
            found.append((sequence.as_string(connection), int(row[0])))
    return found


async def _count_sequences(connection: Connection) -> int:
    return len(await _behind(connection))


async def _move_sequences(connection: Connection) -> None:
    for sequence, newest in await _behind(connection):
        await connection.execute("SELECT setval(%s::regclass, %s)", (sequence, newest))
