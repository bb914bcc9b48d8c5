"""A trigger of `dashboard_facts` that harms the session itself: the start names what it does, in one true line."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.errors import FactsRefused, StoreUnavailable
from relay.store import preflight
from relay.store.database import Database
from relay.store.migrate import migrate
from tests.servers import Rows, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import CommandLine
    from tests.servers import RunningRelay
    from tests.store.plant import Plant

_FUNCTION = "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$; "
_BEFORE = "CREATE TRIGGER spoils BEFORE INSERT ON dashboard_facts FOR EACH ROW EXECUTE FUNCTION spoil()"
_DEFERRED = (
    "CREATE CONSTRAINT TRIGGER spoils AFTER INSERT ON dashboard_facts DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION spoil()"
)
_ENDS = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(9);"
_CANCELS = "RAISE EXCEPTION 'no' USING ERRCODE = '57014';"
EFFECTS = {
    "read-only by default": ("SET default_transaction_read_only = on;", "default_transaction_read_only = on"),
    "read-only": ("SET transaction_read_only = on;", "read-only"),
    "isolation": (
        "SET default_transaction_isolation = 'serializable';",
        "default_transaction_isolation = serializable",
    ),
    "no time": ("SET statement_timeout = '1ms';", "statement_timeout"),
    "more time": ("SET statement_timeout = 0;", "statement_timeout = 0"),
    "another path": ("SET search_path = 'nowhere';", "search_path = nowhere"),
    "triggers off": ("SET session_replication_role = replica;", "session_replication_role = replica"),
    "cancels": (_CANCELS, "cancels the statements that record facts (57014)"),
    "conflicts": ("RAISE EXCEPTION 'no' USING ERRCODE = '40001';", "cancels the statements that record facts (40001)"),
    "ends the session": (_ENDS, "inserting one ends the database session"),
    "only of dead letters": (
        f"IF NEW.fact_type = 'support.webhook.dead_letter' THEN {_ENDS} END IF;",
        "inserting one ends the database session",
    ),
}


@pytest.mark.parametrize("trigger", [_BEFORE, _DEFERRED], ids=["before", "deferred"])
@pytest.mark.parametrize("effect", EFFECTS)
async def test_the_start_names_the_effect_of_a_trigger(any_migrated: str, effect: str, trigger: str) -> None:
    does, named = EFFECTS[effect]
    Rows(any_migrated)(_FUNCTION.format(does) + trigger)
    with pytest.raises(FactsRefused) as refused:
        await preflight.check(any_migrated)
    line = str(refused.value)
    assert [
        part for part in (named, "spoils" if effect != "read-only" else "trigger", "Remedy: ") if part not in line
    ] == []
    assert "\n" not in line


_AFTER = "CREATE TRIGGER spoils AFTER INSERT ON dashboard_facts FOR EACH ROW EXECUTE FUNCTION spoil()"
_ALTERS = {
    "NEW.value := '{}';": _BEFORE,
    "NEW.fact_type := 'app.' || NEW.fact_type;": _BEFORE,
    "NEW.metadata := '{\"test\": true}';": _BEFORE,
    "DELETE FROM dashboard_facts WHERE id = NEW.id;": _AFTER,
}


async def test_the_start_names_a_trigger_that_changes_or_removes_facts_and_no_other(any_migrated: str) -> None:
    rows = Rows(any_migrated)
    drop = "DROP FUNCTION spoil CASCADE"
    for does, trigger in _ALTERS.items():
        rows(_FUNCTION.format(does) + trigger)
        with pytest.raises(FactsRefused, match="trigger spoils of dashboard_facts changes the facts") as refused:
            await preflight.check(any_migrated)
        assert "\n" not in str(refused.value), does
        rows(drop)
    rows("CREATE TABLE copies (LIKE dashboard_facts)")
    for does in ("NEW.value := NEW.value || '{\"shop\": 1}';", "INSERT INTO copies SELECT NEW.*;"):
        rows(_FUNCTION.format(does) + _BEFORE)
        await preflight.check(any_migrated)
        rows(drop)


async def test_a_slow_trigger_passes(any_migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Rows(any_migrated)(_FUNCTION.format("PERFORM pg_sleep(0.4);") + _BEFORE)
    monkeypatch.setattr(preflight, "_LIMIT_MS", 300)
    monkeypatch.setattr("relay.store.effects._RAISED_WITHIN_S", 0.1)
    await preflight.check(any_migrated)


async def test_a_table_without_a_partition_for_the_present_is_named_with_its_remedy(any_dsn: str) -> None:
    rows = Rows(any_dsn)
    rows(
        "CREATE TABLE dashboard_facts (id bigint GENERATED ALWAYS AS IDENTITY, fact_type text NOT NULL, "
        "scope text NOT NULL, value jsonb NOT NULL, metadata jsonb, recorded_at timestamptz NOT NULL DEFAULT now()) "
        "PARTITION BY RANGE (recorded_at)"
    )
    rows("CREATE TABLE f2020 PARTITION OF dashboard_facts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')")
    await migrate(any_dsn)
    with pytest.raises(FactsRefused) as refused:
        await preflight.check(any_dsn)
    assert "no partition of dashboard_facts takes them (23514)" in str(refused.value)
    assert "CREATE TABLE … PARTITION OF dashboard_facts DEFAULT" in str(refused.value)
    rows("CREATE TABLE rest PARTITION OF dashboard_facts DEFAULT")
    await preflight.check(any_dsn)


_REFUSE = "ALTER TABLE dashboard_facts ADD CONSTRAINT ours_only CHECK (fact_type LIKE 'app.%') NOT VALID"


async def test_a_relay_that_has_run_before_starts_and_says_so_though_facts_are_refused(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows, plant: Plant, relay_command: CommandLine
) -> None:
    rows(_REFUSE)
    plant.delivery("delivered")
    relay = await start_relay()
    assert "The relay starts although dashboard_facts does not take facts" in relay.output
    answer = await relay.post({"event": "message_created", "id": 1, "conversation": {"id": 7}})
    assert answer.status_code == 200
    facts = (await relay.client.get("/health")).json()["facts"]
    assert (
        facts["ok"],
        "ours_only" in facts["reason"],
        "DROP CONSTRAINT" in facts["remedy"] or "drop the" in facts["remedy"],
    ) == (
        False,
        True,
        True,
    )
    await until(lambda: rows("SELECT 1 FROM relay.alerts WHERE rule = 'facts-aside-p1'"), what="the alert")
    found = await relay_command.run("diagnose", AGENT_SDK_URL=relay.settings.agent_sdk_url)
    assert "ours_only" in found.stdout
    assert await asyncio.to_thread(rows, "SELECT count(*) > 0 FROM relay.facts_aside") == [True]


async def test_a_session_that_was_left_without_time_is_given_up(dsn: str) -> None:
    database = Database(dsn, max_size=1)
    await database.open()
    try:
        async with database.connection() as connection:
            spoiled = connection.info.backend_pid
            await connection.execute("SET statement_timeout = '1ms'")
        with pytest.raises((StoreUnavailable, psycopg.errors.QueryCanceled)):
            async with database.connection() as connection:
                await connection.execute("SELECT pg_sleep(9)")
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(0.01)")
            assert connection.info.backend_pid != spoiled
    finally:
        await database.close()
