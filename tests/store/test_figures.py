"""The overview's figures: what the runbook's own SQL says, over exact windows, whatever else is in the table."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from relay.domain.stats import figures
from relay.store import facts, overview
from relay.store.database import one_moment
from tests.runbook.sql import AVERAGE_RESPONSE_TIME, DLQ_SIZE, FAILURE_REASONS, RECENT_ACTIVITY, SUCCESS_RATE
from tests.store.plant import DEAD_LETTER, HEALTH, REJECTED, REPLAY, RETRY

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant


_A_DAY = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT kind, 'support',
           jsonb_build_object('success', n % 7 > 1, 'attempts', 1 + n % 3, 'durationMs', n * n % 4001,
                              'finalStatus', (ARRAY['200', '503', 'timeout', '422'])[1 + n % 4]),
           '{}', now() - make_interval(secs => 15 + n * 57)
      FROM generate_series(1, 1600) AS n,
           unnest(ARRAY['support.webhook.retry', 'support.webhook.dead_letter', 'support.webhook.replay']) AS kind
"""


async def test_the_figures_are_those_of_the_runbooks_sql(connection: Connection, rows: Rows) -> None:
    rows(_A_DAY)
    state = await overview.read(connection)
    hour, day = state.last_1h, state.last_24h
    total, successful, average_attempts = rows.one(RECENT_ACTIVITY)
    assert total > 50
    assert (hour.rate.delivered, hour.rate.delivered + hour.rate.failed) == (successful, total)
    assert hour.average_attempts == pytest.approx(float(average_attempts))
    assert hour.rate.percent == pytest.approx(float(rows.one(SUCCESS_RATE)), abs=0.005)
    assert hour.average_ms == pytest.approx(float(rows.one(AVERAGE_RESPONSE_TIME)), abs=0.5)
    assert hour.failures == dict(rows(FAILURE_REASONS))
    assert day.dead_letters == rows.one(DLQ_SIZE) > 1000


async def test_replays_are_counted_apart(connection: Connection, plant: Plant) -> None:
    plant.runs(delivered=3, failed=1)
    plant.runs(delivered=5, failed=7, fact_type=REPLAY)
    hour = (await overview.read(connection)).last_1h
    assert (hour.rate.delivered, hour.rate.failed) == (3, 1)
    assert (hour.replayed.delivered, hour.replayed.failed) == (5, 7)


async def test_test_webhooks_count_for_nothing(connection: Connection, plant: Plant) -> None:
    for age_s in (10, 200, 3_000):
        plant.runs(delivered=4, failed=9, test=True, age_s=age_s)
        plant.dead_letters(9, test=True, age_s=age_s)
        plant.runs(failed=4, test=True, fact_type=REPLAY, age_s=age_s)
    day = (await overview.read(connection)).last_24h
    assert (day.rate.delivered, day.rate.failed, day.dead_letters) == (0, 0, 0)
    assert (day.average_ms, day.average_attempts, day.histogram, day.failures) == (None, None, {}, {})
    assert day.replayed.percent is None


async def test_a_flood_of_rejections_counts_as_many_as_it_was(connection: Connection, plant: Plant) -> None:
    plant.facts(REJECTED, {"reason": "invalid_signature", "count": 500})
    plant.facts(REJECTED, {"reason": "invalid_signature", "count": 1}, times=3)
    plant.facts(REJECTED, {"reason": "stale_timestamp"})
    hour = (await overview.read(connection)).last_1h
    assert hour.rejected == {"invalid_signature": 503, "stale_timestamp": 1}


_AT = """
    INSERT INTO dashboard_facts (fact_type, scope, value, recorded_at)
    VALUES ('support.webhook.retry', 'support', '{"success": true}', now() - %s::interval - %s::interval)
"""


@pytest.mark.parametrize("window", ["10 minutes", "1 hour", "24 hours", "90 seconds", "1 second"])
@pytest.mark.parametrize(("earlier", "counted"), [("0", 1), ("1 microsecond", 0), ("-1 microsecond", 1)])
async def test_a_window_is_exact_at_its_edge(connection: Connection, window: str, earlier: str, counted: int) -> None:
    async with connection.transaction(force_rollback=True):  # one moment for both statements
        await connection.execute(_AT, (window, earlier))
        cursor = await connection.execute("SELECT %s::interval", (window,))
        (length,) = await cursor.fetchone() or ()
        (found,) = await facts.tallies(connection, [length])
    assert figures(found).rate.delivered == counted


async def test_facts_change_the_figures_of_every_window_that_holds_them(connection: Connection, plant: Plant) -> None:
    for age_s in (300, 780, 1_500, 3_300, 80_000, 90_000):
        plant.runs(delivered=1, age_s=age_s)
    state = await overview.read(connection)
    windows = (state.last_10min, state.last_15min, state.last_30min, state.last_1h, state.last_24h)
    assert [window.rate.delivered for window in windows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("distribution", ["n", "n * n % 3000", "145", "power(2, n % 14)::int", "n % 2 * 9000"])
async def test_the_p95_is_that_of_the_facts_within_a_slot_of_the_scale(
    connection: Connection, rows: Rows, distribution: str
) -> None:
    rows(
        f"""INSERT INTO dashboard_facts (fact_type, scope, value)
            SELECT 'support.webhook.retry', 's', jsonb_build_object('success', true, 'durationMs', {distribution})
              FROM generate_series(1, 1000) AS n"""
    )
    true = rows.one(
        """SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY (value ->> 'durationMs')::float8) FROM dashboard_facts"""
    )
    assert (await overview.read(connection)).last_1h.p95_ms == pytest.approx(true, rel=0.095)


_ODD = [None, "word", [1], {"success": "true"}, {"attempts": "x", "success": True}, {"finalStatus": "e" * 9_000}]
_ODD_HEALTH = [
    None, [], {"target": "agent", "ok": "perhaps", "latencyMs": "fast"}, {"target": "chatwoot", "ok": 2, "status": {}},
    {"target": "of ours\n", "ok": True}, {"ok": False}, {"target": "chatwoot_api", "ok": True, "latencyMs": 10**40},
]  # fmt: skip
_WRITE = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
    SELECT kind, 's', odd, odd FROM unnest(%s::text[]) AS kind, jsonb_array_elements(%s) AS odd
"""


async def test_odd_facts_of_others_break_no_figure(connection: Connection, plant: Plant, rows: Rows) -> None:
    rows(_WRITE, ([RETRY, DEAD_LETTER, REPLAY, REJECTED], Jsonb(_ODD)))
    rows(_WRITE, ([HEALTH], Jsonb(_ODD_HEALTH)))
    plant.runs(delivered=3, failed=1)
    state = await overview.read(connection)
    assert (state.last_1h.rate.delivered, state.last_1h.dead_letters) == (3 + 2, len(_ODD))
    assert {health.target: health.ok for health in state.health} == {
        "agent": False, "chatwoot": False, "chatwoot_api": True,
    }  # fmt: skip


async def test_an_empty_database_has_no_data_rather_than_zeros(connection: Connection) -> None:
    state = await overview.read(connection)
    assert state.last_1h.rate.percent is None
    assert (state.last_1h.average_attempts, state.last_1h.average_ms, state.last_1h.p95_ms) == (None, None, None)
    assert (state.last_webhook_age_s, state.oldest_in_flight_s, state.firing, state.relays) == (None, None, [], [])


async def test_open_dead_letters_are_the_deliveries_that_are_dead_not_the_facts(
    connection: Connection, plant: Plant
) -> None:
    plant.dead_letters(4)
    plant.delivery("dead")
    plant.delivery("discarded")
    plant.delivery("forwarding", age_s=120, owner=plant.relay())
    plant.delivery("received", age_s=180)
    state = await overview.read(connection)
    assert (state.open_dead_letters, state.in_flight) == (1, 1)
    assert (state.backlog.waiting, state.backlog.size) == (1, 1)
    assert state.oldest_in_flight_s is not None
    assert 120 <= state.oldest_in_flight_s < 180


async def test_the_minutes_of_a_window_say_how_many_went_well_and_how_many_did_not(
    connection: Connection, plant: Plant
) -> None:
    plant.runs(delivered=2, failed=1, age_s=600)
    plant.runs(failed=4, age_s=60)
    plant.runs(delivered=9, age_s=60, test=True)
    minutes = await facts.per_minute(connection, timedelta(hours=1))
    assert [counts for _, *counts in minutes] == [[2, 1], [0, 4]]


_EVERY_SECOND = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT 'support.webhook.retry', 's', jsonb_build_object('attempts', 1, 'success', n % 3 > 0, 'durationMs', n % 5),
           jsonb_build_object('test', n % 7 = 0), now() - make_interval(secs => n)
      FROM generate_series(1, 900) AS n
"""
_COUNTED = """
    SELECT count(*)::int, coalesce(sum((value ->> 'durationMs')::int), 0)::int FROM dashboard_facts
     WHERE recorded_at >= now() - %s AND metadata ->> 'test' = 'false'
"""


async def test_a_window_is_exact_wherever_in_a_minute_it_begins(connection: Connection, rows: Rows) -> None:
    rows(_EVERY_SECOND)
    windows = [timedelta(seconds=seconds) for seconds in range(5, 400, 7)]
    async with one_moment(connection):
        tallies = await facts.tallies(connection, windows)
        for window, tally in zip(windows, tallies, strict=True):
            cursor = await connection.execute(_COUNTED, (window,))
            assert await cursor.fetchone() == (sum(t.facts for t in tally), sum(t.duration_ms for t in tally))
