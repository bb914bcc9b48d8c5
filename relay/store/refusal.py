"""Why `dashboard_facts` does not take a fact, in a sentence for operators, and what to do about it. Pure.

A reason is what `relay.refusal` (SQL) makes of an error: an SQLSTATE, then names such as `constraint facts_once`.
"""

from __future__ import annotations

import re

TABLE = "dashboard_facts"
MOST_COUNTED = 10_000
"""Facts aside are counted no further, so that counting costs the same however many wait."""

_NAMES = re.compile(r'(trigger|rule|constraint|column) ("(?:[^"]|"")*"|\S+)( (?!trigger|rule|constraint|column)[^"]*)?')
_DROPPED = "RL002"
_NO_PARTITION = "partition"
_READ_ONLY = "25006"
ENDS_SESSION = "57P01"

_CAUSES = {
    _DROPPED: "they are dropped without an error",
    "2200H": "a sequence has reached its limit",
    "22001": "a value is too long for its column",
    "23502": "a column that must be given has no default",
    "23503": "a foreign key refuses them",
    "23505": "a unique constraint or index allows one fact of a kind",
    "23514": "a check constraint refuses them",
    "23P01": "an exclusion constraint refuses them",
    "42501": "the relay's role may not insert them",
    "42804": "a column has a type that the relay cannot fill",
    "42P01": "the table is not there",
    "42703": "a column is missing",
    "55P03": "another session holds a lock",
    "57014": "they are not inserted in time",
    ENDS_SESSION: "inserting one ends the database session",
}
_REMEDIES = {
    _DROPPED: f"find the trigger or rule of {TABLE}, or of a partition, that drops rows; let fact types that begin "
    "with 'support.' pass",
    "2200H": "ALTER SEQUENCE … NO MAXVALUE; widen the id to bigint if it is an integer",
    "22001": f"widen the column: ALTER TABLE {TABLE} ALTER COLUMN … TYPE text",
    "23502": f"give the column a default: ALTER TABLE {TABLE} ALTER COLUMN … SET DEFAULT …",
    "23503": f"drop the foreign key, or exempt fact types that begin with 'support.': ALTER TABLE {TABLE} …",
    "23505": f"drop the constraint or index: ALTER TABLE {TABLE} DROP CONSTRAINT …, or DROP INDEX …",
    "23514": f"drop the constraint, or let fact types that begin with 'support.' pass: ALTER TABLE {TABLE} …",
    "23P01": f"drop the constraint: ALTER TABLE {TABLE} DROP CONSTRAINT …",
    "42501": f"GRANT INSERT ON {TABLE} to the relay's role; with row-level security, CREATE POLICY … FOR INSERT",
    "42804": f"change the column's type: ALTER TABLE {TABLE} ALTER COLUMN … TYPE text (jsonb for value and metadata)",
    "42P01": "restore the table and the relay's rights to it, then run relay migrate",
    "42703": "add the column again: fact_type, scope, value, metadata, recorded_at",
    "55P03": "end the session that holds the lock (pg_locks, pg_stat_activity)",
    "57014": f"find what makes INSERT into {TABLE} slow: a trigger, a lock, or the server",
    ENDS_SESSION: f"find the trigger of {TABLE} that calls pg_terminate_backend, and mend its function or disable it",
}
_ADD_PARTITION = (
    f"create the partition for the present, or one for all the rest: CREATE TABLE … PARTITION OF {TABLE} DEFAULT"
)


def explain(reason: str | None) -> tuple[str, str]:
    """What is wrong and what to do, both without a full stop: `("a check constraint refuses them (23514, …)", …)`."""
    if not reason:
        return "they are not inserted in time", _REMEDIES["57014"]
    state, _, rest = reason.partition(" ")
    if state == "23514" and rest in {"", _NO_PARTITION}:  # a check constraint has a name
        return f"no partition of {TABLE} takes them ({state})", _ADD_PARTITION
    if state == _READ_ONLY:
        return (
            f"a trigger makes the transaction read-only ({state})",
            f"find that trigger of {TABLE}, and mend its function",
        )
    trigger = next((match[2] for match in _NAMES.finditer(rest) if match[1] == "trigger"), None)
    cause = _CAUSES.get(state, "Postgres refuses them")
    remedy = _REMEDIES.get(state, f"see the server's log for SQLSTATE {state}, and correct the table or its triggers")
    if state == _DROPPED and rest:
        remedy = "drop the rule, or let the trigger's function return NEW for fact types that begin with 'support.'"
    elif trigger is not None:
        cause = f"trigger {trigger} fails"
        remedy = f"mend the trigger's function, or ALTER TABLE {TABLE} DISABLE TRIGGER {trigger}"
    details = ", ".join(part for part in (state, rest) if part)
    return f"{cause} ({details})", remedy
