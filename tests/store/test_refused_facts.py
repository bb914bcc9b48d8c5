"""A fact that `dashboard_facts` refuses waits aside; its delivery ends once, and the agent is never called again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio

from relay.errors import SchemaError
from relay.forwarding import finisher
from relay.forwarding.finisher import Finisher
from relay.monitoring.alert_notifier import AlertNotifier
from relay.store import preflight
from relay.store.migrate import migrate
from tests.relay.test_command_serve import serving
from tests.relay.traces import seen_of
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay, until
from tests.store.tables import SHAPES, UNREADABLE, Refusing
from tests.store.test_late_facts import none_aside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.conftest import CommandLine
    from tests.postgres import Server

WORDS = "Confidential words of a customer"
_ASIDE = "SELECT fact_type, reason, refused FROM relay.facts_aside WHERE delivery_id = %s ORDER BY id"
_FIGURES = "SELECT count(*) FROM dashboard_facts WHERE fact_type = %s AND metadata ->> 'deliveryId' = %s"

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))


def payload(**more: Any) -> dict[str, Any]:
    """A message of a customer."""
    return {"event": "message_created", "id": 1, "content": WORDS, "conversation": {"id": 7}, **more}


@pytest.fixture
def service_login(any_migrated: str) -> Iterator[str]:
    """The DSN of a login with the rights of `relay_service`, in a migrated database."""
    name, admin = f"login_{uuid4().hex}", Rows(any_migrated)
    admin(f"CREATE ROLE {name} LOGIN IN ROLE relay_service")
    yield psycopg.conninfo.make_conninfo(any_migrated, user=name)
    admin(f"DROP ROLE {name}")


@pytest.fixture
def owner_rows(any_migrated: str) -> Iterator[Rows]:
    """Plain SQL as the owner of everything."""
    with Rows(any_migrated).connected() as rows:
        yield rows


@pytest_asyncio.fixture
async def run_relay(
    any_migrated: str, service_login: str, serve: Callable[..., RunningRelay], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[Refusing], Awaitable[RunningRelay]]]:
    """Starts a relay as the role that a shape is about. Its rounds over facts aside come without a pause."""
    monkeypatch.setattr(finisher, "_ROUND_S", 0.1)
    monkeypatch.setattr(Finisher, "interval_s", 0.1)
    monkeypatch.setattr(AlertNotifier, "interval_s", 0.1)

    async def start(shape: Refusing) -> RunningRelay:
        relay = serve(service_login if shape.as_service else any_migrated, chatwoot_webhook_max_attempts=1)
        return await relay.ready()

    yield start


@pytest.mark.parametrize(
    "shape", [s for n, s in SHAPES.items() if n not in UNREADABLE], ids=[n for n in SHAPES if n not in UNREADABLE]
)
async def test_under_a_running_relay_deliveries_end_and_their_facts_wait_aside_until_they_are_accepted(
    run_relay: Callable[[Refusing], Awaitable[RunningRelay]], agent: AgentStandIn, owner_rows: Rows, shape: Refusing
) -> None:
    relay = await run_relay(shape)
    await asyncio.to_thread(owner_rows, shape.sql)  # it waits for transactions of the relay, in this loop
    good, dead = (f"{kind}-{uuid4()}" for kind in ("good", "dead"))
    await relay.post(payload(), X_Chatwoot_Delivery="the first of its kind")
    agent.behave(Behaviour(status=400, times=1))
    assert (await relay.post(payload(), X_Chatwoot_Delivery="the first dead one")).status_code == 500
    answer = await relay.post(payload(), X_Chatwoot_Delivery=good)
    assert (answer.status_code, answer.json()["attempts"]) == (200, 1)
    agent.behave(Behaviour(status=400, times=1))
    assert (await relay.post(payload(), X_Chatwoot_Delivery=dead)).status_code == 500
    assert [len(seen_of(agent, delivery)) for delivery in (good, dead)] == [1, 1]
    states = owner_rows("SELECT delivery_id, state FROM relay.deliveries WHERE delivery_id = ANY(%s)", ([good, dead],))
    assert dict(states) == {good: "delivered", dead: "dead"}
    aside = owner_rows(_ASIDE, (dead,))
    assert [fact_type for fact_type, _, _ in aside] == ["support.webhook.retry", "support.webhook.dead_letter"]
    for _, reason, refused in [*aside, *owner_rows(_ASIDE, (good,))]:
        assert refused
        assert [name for name in shape.names if name not in reason] == [], reason
        assert WORDS not in reason
    kept = owner_rows.one(
        "SELECT value -> 'payload' ->> 'content' FROM relay.facts_aside "
        "WHERE fact_type = 'support.webhook.dead_letter' AND delivery_id = %s", (dead,),
    )  # fmt: skip
    assert kept == WORDS

    health = (await relay.client.get("/health")).json()
    assert health["facts"]["ok"] is False
    assert [name for name in shape.names if name not in health["facts"]["reason"]] == []
    await until(lambda: owner_rows("SELECT 1 FROM relay.alerts WHERE rule = 'facts-aside-p1'"), what="the alert")
    metrics = (await relay.client.get("/metrics")).text
    assert 'relay_alert_firing{rule="facts-aside-p1",severity="P1"} 1.0' in metrics
    assert "Postgres is away" not in relay.output
    assert WORDS not in relay.output

    await asyncio.to_thread(owner_rows, shape.undo)
    await until(lambda: none_aside(owner_rows), what="the facts move over")
    assert owner_rows.one(_FIGURES, ("support.webhook.dead_letter", dead)) == 1
    assert owner_rows.one(
        "SELECT f.recorded_at < now() - interval '1 ms' AND d.finished_at - f.recorded_at < interval '1 s' "
        "FROM dashboard_facts f JOIN relay.deliveries d ON d.delivery_id = f.metadata ->> 'deliveryId' "
        "WHERE f.fact_type = 'support.webhook.dead_letter' AND d.delivery_id = %s", (dead,),
    )  # fmt: skip
    assert (await relay.client.get("/health")).json()["facts"]["ok"] is True


@shapes
async def test_at_the_start_what_no_finish_could_record_is_one_line_and_leaves_nothing(
    any_migrated: str, service_login: str, owner_rows: Rows, shape: Refusing
) -> None:
    owner_rows(shape.sql)
    with pytest.raises(SchemaError) as refused:
        await preflight.check(service_login if shape.as_service else any_migrated)
    line = str(refused.value)
    assert line.startswith("dashboard_facts refuses facts that the relay must record")
    assert [name for name in (*shape.names, "Remedy: ") if name not in line] == [], line
    assert "\n" not in line
    left = "SELECT count(*) FROM relay.deliveries UNION ALL SELECT count(*) FROM relay.facts_aside"
    assert owner_rows(left) == [0, 0]
    assert owner_rows("SELECT count(*) FROM dashboard_facts") == [0]


async def test_a_database_that_takes_everything_passes_and_nothing_of_the_check_stays(
    any_migrated: str, service_login: str, owner_rows: Rows
) -> None:
    await preflight.check(any_migrated)
    await preflight.check(service_login)
    for table in ("dashboard_facts", "relay.deliveries", "relay.attempts", "relay.minutes", "relay.facts_aside"):
        assert owner_rows(f"SELECT count(*) FROM {table}") == [0], table


@pytest.mark.parametrize(
    "revoked",
    [
        "INSERT ON relay.attempts",
        "UPDATE ON relay.deliveries",
        "INSERT ON relay.facts_aside",
        "EXECUTE ON FUNCTION relay.write_facts",
    ],
)
async def test_at_the_start_a_right_that_every_finish_needs_is_named(
    service_login: str, owner_rows: Rows, revoked: str
) -> None:
    owner_rows(f"REVOKE {revoked} FROM relay_service")
    with pytest.raises(SchemaError, match=f"permission denied for .*{revoked.rpartition('.')[2]}"):
        await preflight.check(service_login)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_serve_refuses_such_a_table_in_one_line_with_exit_2(
    relay_command: CommandLine, rows: Rows, workers: str
) -> None:
    shape = SHAPES["deferred trigger"]
    rows(shape.sql)
    ended = await relay_command.run("serve", "--bind", "127.0.0.1:0", "--workers", workers)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("relay: dashboard_facts refuses facts")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_relay_that_waited_for_postgres_refuses_in_one_line_once_it_is_there(
    relay_command: CommandLine, server: Server, workers: str
) -> None:
    await migrate(server.dsn)
    server.rows(SHAPES["check"].sql)
    server.stop()
    with serving(relay_command, "--bind", "127.0.0.1:0", "--workers", workers, DATABASE_URL=server.dsn) as (
        process,
        output,
    ):
        await until(lambda: "Relay is listening" in output.read_text(encoding="utf-8"))
        server.start()
        assert await asyncio.to_thread(process.wait, 60) == 2
    text = output.read_text(encoding="utf-8")
    refusals = [line for line in text.splitlines() if line.startswith("relay: dashboard_facts refuses facts")]
    assert len(refusals) == 1
    assert "Traceback" not in text
    assert "defect" not in text
