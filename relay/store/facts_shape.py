"""Refuses a `dashboard_facts` that no migration can work with, in one line with the remedy. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.errors import SchemaError
from relay.store.refusal import TABLE

if TYPE_CHECKING:
    from relay.store.database import Connection

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_RELATION = """
    SELECT c.relkind::text, format('%%I.%%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""
_COLUMNS = """
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typcategory::text,
           (WITH RECURSIVE below (type, base) AS (
                SELECT t.oid, t.typbasetype
                 UNION ALL SELECT b.oid, b.typbasetype FROM below JOIN pg_type b ON b.oid = below.base)
            SELECT type::regtype::text FROM below WHERE base = 0),
           a.attgenerated <> '', a.atthasdef
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_STRING, _NUMBER = "S", "N"  # pg_type.typcategory
_WANTED = {"fact_type": "text", "scope": "text", "value": "jsonb", "metadata": "jsonb", "recorded_at": "timestamptz"}
_TAKEN = {
    "jsonb": {"jsonb", "json"},
    "timestamptz": {"timestamp with time zone", "timestamp without time zone"},
}
_TIMES_OF_DAY = {"time with time zone", "time without time zone"}


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: `shown` is its type as written, `base` the type below its domains."""

    name: str
    shown: str
    category: str
    base: str
    is_generated: bool
    has_default: bool


async def check(connection: Connection) -> None:
    """Read the kind of `dashboard_facts`, if there is one, and the types of the relay's columns.

    Raises:
        SchemaError: the relay cannot write its facts there.
    """
    row = await (await connection.execute(_RELATION, (TABLE,))).fetchone()
    if row is None:
        return
    kind, name = row
    if kind in _KINDS:
        raise SchemaError(
            f"{name} is {_KINDS[kind]}, and the relay needs a table to write its facts into. Rename it, or let "
            "RELAY_FACTS_TABLE name a table; then run this again"
        )
    cursor = await connection.execute(_COLUMNS, (TABLE,))
    for column in [_Column(*row) for row in await cursor.fetchall()]:
        wanted = _WANTED.get(column.name)
        if wanted is not None and (fault := _fault(column, wanted)) is not None:
            what, change = fault
            raise SchemaError(
                f"{name} has a {what}, which the relay cannot fill; change it: ALTER TABLE {name} "
                f"ALTER COLUMN {column.name} {change}"
            )


def _fault(column: _Column, wanted: str) -> tuple[str, str] | None:
    """What is wrong with a column that is to hold `wanted`, and the action that changes it; None if it does."""
    if column.is_generated:
        return f"generated column {column.name}", "DROP EXPRESSION"
    takes = column.category == _STRING if wanted == "text" else column.base in _TAKEN[wanted]
    if takes:
        return None
    first = f"DROP DEFAULT, ALTER COLUMN {column.name} " if column.has_default else ""
    return f"column {column.name} of type {column.shown}", f"{first}TYPE {wanted} USING {_converted(column, wanted)}"


def _converted(column: _Column, wanted: str) -> str:
    name = column.name
    if wanted == "jsonb":
        return f"{name}::text::jsonb"
    if wanted == "text":
        return f"{name}::text"
    if column.category == _NUMBER:
        return f"to_timestamp({name}); to_timestamp({name} / 1000.0) if it counts milliseconds"
    return f"current_date + {name}" if column.base in _TIMES_OF_DAY else f"{name}::text::timestamptz"
