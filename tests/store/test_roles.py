"""The roles: a relay runs with the rights of `relay_service`, a console with fewer, and a reader's reads alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from relay.store import actions, destinations, overview, replays
from relay.store.database import connection_parameters
from relay.store.filters import compile_filter
from relay.store.migrate import migrate
from relay.store.replays import Control, PlanRequest
from relay.store.retention import retire
from relay.store.storing import store
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay, until
from tests.store.test_adoption import TABLES
from tests.store.values import incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from relay.store.database import Connection
    from tests.conftest import CommandLine
    from tests.store.plant import Plant


@pytest.fixture
def login(postgres: str) -> Iterator[Callable[[str, str], str]]:
    """Makes a login that is granted a role, and nothing besides; gives the DSN to use it with."""
    admin, made = Rows(postgres), []

    def make(role: str, dsn: str) -> str:
        made.append(f"login_{uuid4().hex}")
        admin(f"CREATE ROLE {made[-1]} LOGIN IN ROLE {role}")
        return psycopg.conninfo.make_conninfo(dsn, user=made[-1])

    yield make
    for name in made:
        admin(f"DROP ROLE {name}")


async def deliver_fail_replay_and_discard(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows, operator_dsn: str
) -> None:
    """Everything that a relay does for its webhooks, with an operator who asks for the last two."""
    assert (await relay.post({"event": "message_created", "id": 1})).status_code == 200
    agent.behave(Behaviour(status=400, times=2))
    for number in (2, 3):
        assert (await relay.post({"event": "message_created", "id": number})).status_code == 500
    async with connected(operator_dsn) as connection:
        first, second = await replays.matching(connection, compile_filter("state:dead"))
        plan = await replays.ask(connection, PlanRequest(uuid4(), "maria", canary=1, rate=50), [first])
        await until(lambda: rows("SELECT 1 FROM relay.replay_plans WHERE id = %s AND state = 'done'", (plan,)))
        await actions.discard(connection, [second.id], "maria", "spam")
        await until(lambda: rows("SELECT 1 FROM relay.discards WHERE applied_at IS NOT NULL"))
    assert rows("SELECT state FROM relay.deliveries ORDER BY id") == ["delivered", "delivered", "discarded"]
    await until(lambda: rows("SELECT 1 FROM relay.log"))


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection, as the store's functions take it."""
    async with await psycopg.AsyncConnection.connect(autocommit=True, **connection_parameters(dsn, "tests")) as opened:
        yield opened


async def test_a_relay_releases_destinations_and_an_operator_redirects_with_their_roles(
    dsn: str, login: Callable[[str, str], str], rows: Rows
) -> None:
    gone, live = "http://gone/webhooks/chatwoot", "http://live/webhooks/chatwoot"
    async with connected(login("relay_service", dsn)) as relay, connected(login("console_operator", dsn)) as operator:
        await store(relay, uuid4(), [replace(incoming(), order_key="1/7", wanted=False) for _ in range(2)])
        rows("UPDATE relay.deliveries SET destination = %s", (gone,))
        await destinations.refresh(relay)
        assert [one.destination for one in await destinations.gone(operator)] == [gone]
        assert await destinations.redirect(operator, "maria", "it is gone", gone, live) == 2
        assert await destinations.gone(operator) == []


async def test_a_step_gives_the_roles_their_rights_where_they_are_in_use(empty_dsn: str) -> None:
    rows = Rows(empty_dsn)
    may = "SELECT has_table_privilege('console_reader', 'relay.redirects', 'SELECT')"
    for roles, given in ((False, False), (True, True), (False, True)):
        rows("DROP TABLE IF EXISTS relay.redirects")
        if rows.one("SELECT to_regclass('relay.schema_migrations') IS NOT NULL"):
            rows("DELETE FROM relay.schema_migrations WHERE version = 96")
        await migrate(empty_dsn, roles=roles)
        assert rows(may) == [given], roles


async def test_a_login_with_relay_service_can_run_a_whole_relay(
    dsn: str,
    login: Callable[[str, str], str],
    serve: Callable[..., RunningRelay],
    agent: AgentStandIn,
    rows: Rows,
) -> None:
    relay = await serve(login("relay_service", dsn)).ready()
    await deliver_fail_replay_and_discard(relay, agent, rows, login("console_operator", dsn))
    assert "A service failed" not in relay.output
    assert (await relay.client.get("/metrics")).status_code == 200


@pytest.mark.parametrize("table", ["serial id", "integer id that the writer supplies", "uuid id", "no id"])
async def test_it_can_beside_a_table_of_another_application(
    empty_dsn: str,
    login: Callable[[str, str], str],
    serve: Callable[..., RunningRelay],
    agent: AgentStandIn,
    table: str,
) -> None:
    rows = Rows(empty_dsn)
    rows(f"CREATE TABLE dashboard_facts ({TABLES[table][0]})")
    await migrate(empty_dsn, roles=True)
    relay = await serve(login("relay_service", empty_dsn)).ready()
    await deliver_fail_replay_and_discard(relay, agent, rows, login("console_operator", empty_dsn))


async def test_it_can_in_a_schema_that_others_may_not_use(
    empty_dsn: str,
    login: Callable[[str, str], str],
    serve: Callable[..., RunningRelay],
    agent: AgentStandIn,
) -> None:
    dsn = psycopg.conninfo.make_conninfo(empty_dsn, options="-c search_path=hotdash")
    Rows(dsn)("CREATE SCHEMA hotdash")
    await migrate(dsn, roles=True)
    relay = await serve(login("relay_service", dsn)).ready()
    await deliver_fail_replay_and_discard(relay, agent, Rows(dsn), login("console_operator", dsn))


async def test_relay_service_may_retire_what_is_old(
    login: Callable[[str, str], str], dsn: str, plant: Plant, rows: Rows
) -> None:
    plant.delivery("delivered", age_s=9_000)
    plant.runs(delivered=2, age_s=9_000)
    async with connected(login("relay_service", dsn)) as connection:
        assert await retire(connection, timedelta(hours=1)) == 3
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


async def test_an_operator_asks_for_replays_and_controls_them(
    login: Callable[[str, str], str], dsn: str, plant: Plant, rows: Rows
) -> None:
    plant.delivery("dead")
    async with connected(login("console_operator", dsn)) as connection:
        await overview.read(connection)
        letters = await replays.matching(connection, compile_filter("status:503 !payload.event:nothing"))
        request = PlanRequest(uuid4(), "maria", reason="fixed", filter="status:503", edited_body=b"{}", stop_after=3)
        plan = await replays.ask(connection, request, letters)
        assert await replays.ask(connection, request, letters) == plan
        await replays.control(connection, plan, Control.PAUSE, operator="maria")
    assert rows("SELECT operator, action, plan_id FROM relay.operator_actions ORDER BY id") == [
        ("maria", "replay", plan), ("maria", "replay.pause", plan),
    ]  # fmt: skip


_TAMPERING = [
    "UPDATE relay.deliveries SET state = 'delivered'",
    "UPDATE relay.deliveries SET body = '{}'",
    "DELETE FROM relay.deliveries",
    """INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, headers, body)
       VALUES ('x', 'dead', gen_random_uuid(), false, false, '[]', '')""",
    "INSERT INTO dashboard_facts (fact_type, scope, value) VALUES ('support.webhook.retry', 's', '{}')",
    "UPDATE dashboard_facts SET value = '{}'",
    "DELETE FROM dashboard_facts",
    "TRUNCATE dashboard_facts",
    "DELETE FROM relay.minutes",
    "UPDATE relay.replay_plans SET state = 'done'",
    "INSERT INTO relay.replay_plans (request_id, requested_by, state) VALUES (gen_random_uuid(), 'm', 'done')",
    "UPDATE relay.replay_items SET state = 'delivered'",
    "DELETE FROM relay.operator_actions",
    "UPDATE relay.operator_actions SET operator = 'another operator'",
    "INSERT INTO relay.operator_actions (operator, action, applied_at) VALUES ('m', 'discard', now())",
    "INSERT INTO relay.operator_actions (operator, action, at) VALUES ('m', 'note', '2000-01-01')",
    "UPDATE relay.instances SET lease_until = '-infinity'",
    "DELETE FROM relay.attempts",
    "DELETE FROM relay.log",
    "INSERT INTO relay.duties VALUES ('probes', gen_random_uuid(), 'infinity')",
    "CREATE TABLE relay.own (n int)",
    "DROP TABLE relay.attempts",
    "INSERT INTO relay.replay_plans (request_id, requested_by) VALUES (gen_random_uuid(), 'maria')",
    "INSERT INTO relay.replay_items (plan_id, position, delivery, run) VALUES (1, 1, 1, 1)",
    "INSERT INTO relay.operator_actions (operator, action) VALUES ('maria', 'discard')",
]
_ASKING = [
    "SELECT relay.ask_replay(gen_random_uuid(), 'm', '', '', NULL, 0, 0, NULL, '{}', '{}')",
    "SELECT relay.ask_discard('{}', 'm', '')",
    "SELECT relay.record_action('m', 'note', '', '{}')",
]


def test_an_operator_can_tamper_with_nothing(login: Callable[[str, str], str], dsn: str, plant: Plant) -> None:
    plant.delivery("dead")
    with psycopg.connect(login("console_operator", dsn), autocommit=True) as connection:
        for statement in _TAMPERING:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        for statement in _ASKING:
            connection.execute(statement.encode())


async def test_a_reader_reads_and_can_write_nothing_at_all(
    login: Callable[[str, str], str], dsn: str, plant: Plant
) -> None:
    plant.delivery("dead")
    async with connected(login("console_reader", dsn)) as connection:
        assert (await overview.read(connection)).open_dead_letters == 1
        assert len(await replays.matching(connection, compile_filter("payload.event:message*"))) == 1
        for statement in [*_TAMPERING, *_ASKING]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement.encode())


def test_a_relay_cannot_change_the_schema_or_rewrite_its_history(login: Callable[[str, str], str], dsn: str) -> None:
    with psycopg.connect(login("relay_service", dsn), autocommit=True) as connection:
        for statement in (
            "DROP TABLE relay.attempts",
            "ALTER TABLE dashboard_facts ADD COLUMN more text",
            "UPDATE dashboard_facts SET value = '{}'",
            "DELETE FROM relay.schema_migrations",
            "CREATE TABLE relay.own (n int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_the_roles_themselves_cannot_log_in(postgres: str) -> None:
    found = Rows(postgres)(
        "SELECT rolname, rolcanlogin OR rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles "
        "WHERE rolname IN ('relay_service', 'console_operator', 'console_reader')"
    )
    assert dict(found) == {"relay_service": False, "console_operator": False, "console_reader": False}


async def test_a_schema_where_any_login_may_create_functions_is_named(any_dsn: str, relay_command: CommandLine) -> None:
    Rows(any_dsn)("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # version 13 and 14 grant it
    closed = await relay_command.run("migrate", "--roles", DATABASE_URL=any_dsn)
    assert "any login may create" not in closed.stderr
    Rows(any_dsn)("GRANT CREATE ON SCHEMA public TO PUBLIC")
    named = await relay_command.run("migrate", "--roles", DATABASE_URL=any_dsn)
    assert named.returncode == 0
    assert "relay: any login may create functions in the schema public" in named.stderr
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in named.stderr
    assert len(named.stderr.splitlines()) == 2


_DEFAULTS = """
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
"""
_FOR_ROLES = _DEFAULTS.replace("PUBLIC", "console_reader")
_WIDE = """
    SELECT DISTINCT privilege || ' ' || c.oid::regclass FROM pg_class c,
           unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
     WHERE c.relnamespace = 'relay'::regnamespace AND c.relkind IN ('r', 'p', 'v')
       AND has_table_privilege('console_reader', c.oid, privilege)
     UNION
    SELECT 'USAGE ' || c.oid::regclass FROM pg_class c
     WHERE CASE WHEN c.relnamespace = 'relay'::regnamespace AND c.relkind = 'S'
                THEN has_sequence_privilege('console_reader', c.oid, 'USAGE,UPDATE') END
     UNION
    SELECT 'PUBLIC ' || nspname FROM pg_namespace WHERE nspname = 'relay' AND EXISTS (
           SELECT FROM aclexplode(nspacl) WHERE grantee = 0)
"""


async def test_default_privileges_of_the_owner_open_no_table_and_those_of_the_facts_are_said(
    any_dsn: str, relay_command: CommandLine
) -> None:
    rows = Rows(any_dsn)
    try:
        await migrate(any_dsn, roles=True)  # makes the roles, which belong to the server
        for defaults in (_DEFAULTS, _FOR_ROLES):
            rows("DROP SCHEMA relay CASCADE")
            rows("DROP TABLE dashboard_facts")
            rows(defaults)
            ended = await relay_command.run("migrate", "--roles", DATABASE_URL=any_dsn)
            assert ended.returncode == 0, ended.stderr
            assert rows(_WIDE) == []
            assert ("dashboard_facts is open to PUBLIC" in ended.stderr) is (defaults == _DEFAULTS)
            for statement in defaults.replace("GRANT", "REVOKE").replace(" TO ", " FROM ").split(";")[:3]:
                rows(statement)
        rows("GRANT SELECT ON dashboard_facts TO PUBLIC")
        rows("GRANT ALL ON relay.log TO PUBLIC")
        rows("DELETE FROM relay.schema_migrations WHERE version = 160")
        await migrate(any_dsn)
        assert rows(_WIDE) == []
    finally:
        rows("DROP SCHEMA relay CASCADE")


_PLANTS = {
    "FUNCTION public.to_timestamp(bigint)": "function to_timestamp(bigint)",
    "OPERATOR public.= (oid, regclass)": "operator =(oid,regclass)",
}
_PLANTED = """
    CREATE FUNCTION public.to_timestamp(bigint) RETURNS timestamptz LANGUAGE sql AS 'SELECT now()';
    CREATE FUNCTION public.same(oid, regclass) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = oid, RIGHTARG = regclass);
"""


async def test_the_owners_commands_refuse_beside_a_function_that_a_plain_login_planted(
    any_dsn: str, relay_command: CommandLine
) -> None:
    await migrate(any_dsn, roles=True)
    rows, name = Rows(any_dsn), f"login_{uuid4().hex}"
    rows("GRANT CREATE ON SCHEMA public TO PUBLIC")
    rows(f"CREATE ROLE {name} LOGIN")
    try:
        with psycopg.connect(psycopg.conninfo.make_conninfo(any_dsn, user=name)) as connection:
            connection.execute(_PLANTED.encode())
        for what, shown in _PLANTS.items():
            for command in (("migrate",), ("fsck",), ("erase", "--contact", "1")):
                ended = await relay_command.run(*command, DATABASE_URL=any_dsn)
                assert ended.returncode != 0, (what, command)
                assert f"the login {name} made the {shown}, which may run" in ended.stderr, (what, command)
                assert len(ended.stderr.splitlines()) == 1
            assert (
                await relay_command.run("erase", "--contact", "1", "--dry-run", DATABASE_URL=any_dsn)
            ).returncode == 0
            rows(f"DROP {what}")
        assert (await relay_command.run("fsck", DATABASE_URL=any_dsn)).returncode == 0
    finally:
        rows(f"DROP OWNED BY {name}")
        rows(f"DROP ROLE {name}")
