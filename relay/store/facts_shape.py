"""Refuses a `dashboard_facts` that no migration can work with, in one line with the remedy. Changes nothing."""

from __future__ import annotations

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
           coalesce(nullif(t.typbasetype, 0), t.oid)::regtype::text
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
_STRING, _NUMBER, _TIME = "S", "N", "D"  # pg_type.typcategory
_WANTED = {"fact_type": "text", "scope": "text", "value": "jsonb", "metadata": "jsonb", "recorded_at": "timestamptz"}


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
    for column, shown, category, base in await cursor.fetchall():
        wanted = _WANTED.get(column)
        if wanted is not None and not _takes(wanted, category, base):
            raise SchemaError(
                f"{name} has a column {column} of type {shown}, which the relay cannot fill; change it: ALTER TABLE "
                f"{name} ALTER COLUMN {column} TYPE {wanted} USING {_converted(column, wanted, category)}"
            )


def _takes(wanted: str, category: str, base: str) -> bool:
    if wanted == "jsonb":
        return base in {"jsonb", "json"}
    return category == (_STRING if wanted == "text" else _TIME)


def _converted(column: str, wanted: str, category: str) -> str:
    if wanted == "timestamptz" and category == _NUMBER:
        return f"to_timestamp({column}); to_timestamp({column} / 1000.0) if it counts milliseconds"
    return f"{column}::text::jsonb" if wanted == "jsonb" else f"{column}::{wanted}"
