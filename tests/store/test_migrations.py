"""Migrations: safe to run again, at once, and beside other users of the database; clear errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

from relay.errors import SchemaError, StoreUnavailable
from relay.store import preflight
from relay.store.database import connection_parameters
from relay.store.migrate import migrate, migrations, schema_version
from tests.schema import apply
from tests.servers import Rows, RunningRelay, free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOCK = 0x686F74646173
_VERSIONS = [step.version for step in migrations()]
_HISTORY = "SELECT version FROM relay.schema_migrations ORDER BY version"
_INDEXES = """
    SELECT indexrelid::regclass::text, indisvalid FROM pg_index
     WHERE indrelid = 'dashboard_facts'::regclass AND NOT indisprimary
"""


@pytest.fixture
def poor_login(postgres: str, empty_dsn: str) -> Iterator[str]:
    """The DSN of a login that may connect to the test's database and nothing else."""
    name, admin = f"poor_{uuid4().hex}", Rows(postgres)
    admin(f"CREATE ROLE {name} LOGIN")
    yield psycopg.conninfo.make_conninfo(empty_dsn, user=name)
    Rows(empty_dsn)(f"DROP OWNED BY {name}")
    admin(f"DROP ROLE {name}")


async def test_a_fresh_database_gets_every_step_once_and_the_second_run_does_nothing(empty_dsn: str) -> None:
    steps: list[int] = []
    applied = await migrate(empty_dsn, on_step=lambda step: steps.append(step.version))
    assert [step.version for step in applied] == steps == _VERSIONS == Rows(empty_dsn)(_HISTORY)
    assert await migrate(empty_dsn, roles=True) == []
    assert await migrate(empty_dsn, roles=True) == []


async def test_the_schemas_version_is_reported(empty_dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(**connection_parameters(empty_dsn, "tests")) as connection:
        assert await schema_version(connection) == 0
        await connection.rollback()
        await migrate(empty_dsn)
        assert await schema_version(connection) == max(_VERSIONS)


async def test_a_history_that_another_relay_makes_during_a_transaction_is_seen(empty_dsn: str) -> None:
    given = connection_parameters(empty_dsn, "tests")
    async with (
        await psycopg.AsyncConnection.connect(**given) as connection,
        await psycopg.AsyncConnection.connect(autocommit=True, **given) as other,
    ):
        assert await schema_version(connection) == 0
        await connection.rollback()
        await connection.execute("SELECT 1")
        await apply(other, migrations()[:1])
        assert await schema_version(connection) == 1


async def test_relays_that_migrate_at_once_apply_each_step_once(empty_dsn: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_dsn, roles=True) for _ in range(6)))
    assert sorted(step.version for steps in applied for step in steps) == _VERSIONS
    assert Rows(empty_dsn)(_HISTORY) == _VERSIONS


async def test_a_step_that_does_not_apply_leaves_nothing_and_can_be_tried_again(empty_dsn: str) -> None:
    rows = Rows(empty_dsn)
    rows("CREATE SCHEMA relay")
    rows("CREATE TABLE relay.minutes (in_the_way int)")
    with pytest.raises(SchemaError, match="minutes"):
        await migrate(empty_dsn)
    assert rows("SELECT proname FROM pg_proc WHERE pronamespace = 'relay'::regnamespace") == []
    rows("DROP TABLE relay.minutes")
    await migrate(empty_dsn)
    assert rows(_HISTORY) == _VERSIONS


async def test_an_index_whose_building_was_interrupted_is_built_anew_and_others_are_left_alone(empty_dsn: str) -> None:
    rows = Rows(empty_dsn)
    rows("CREATE TABLE dashboard_facts (id serial PRIMARY KEY, fact_type text, value jsonb)")
    rows("INSERT INTO dashboard_facts (fact_type) VALUES ('a'), ('a')")
    for name in ("dashboard_facts_type_time", "of_another_program"):
        with pytest.raises(psycopg.errors.UniqueViolation):
            rows(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON dashboard_facts (fact_type)")
    assert dict(rows(_INDEXES)) == {"dashboard_facts_type_time": False, "of_another_program": False}
    await migrate(empty_dsn)
    assert dict(rows(_INDEXES)) == {"dashboard_facts_type_time": True, "of_another_program": False}


@pytest.mark.parametrize("access", ["SELECT count(*) FROM dashboard_facts", "DELETE FROM dashboard_facts"])
async def test_a_migration_that_has_to_wait_keeps_no_writer_waiting_with_it(empty_dsn: str, access: str) -> None:
    rows = Rows(psycopg.conninfo.make_conninfo(empty_dsn, options="-c statement_timeout=60s"))
    rows("CREATE TABLE dashboard_facts (id serial PRIMARY KEY, fact_type text, scope text, value jsonb)")
    with psycopg.connect(empty_dsn) as long_transaction:
        long_transaction.execute(access.encode())
        migrating = asyncio.create_task(migrate(empty_dsn))
        await until(lambda: rows("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'dashboard_facts'::regclass"))
        for _ in range(3):
            await asyncio.to_thread(rows, "INSERT INTO dashboard_facts (fact_type) VALUES ('another writer')")
        assert not migrating.done()
    await migrating
    assert rows("SELECT count(*) FROM dashboard_facts WHERE fact_type = 'another writer'") == [3]


async def test_a_login_that_may_create_nothing_gets_a_clear_error(poor_login: str, empty_dsn: str) -> None:
    with pytest.raises(SchemaError, match="permission denied"):
        await migrate(poor_login)
    assert Rows(empty_dsn)("SELECT to_regclass('dashboard_facts'), to_regnamespace('relay')") == [(None, None)]


async def test_a_login_that_may_create_nothing_can_start_on_a_migrated_database(
    poor_login: str, empty_dsn: str
) -> None:
    await migrate(empty_dsn, roles=True)
    name = psycopg.conninfo.conninfo_to_dict(poor_login)["user"]
    Rows(empty_dsn)(f"GRANT relay_service TO {name}")
    assert await migrate(poor_login) == []


async def test_a_database_that_is_not_in_utf8_is_refused(postgres: str) -> None:
    name, admin = f"latin_{uuid4().hex}", Rows(postgres)
    admin(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(SchemaError, match=r"LATIN1.*UTF8"):
            await migrate(psycopg.conninfo.make_conninfo(postgres, dbname=name))
    finally:
        admin(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)).as_string())


async def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await migrate(f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
    with pytest.raises(StoreUnavailable):
        await migrate(f"postgresql://postgres@/postgres?host={tmp_path}")


async def test_a_waiting_migration_does_its_part_when_the_other_one_dies(empty_dsn: str) -> None:
    rows = Rows(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        migrating = asyncio.create_task(migrate(empty_dsn))
        await until(lambda: rows("SELECT 1 FROM pg_stat_activity WHERE application_name = 'hotdash-relay migrate'"))
        assert not migrating.done()
        rows("SELECT pg_terminate_backend(%s)", (other.info.backend_pid,))
        assert [step.version for step in await migrating] == _VERSIONS


@pytest.mark.usefixtures("impatient_store")
async def test_a_relay_without_its_tables_says_so_until_it_has_them(
    empty_dsn: str, serve: Callable[..., RunningRelay]
) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        relay = serve(empty_dsn)
        unhealthy = await until(lambda: _answer(relay, "/health"))
        assert unhealthy.status_code == 503
        assert "no tables" in unhealthy.json()["database"]["error"]
        assert "relay_database_up 0.0" in (await relay.client.get("/metrics")).text
        assert (await relay.post({"event": "message_created"})).status_code == 503
    await relay.ready()
    assert (await relay.post({"event": "message_created"})).status_code == 200


async def _answer(relay: RunningRelay, path: str) -> httpx.Response | None:
    try:
        return await relay.client.get(path)
    except httpx.TransportError:
        return None


async def test_a_login_that_holds_the_lock_is_named_and_delays_no_start_on_a_migrated_database(empty_dsn: str) -> None:
    said: list[str] = []
    async with await psycopg.AsyncConnection.connect(
        empty_dsn, autocommit=True, application_name="a stranger's"
    ) as holder:
        await holder.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        waiting = asyncio.create_task(migrate(empty_dsn, on_wait=said.append))
        await until(lambda: said)
        assert [part for part in (f"process {holder.info.backend_pid}", "a stranger's") if part not in said[0]] == []
        await holder.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
        assert await waiting
        await holder.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        assert await migrate(empty_dsn) == []


async def test_a_dashboard_facts_that_was_made_again_is_counted_after_the_next_migration(dsn: str, rows: Rows) -> None:
    rows("DROP TABLE dashboard_facts")
    rows(
        "CREATE TABLE dashboard_facts (id bigserial, fact_type text, scope text, value jsonb, metadata jsonb, "
        "recorded_at timestamptz DEFAULT now())"
    )
    fact = "INSERT INTO dashboard_facts (fact_type, scope, value) VALUES ('support.webhook.retry', 'support', '{}')"
    counted = "SELECT coalesce(sum(facts), 0)::int FROM {}"
    rows(fact)
    with pytest.raises(SchemaError, match="The figures do not count"):
        await preflight.check(dsn)
    await migrate(dsn)
    rows(fact)
    assert [rows.one(counted.format(table)) for table in ("relay.minutes", "relay.hours")] == [2, 2]
    await preflight.check(dsn)
