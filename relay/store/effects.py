"""What a trigger of `dashboard_facts` does to the session that writes a fact: changes its settings, cancels or ends it.

Part of the check at the start (`preflight`). Each effect would make later statements fail that have nothing to do
with facts.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from relay.domain.facts import SCOPE
from relay.errors import FactsRefused
from relay.store.database import connect, exact, time_limit
from relay.store.finishing import fact_row
from relay.store.refusal import ENDS_SESSION, TABLE, explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.domain.facts import Fact
    from relay.store.database import Connection
    from relay.store.deliveries import FactsAside

_LIMIT_MS = 2_000
_RAISED_WITHIN_S = 1.0
_LIMIT = "statement_timeout"
_RAISED = ("57014", "40001", "40P01")
_SETTINGS = """
    SELECT name, setting FROM pg_settings WHERE context IN ('user', 'superuser')
     UNION ALL SELECT 'role', current_user
"""
_TRIGGERS = """
    SELECT DISTINCT quote_ident(t.tgname) FROM pg_trigger t
     WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
       AND (t.tgrelid = to_regclass('dashboard_facts')
            OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(to_regclass('dashboard_facts'))))
       AND t.tgfoid NOT IN (SELECT oid FROM pg_proc WHERE pronamespace = 'relay'::regnamespace)
     ORDER BY 1
"""
_WRITE = "SELECT relay.write_facts(ARRAY[%s::jsonb], %s, true)"


@dataclass(frozen=True, slots=True)
class Before:
    """A session before facts were written: its settings, its role, and the triggers that are not the relay's own.

    The relay itself sets `statement_timeout` in a check, to one of `limits`, in milliseconds.
    """

    settings: Mapping[str, str]
    triggers: Sequence[str]
    limits: frozenset[str]


async def before(connection: Connection, *limits_ms: int) -> Before:
    """The session as it is now."""
    cursor = await connection.execute(_TRIGGERS)
    triggers = [row[0] for row in await cursor.fetchall()]
    return Before(await _settings(connection), triggers, frozenset(map(str, limits_ms)))


async def _settings(connection: Connection) -> dict[str, str]:
    cursor = await exact(connection).execute(_SETTINGS)
    return dict(await cursor.fetchall())


async def refuse_changes(connection: Connection, was: Before) -> None:
    """Compare the session with what it `was`.

    Raises:
        FactsRefused: a trigger changed a setting.
        psycopg.errors.QueryCanceled: the session has no time left to compare.
    """
    now = await _settings(connection)
    changed = [
        f"{name} = {now.get(name)}"
        for name in sorted(was.settings)
        if now.get(name) != was.settings[name] and not (name == _LIMIT and now.get(name) in was.limits)
    ]
    if changed:
        _refuse_leftovers(changed, was.triggers)


def _refuse_leftovers(changed: Sequence[str], triggers: Sequence[str]) -> None:
    raise FactsRefused(
        f"{subject(triggers)} of {TABLE} leaves {', '.join(changed)} behind in the relay's database session, "
        "so that later statements fail or do something else",
        f"let the trigger's function set that with a SET clause of its own (ALTER FUNCTION … SET …), {_off(triggers)}",
    )


async def refuse_raised_delays(connection: Connection, was: Before, aside: FactsAside, seconds: float) -> None:
    """Distinguish a fact that is late from one whose trigger cancels the statement itself, by the `seconds` it took.

    Raises:
        FactsRefused: a trigger raises what Postgres raises for a time-out or a conflict.
    """
    state = (aside.reason or "").partition(" ")[0]
    if aside.late and state in _RAISED and seconds < _RAISED_WITHIN_S:
        await refuse_changes(connection, was)
        raise FactsRefused(
            f"{subject(was.triggers)} of {TABLE} cancels the statements that record facts ({state})",
            f"mend the trigger's function, {_off(was.triggers)}",
        )


async def refuse_if_facts_change_the_session(dsn: str, samples: Sequence[Fact]) -> None:
    """Write `samples` in a session of their own, after something failed, and read its settings. Nothing stays.

    Raises:
        FactsRefused: a trigger changed one.
    """
    with suppress(psycopg.Error):
        async with await connect(dsn, "hotdash-relay start") as connection, connection.transaction(force_rollback=True):
            async with time_limit(connection, _LIMIT_MS):
                pass
            was = await before(connection, _LIMIT_MS)
            for sample in samples:
                await connection.execute(_WRITE, (json.dumps([fact_row(sample)]), SCOPE))
                try:
                    await refuse_changes(connection, was)
                except psycopg.errors.QueryCanceled:
                    _refuse_leftovers(["a short statement_timeout"], was.triggers)


async def refuse_if_facts_end_the_session(dsn: str, *steps: Callable[[Connection, Before], Awaitable[object]]) -> None:
    """Run `steps`, which write facts, once more in a session of their own. Nothing stays.

    Raises:
        FactsRefused: Postgres is there, and that session ends too.
    """
    try:
        connection = await connect(dsn, "hotdash-relay start")
    except psycopg.OperationalError:
        return
    was: Before | None = None
    try:
        async with connection, connection.transaction(force_rollback=True):
            was = await before(connection)
            for step in steps:
                await step(connection, was)
    except psycopg.Error:
        if was is not None and was.triggers and connection.closed and await _answers(dsn):
            reason, _ = explain(ENDS_SESSION)
            raise FactsRefused(
                f"{TABLE} refuses facts that the relay must record: {reason}, by {subject(was.triggers)}",
                f"mend the trigger's function, {_off(was.triggers)}",
            ) from None


async def _answers(dsn: str) -> bool:
    try:
        async with await connect(dsn, "hotdash-relay start"):
            return True
    except psycopg.OperationalError:
        return False


def subject(triggers: Sequence[str]) -> str:
    """What may be to blame, as the subject of a sentence."""
    if len(triggers) == 1:
        return f"trigger {triggers[0]}"
    return f"one of the triggers {', '.join(triggers)}" if triggers else "a rule or a default"


def _off(triggers: Sequence[str]) -> str:
    name = triggers[0] if len(triggers) == 1 else "…"
    return f"or ALTER TABLE {TABLE} DISABLE TRIGGER {name}"
