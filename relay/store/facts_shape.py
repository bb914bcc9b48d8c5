"""Refuses a `dashboard_facts` that no migration can work with, in one line with the remedy. Changes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.errors import SchemaError
from relay.store.refusal import TABLE

if TYPE_CHECKING:
    from relay.store.database import Connection

_KINDS = {
    "v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index",
    "I": "an index", "c": "a composite type", "partition": "a partition of another table",
}  # fmt: skip
_RELATION = """
    SELECT CASE WHEN c.relispartition THEN 'partition' WHEN c.reloftype <> 0 THEN 'typed' ELSE c.relkind::text END,
           format('%%I.%%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""
_COLUMNS = """
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typcategory::text,
           (WITH RECURSIVE below (type, base) AS (
                SELECT t.oid, t.typbasetype
                 UNION ALL SELECT b.oid, b.typbasetype FROM below JOIN pg_type b ON b.oid = below.base)
            SELECT type::regtype::text FROM below WHERE base = 0),
           a.attgenerated <> '', a.atthasdef, t.typnotnull AND t.typdefault IS NULL
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_STRING, _NUMBER = "S", "N"  # pg_type.typcategory
_WANTED = {"fact_type": "text", "scope": "text", "value": "jsonb", "metadata": "jsonb", "recorded_at": "timestamptz"}
_TAKEN = {
    "jsonb": {"jsonb", "json"},
    "timestamptz": {"timestamp with time zone", "timestamp without time zone"},
}
_LENGTH, _UUID_CHARS = re.compile(r"character varying\((\d+)\)"), 36
_UTC = {"UTC", "GMT", "UCT", "ZULU", "UNIVERSAL", "GMT0", "GMT+0", "GMT-0", "GREENWICH"}
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
    must_be_given: bool

    @property
    def cannot_be_left_out(self) -> bool:
        """True if its domain takes no NULL, and neither table nor domain gives a default."""
        return self.must_be_given and not self.has_default and self.name not in {*_WANTED, "id"}

    @property
    def is_time_without_zone(self) -> bool:
        """True if what it holds depends on the session's time zone."""
        return self.name == "recorded_at" and self.base == "timestamp without time zone"

    @property
    def is_too_short_an_id(self) -> bool:
        """True if no UUID fits into an id that is text and that the table does not make itself."""
        length = _LENGTH.fullmatch(self.shown)
        return self.name == "id" and not self.has_default and length is not None and int(length[1]) < _UUID_CHARS


_PLACE = "SELECT current_schema() IS NOT NULL, current_setting('search_path')"
# What role and database set is known; what the server's own file sets is not: the relay's session asks for UTC.
_TIME_ZONE = """
    SELECT split_part(one, '=', 2)
      FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS one
     WHERE lower(split_part(one, '=', 1)) = 'timezone' AND s.setrole IN (0, current_user::regrole)
       AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
     ORDER BY s.setdatabase DESC, s.setrole DESC LIMIT 1
"""


async def check(connection: Connection, *, fresh: bool = True) -> None:
    """Read the kind of `dashboard_facts`, if there is one, and the types of its columns.

    `fresh`: the relay has not used it yet.

    Raises:
        SchemaError: the relay cannot write its facts there, or the runbook's SQL would misread them.
    """
    row = await (await connection.execute(_RELATION, (TABLE,))).fetchone()
    if row is None:
        await _refuse_nowhere(connection)
        return
    kind, name = row
    if kind in _KINDS:
        raise SchemaError(
            f"{name} is {_KINDS[kind]}, and the relay needs a table to write its facts into. Rename it, or let "
            "RELAY_FACTS_TABLE name a table; then run this again"
        )
    if kind == "typed":
        raise SchemaError(
            f"{name} is a table of a type, to which no column can be added; make it one of its own: ALTER TABLE {name} "
            "NOT OF"
        )
    cursor = await connection.execute(_COLUMNS, (TABLE,))
    for column in [_Column(*row) for row in await cursor.fetchall()]:
        if column.cannot_be_left_out:
            raise SchemaError(
                f"{name} has a column {column.name} of type {column.shown}, which must be given and has no default; "
                f"give it one: ALTER TABLE {name} ALTER COLUMN {column.name} SET DEFAULT …"
            )
        if column.is_too_short_an_id:
            raise SchemaError(
                f"{name} has an id of type {column.shown}, too short for the ids that the relay makes; change it: "
                f"ALTER TABLE {name} ALTER COLUMN id TYPE text; or give it a default of your own"
            )
        wanted = _WANTED.get(column.name)
        if wanted is not None and (fault := _fault(column, wanted)) is not None:
            what, change = fault
            raise SchemaError(
                f"{name} has a {what}, which the relay cannot fill; change it: ALTER TABLE {name} "
                f"ALTER COLUMN {column.name} {change}"
            )

        if fresh and column.is_time_without_zone:
            await _refuse_other_time_zones(connection, name)


async def _refuse_nowhere(connection: Connection) -> None:
    row = await (await connection.execute(_PLACE)).fetchone()
    if row is not None and not row[0]:
        raise SchemaError(
            f"No schema of the search path ({row[1]}) is there to hold dashboard_facts: CREATE SCHEMA public, or ALTER "
            "ROLE … SET search_path to one that exists"
        )


async def _refuse_other_time_zones(connection: Connection, name: str) -> None:
    row = await (await connection.execute(_TIME_ZONE)).fetchone()
    if row is not None and row[0].upper().removeprefix("ETC/") not in _UTC:
        raise SchemaError(
            f"{name} has a column recorded_at without time zone, and sessions of this database are in {row[0]}: the "
            f"runbook's SQL would misread the times; change it: ALTER TABLE {name} ALTER COLUMN recorded_at TYPE "
            f"timestamptz USING recorded_at AT TIME ZONE '{row[0]}'"
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
