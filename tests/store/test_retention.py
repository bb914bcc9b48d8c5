"""Retention: old rows are deleted in batches; unfinished work and other applications' rows stay."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from relay.store import facts, overview
from relay.store.retention import BATCH, retire
from tests.store.plant import DEAD_LETTER, HEALTH, REJECTED, REPLAY, RETRY

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant

KEEP = timedelta(days=30)
OLD_S, YOUNG_S = 31 * 86_400, 29 * 86_400

_MANY = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, received_at, finished_at, headers, body)
    SELECT n, 'delivered', gen_random_uuid(), false, false, now() - interval '31 days', now() - interval '31 days',
           '[]', '{}' FROM generate_series(1, %s) AS n
"""
_ATTEMPTS = """
    INSERT INTO relay.attempts SELECT id, 1, n, received_at, 0, 5, '200', NULL, '' FROM relay.deliveries,
           generate_series(1, 3) AS n
"""


@pytest.mark.parametrize(
    ("state", "age_s", "stays"),
    [
        ("delivered", OLD_S, False),
        ("discarded", OLD_S, False),
        ("dead", OLD_S, True),
        ("forwarding", OLD_S, True),
        ("received", OLD_S, True),
        ("delivered", YOUNG_S, True),
        ("discarded", YOUNG_S, True),
    ],
)
async def test_old_deliveries_go_once_they_are_over(
    connection: Connection, plant: Plant, rows: Rows, state: str, age_s: float, *, stays: bool
) -> None:
    plant.delivery(state, age_s=age_s, owner=plant.relay() if state == "forwarding" else None)
    rows(_ATTEMPTS)
    await retire(connection, KEEP)
    assert rows("SELECT count(*) FROM relay.deliveries") == [int(stays)]
    assert rows("SELECT count(*) FROM relay.attempts") == [3 * stays]


async def test_an_old_dead_letter_that_was_delivered_lately_stays_as_long_as_a_new_one(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    plant.delivery("delivered", age_s=OLD_S)
    rows("UPDATE relay.deliveries SET finished_at = now() - interval '1 day'")
    assert await retire(connection, KEEP) == 0
    assert rows("SELECT count(*) FROM relay.deliveries") == [1]


async def test_rows_go_in_batches_and_the_relay_can_stop_between_them(connection: Connection, rows: Rows) -> None:
    rows(_MANY, (2 * BATCH + 5,))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(rows.one("SELECT count(*) FROM relay.deliveries"))
        return len(asked) > 2

    assert await retire(connection, KEEP, stop) == 2 * BATCH
    assert asked[:3] == [2 * BATCH + 5, BATCH + 5, 5]
    assert await retire(connection, KEEP) == 5


async def test_replayed_deliveries_at_the_front_hold_up_none_behind_them(connection: Connection, rows: Rows) -> None:
    rows(_MANY, (3 * BATCH,))
    rows("UPDATE relay.deliveries SET finished_at = now() WHERE id <= (SELECT min(id) FROM relay.deliveries) + 1999")
    rows("UPDATE relay.deliveries SET delivery_id = 'x' || delivery_id")
    rows(_MANY, (5,))
    assert await retire(connection, KEEP) == BATCH + 5
    assert rows("SELECT count(*) FROM relay.deliveries") == [2 * BATCH]


async def test_only_the_relays_own_kinds_of_old_facts_go(connection: Connection, plant: Plant, rows: Rows) -> None:
    kinds = [RETRY, DEAD_LETTER, REPLAY, REJECTED, HEALTH, "support.alert", "sales.revenue", "support.webhook.other"]
    for kind in kinds:
        plant.facts(kind, {"success": True}, age_s=OLD_S, times=2)
        plant.facts(kind, {"success": True}, age_s=YOUNG_S)
    assert await retire(connection, KEEP) == 12
    counts = dict(rows("SELECT fact_type, count(*)::int FROM dashboard_facts GROUP BY 1"))
    assert counts == dict.fromkeys(kinds, 1) | {"sales.revenue": 3, "support.webhook.other": 3}


async def test_the_figures_of_the_last_day_are_the_same_before_and_after(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    for age_s in (60, 4_000, 80_000, YOUNG_S, OLD_S):
        plant.runs(delivered=5, failed=2, age_s=age_s)
    before = (await overview.read(connection)).last_24h
    await retire(connection, KEEP)
    assert (await overview.read(connection)).last_24h == before
    assert rows("SELECT count(*) FROM relay.minutes WHERE minute < now() - interval '2 days'") == [0]


async def test_no_minute_is_forgotten_before_all_of_its_facts_may_go(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    for age_s in range(0, 600, 5):
        plant.facts(RETRY, {"success": age_s % 2 > 0}, age_s=age_s)
    for keep_s in (300, 281, 262, 243, 90):
        await retire(connection, timedelta(seconds=keep_s))
        assert rows("SELECT count(*) FROM relay.minutes GROUP BY minute, success HAVING sum(facts) < 0") == []
    minutes = await facts.per_minute(connection, timedelta(hours=1))
    assert sum(delivered + failed for _, delivered, failed in minutes) == rows.one(
        "SELECT count(*) FROM dashboard_facts"
    )


async def test_a_minute_that_counts_fewer_than_none_is_shown_as_none(connection: Connection, rows: Rows) -> None:
    rows(
        "INSERT INTO relay.minutes (minute, fact_type, test, success, attempts, final_status, slot, writer, facts, "
        "duration_ms) SELECT date_trunc('minute', now()), %s, false, success, 1, '200', 0, 0, facts, 0 "
        "FROM (VALUES (true, 9), (false, -2)) AS v(success, facts)",
        (RETRY,),
    )
    ((_, delivered, failed),) = await facts.per_minute(connection, timedelta(hours=1))
    assert (delivered, failed) == (9, 0)


async def test_old_log_lines_go(connection: Connection, rows: Rows) -> None:
    rows(
        "INSERT INTO relay.log (at, level, scope, message, fields, instance) "
        "SELECT now() - make_interval(days => d), 'info', 's', 'm', '{}', %s FROM generate_series(40, 0, -1) AS d",
        (uuid4(),),
    )
    await retire(connection, KEEP)
    assert rows("SELECT count(*) FROM relay.log WHERE at < now() - interval '30 days'") == [0]
    assert rows("SELECT count(*) FROM relay.log") == [30]


@pytest.mark.parametrize(
    ("state", "days", "stays"),
    [("done", 31, False), ("stopped", 31, False), ("done", 29, True), ("paused", 31, True), ("queued", 31, True)],
)
async def test_plans_go_with_their_items_once_they_have_been_over_for_long(
    connection: Connection, rows: Rows, state: str, days: int, *, stays: bool
) -> None:
    for _ in range(25):
        rows(
            "WITH plan AS (INSERT INTO relay.replay_plans (request_id, requested_by, state, created_at, finished_at) "
            "SELECT gen_random_uuid(), 'm', %(state)s, at, CASE WHEN %(state)s IN ('done', 'stopped') THEN at END "
            "FROM (SELECT now() - make_interval(days => %(days)s) AS at) AS w RETURNING id) "
            "INSERT INTO relay.replay_items (plan_id, position, delivery, run) SELECT id, 1, 1, 1 FROM plan",
            {"state": state, "days": days},
        )
    await retire(connection, KEEP)
    left = [25 * stays]
    assert rows("SELECT count(*) FROM relay.replay_plans") == rows("SELECT count(*) FROM relay.replay_items") == left


async def test_relays_long_gone_are_forgotten_unless_something_of_theirs_is_open(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    plant.relay(heartbeat_age_s=3 * 86_400)
    owning = plant.relay(heartbeat_age_s=3 * 86_400)
    plant.delivery("forwarding", owner=owning)
    alive = plant.relay()
    await retire(connection, KEEP)
    assert set(rows("SELECT id FROM relay.instances")) == {owning, alive}


async def test_what_operators_did_is_kept(connection: Connection, rows: Rows) -> None:
    rows("INSERT INTO relay.operator_actions (operator, action, at) VALUES ('maria', 'discard', '2001-01-01')")
    await retire(connection, KEEP)
    assert rows("SELECT count(*) FROM relay.operator_actions") == [1]
