"""Shapes of `dashboard_facts` in which another application refuses the relay's facts, and what undoes them."""

from __future__ import annotations

from dataclasses import dataclass

RAISING = """
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'not this one: % %', NEW.value, NEW.metadata;
    END $$;
"""
DROPPING = "CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "


@dataclass(frozen=True, slots=True)
class Refusing:
    """`sql` makes the table refuse, `undo` makes it accept; `names` are what the reason must name.

    With `as_service` the relay runs as a login with `relay_service`, for the owner may do anything.
    """

    sql: str
    undo: str
    names: tuple[str, ...]
    as_service: bool = False


SHAPES: dict[str, Refusing] = {
    "unique constraint": Refusing(
        "ALTER TABLE dashboard_facts ADD CONSTRAINT one_of_a_kind UNIQUE (fact_type, scope)",
        "ALTER TABLE dashboard_facts DROP CONSTRAINT one_of_a_kind",
        ("23505", "one_of_a_kind"),
    ),
    "unique index": Refusing(
        "CREATE UNIQUE INDEX once ON dashboard_facts (fact_type, scope)", "DROP INDEX once", ("23505", "once")
    ),
    "deferred unique constraint": Refusing(
        "ALTER TABLE dashboard_facts ADD CONSTRAINT one_in_the_end UNIQUE (fact_type, scope) "
        "DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE dashboard_facts DROP CONSTRAINT one_in_the_end",
        ("23505", "one_in_the_end"),
    ),
    "short column": Refusing(
        "ALTER TABLE dashboard_facts ALTER COLUMN fact_type TYPE varchar(20)",
        "ALTER TABLE dashboard_facts ALTER COLUMN fact_type TYPE text",
        ("22001", "fact_type", "character varying(20)"),
    ),
    "check": Refusing(
        "ALTER TABLE dashboard_facts ADD CONSTRAINT ours_only CHECK (fact_type LIKE 'app.%') NOT VALID",
        "ALTER TABLE dashboard_facts DROP CONSTRAINT ours_only",
        ("23514", "ours_only"),
    ),
    "column that must be given": Refusing(
        "ALTER TABLE dashboard_facts ADD COLUMN shop text, ADD CONSTRAINT given CHECK (shop IS NOT NULL) NOT VALID",
        "ALTER TABLE dashboard_facts DROP COLUMN shop",
        ("23514", "given"),
    ),
    "not null": Refusing(
        "ALTER TABLE dashboard_facts ADD COLUMN shop text NOT NULL DEFAULT ''; "
        "ALTER TABLE dashboard_facts ALTER COLUMN shop DROP DEFAULT",
        "ALTER TABLE dashboard_facts DROP COLUMN shop",
        ("23502", "shop"),
    ),
    "foreign key": Refusing(
        "CREATE TABLE scopes (name text PRIMARY KEY); "
        "ALTER TABLE dashboard_facts ADD CONSTRAINT known_scope FOREIGN KEY (scope) REFERENCES scopes NOT VALID",
        "ALTER TABLE dashboard_facts DROP CONSTRAINT known_scope",
        ("23503", "known_scope"),
    ),
    "row-level security": Refusing(
        "ALTER TABLE dashboard_facts ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE dashboard_facts DISABLE ROW LEVEL SECURITY",
        ("42501", "dashboard_facts"),
        as_service=True,
    ),
    "no right to insert": Refusing(
        "REVOKE INSERT ON dashboard_facts FROM relay_service",
        "GRANT INSERT ON dashboard_facts TO relay_service",
        ("42501", "dashboard_facts"),
        as_service=True,
    ),
    "trigger": Refusing(
        RAISING.format(name="refuse") + "CREATE TRIGGER validate_facts BEFORE INSERT ON dashboard_facts "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
        "DROP TRIGGER validate_facts ON dashboard_facts",
        ("P0001", "validate_facts"),
    ),
    "deferred trigger": Refusing(
        RAISING.format(name="refuse_late") + "CREATE CONSTRAINT TRIGGER audit_facts AFTER INSERT ON dashboard_facts "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_late()",
        "DROP TRIGGER audit_facts ON dashboard_facts",
        ("P0001", "audit_facts"),
    ),
    "failed assertion": Refusing(
        RAISING.format(name="assert_ours").replace(
            "RAISE EXCEPTION 'not this one: % %', NEW.value, NEW.metadata", "ASSERT false"
        )
        + "CREATE TRIGGER ours BEFORE INSERT ON dashboard_facts FOR EACH ROW EXECUTE FUNCTION assert_ours()",
        "DROP TRIGGER ours ON dashboard_facts",
        ("P0004", "ours"),
    ),
    "trigger that drops rows": Refusing(
        DROPPING + "CREATE TRIGGER keep_ours BEFORE INSERT ON dashboard_facts FOR EACH ROW EXECUTE FUNCTION drop_row()",
        "DROP TRIGGER keep_ours ON dashboard_facts",
        ("RL002", "keep_ours"),
    ),
    "rule that drops rows": Refusing(
        "CREATE RULE nothing AS ON INSERT TO dashboard_facts DO INSTEAD NOTHING",
        "DROP RULE nothing ON dashboard_facts",
        ("RL002", "nothing"),
    ),
    "rule that writes them elsewhere": Refusing(
        "CREATE TABLE elsewhere (LIKE dashboard_facts INCLUDING ALL); "
        "CREATE RULE away AS ON INSERT TO dashboard_facts DO INSTEAD INSERT INTO elsewhere (fact_type, scope, value, "
        "metadata) VALUES (NEW.fact_type, NEW.scope, NEW.value, NEW.metadata)",
        "DROP RULE away ON dashboard_facts",
        ("RL002", "away"),
    ),
    "enum": Refusing(
        "CREATE TYPE kind AS ENUM ('a'); ALTER TABLE dashboard_facts ALTER COLUMN fact_type TYPE kind USING 'a'",
        "ALTER TABLE dashboard_facts ALTER COLUMN fact_type TYPE text",
        ("42804", "fact_type"),
    ),
}
UNREADABLE = {"enum"}
"""Shapes in which the relay cannot even read the table."""
