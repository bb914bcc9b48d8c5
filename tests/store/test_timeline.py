"""The timeline: what an incident left in the tables, in one list by time; its text is clean and its times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from relay.incident.timeline import Kind, assemble
from relay.store import alerts, gate, timeline
from relay.store.instances import Instance, end, register
from tests.store.plant import REJECTED

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant

DAY = timedelta(days=1)


async def texts(connection: Connection, kind: Kind, since: timedelta = DAY) -> list[str]:
    """The entries of one kind since then, oldest first, as text."""
    history = await timeline.read(connection, datetime.now(UTC) - since)
    return [one.text for one in assemble(history) if one.kind is kind]


async def test_failures_are_listed_from_their_first_to_their_last(connection: Connection, plant: Plant) -> None:
    for age_s in (7_200, 7_100, 7_000, 900, 890):
        plant.runs(failed=2, age_s=age_s)
    plant.facts(REJECTED, {"reason": "invalid_signature", "status": 401, "count": 7}, age_s=600)
    plant.runs(failed=1, age_s=100, test=True)
    assert await texts(connection, Kind.FAILURE) == [
        "the first delivery failed (503)",
        "the last of 6 deliveries failed (503), over 3m",
        "the first delivery failed (503)",
        "the last of 4 deliveries failed (503), over 10s",
    ]
    assert await texts(connection, Kind.REFUSED) == [
        "the first webhook refused (401, bad signature)",
        "the last of 7 webhooks refused (401, bad signature), over 0s",
    ]
    assert await texts(connection, Kind.FAILURE, timedelta(seconds=895)) == [
        "the last of 4 deliveries failed (503), over 10s"
    ]


async def test_health_is_listed_where_it_changes(connection: Connection, plant: Plant) -> None:
    for age_s, ok in ((500, True), (400, False), (300, False), (200, True), (100, True)):
        plant.probe(ok=ok, age_s=age_s)
    plant.probe(ok=True, age_s=50, target="chatwoot")
    assert await texts(connection, Kind.HEALTH) == ["Agent SDK /health fails: 503", "Agent SDK /health is well"]


async def test_breaker_and_spool_are_recorded_by_the_tables_themselves(connection: Connection, rows: Rows) -> None:
    await gate.open_the_breaker(connection, "18 of the last 20 attempts failed", pause_s=5, first_s=5)
    await gate.open_the_breaker(connection, "again", pause_s=5, first_s=5)
    await gate.probe_failed(connection)
    await gate.close_the_breaker(connection)
    assert await texts(connection, Kind.BREAKER) == [
        "the circuit breaker opened (18 of the last 20 attempts failed)",
        "the circuit breaker closed",
    ]
    rows(
        "INSERT INTO relay.spools (id, host, path, receipts, refused, bytes, max_bytes, oldest_at) "
        "VALUES ('one', 'web-1', '/data/spool.db', 3, 0, 1, 10, now() - interval '2 min')"
    )
    rows("UPDATE relay.spools SET receipts = 2")
    rows("UPDATE relay.spools SET receipts = 0, oldest_at = NULL")
    rows("UPDATE relay.spools SET receipts = 0")
    assert await texts(connection, Kind.SPOOL) == [
        "webhooks went to the spool (web-1)",
        "the spool was empty again (web-1)",
    ]
    assert await texts(connection, Kind.SPOOL, timedelta(minutes=1)) == ["the spool was empty again (web-1)"]


async def test_relays_are_listed_by_start_with_their_versions_and_ends(connection: Connection, rows: Rows) -> None:
    def instance(version: str, slot: int = 0, boot: int = 0) -> Instance:
        return Instance(uuid4(), "host/net/127.0.0.1:8788", boots[boot], slot, 1, version, True, "http://agent")

    boots = [uuid4(), uuid4(), uuid4()]
    first, second = instance("1.0"), instance("1.0", slot=1)
    for one in (first, second):
        await register(connection, one, 30)
        await end(connection, one.id)
    await register(connection, instance("1.1", boot=1), 30)  # is killed
    rows("UPDATE relay.instances SET heartbeat_at = clock_timestamp() WHERE boot = %s", (boots[1],))
    await register(connection, instance("1.1", boot=2), 30)
    assert await texts(connection, Kind.RELAY) == [
        "relay 127.0.0.1:8788 started: v1.0, 2 workers",
        "relay 127.0.0.1:8788 stopped",
        "relay 127.0.0.1:8788 started: v1.1, before it v1.0, 1 worker",
        "relay 127.0.0.1:8788 sent its last heartbeat; it did not stop in order",
        "relay 127.0.0.1:8788 started: v1.1, 1 worker",
    ]


async def test_operators_actions_alerts_and_replays_are_in_one_list(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    at = datetime.now(UTC) - timedelta(minutes=20)
    for state, minute in (("raised", 0), ("cleared", 5)):
        plant.facts(
            "support.alert",
            {"rule": "dlq-p2", "severity": "P2", "state": state, "value": 12, "threshold": 10},
            {"timestamp": (at + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")},
            age_s=30,  # recorded when Postgres was back
        )
    await gate.hold(connection, "maria", "a \x1b[2Jdeployment", 1800)
    await gate.release(connection, "maria", 5)
    await alerts.acknowledge(connection, "jonas", "dlq-p2", "I look", 600)
    rows(
        "INSERT INTO relay.replay_plans "
        "(request_id, requested_by, total, delivered, dead, state, started_at, finished_at) "
        "VALUES (gen_random_uuid(), 'jonas', 12, 11, 1, 'done', clock_timestamp(), clock_timestamp())"
    )
    history = await timeline.read(connection, datetime.now(UTC) - DAY)
    entries = assemble(history)
    assert [(one.kind, one.text) for one in entries] == [
        (Kind.ALERT, "P2 dlq-p2 raised (12; threshold 10)"),
        (Kind.ALERT, "P2 dlq-p2 cleared (12; threshold 10)"),
        (Kind.HOLD, "hold (for 30m; a \ufffd[2Jdeployment)"),
        (Kind.HOLD, "release (rate 5)"),
        (Kind.ALERT, "acknowledge dlq-p2 (for 10m; I look)"),
        (Kind.REPLAY, "plan 1 started: 12 deliveries"),
        (Kind.REPLAY, "plan 1 ended: 11 delivered, 1 failed, 0 skipped of 12"),
    ]
    assert [one.by for one in entries[2:5]] == [
        "maria (login: postgres)",
        "maria (login: postgres)",
        "jonas (login: postgres)",
    ]
    assert entries[0].line == f"{at:%Y-%m-%d %H:%M:%S}Z  alert    P2 dlq-p2 raised (12; threshold 10)"
    assert not history.is_cut
