"""A plan that cannot be carried out is stopped with a reason: others continue, and no log line quotes a payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from relay.store.replays import PlanState
from tests.relay.operators import Operator
from tests.servers import until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.servers import Rows, RunningRelay

SECRET = "SECRET-OF-A-CUSTOMER"
_PLAN = """
    INSERT INTO relay.replay_plans (request_id, requested_by, edited_body, total, rate)
    VALUES (gen_random_uuid(), 'maria', %s, 1, %s) RETURNING id
"""
_ITEMS = """
    INSERT INTO relay.replay_items (plan_id, position, delivery, run)
    SELECT %s, n, d, r FROM unnest(%s::bigint[], %s::int[]) WITH ORDINALITY AS frozen(d, r, n)
"""


@pytest.fixture
def plant(rows: Rows) -> Plant:
    """Plants rows in the test's database."""
    return Plant(rows)


@pytest_asyncio.fixture
async def operator(dsn: str) -> AsyncIterator[Operator]:
    """An operator of the test's database."""
    async with Operator(dsn) as opened:
        yield opened


@pytest.mark.parametrize(
    ("body", "rate", "items", "why"),
    [
        (f'{{"a": "{SECRET}"}}'.encode(), 5.0, 2, "one edited body for 2 deliveries"),
        (None, float("nan"), 1, "its rate is not from 0.001 to 10000 a second"),
        (None, 1e-300, 1, "its rate is not from 0.001 to 10000 a second"),
        (None, float("inf"), 1, "its rate is not from 0.001 to 10000 a second"),
    ],
)
async def test_a_plan_that_can_never_be_sent_is_stopped_and_those_behind_it_are_done(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    operator: Operator,
    rows: Rows,
    plant: Plant,
    body: bytes | None,
    rate: float,
    items: int,
    why: str,
) -> None:
    letters = [plant.delivery("dead", delivery_id=name, body=SECRET.encode()) for name in ("one", "two", "three")]
    broken = rows.one(_PLAN, (body, rate))
    rows(_ITEMS, (broken, letters[:items], [1] * items))
    good = await operator.ask("three")
    relay = await start_relay()
    await operator.reaches(good, PlanState.DONE)
    plan = await operator.reaches(broken, PlanState.STOPPED)
    assert why in (plan.stopped_why or "")
    assert plan.finished_at is not None
    assert rows("SELECT state FROM relay.deliveries ORDER BY id") == ["dead", "dead", "delivered"]
    assert "A service failed" not in relay.output
    assert why in relay.output
    assert SECRET not in relay.output


async def test_a_plan_that_fails_while_it_is_worked_on_is_stopped_and_those_behind_it_are_done(
    start_relay: Callable[..., Awaitable[RunningRelay]], operator: Operator, rows: Rows, plant: Plant
) -> None:
    last_run = 2**31 - 1
    letter = plant.delivery("dead", delivery_id="one", body=SECRET.encode())
    plant.delivery("dead", delivery_id="two")
    rows("UPDATE relay.deliveries SET run = %s WHERE id = %s", (last_run, letter))
    broken = rows.one(_PLAN, (None, None))
    rows(_ITEMS, (broken, [letter], [last_run]))
    good = await operator.ask("two")
    relay = await start_relay()
    await operator.reaches(good, PlanState.DONE)
    plan = await operator.reaches(broken, PlanState.STOPPED)
    assert plan.stopped_why == "this relay cannot carry it out: NumericValueOutOfRange (22003)"
    assert relay.output.count("Replay failed") == 1
    assert SECRET not in relay.output


_FAILING = """
    CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN {} END $$
"""


@pytest.mark.parametrize(
    ("fails", "logged"),
    [
        (f"RAISE EXCEPTION 'row %', '{SECRET}';", "RaiseException (P0001)"),
        (f"RAISE EXCEPTION 'row %', '{SECRET}' USING ERRCODE = 'check_violation';", "CheckViolation (23514)"),
        (f"RAISE EXCEPTION 'quiet' USING DETAIL = '{SECRET}', HINT = '{SECRET}';", "RaiseException (P0001)"),
        (f"PERFORM '{SECRET}'::jsonb; RETURN NULL;", "InvalidTextRepresentation (22P02)"),
        (f"PERFORM '{SECRET}'::int; RETURN NULL;", "InvalidTextRepresentation (22P02)"),
    ],
)
async def test_a_database_error_is_logged_without_the_values_that_it_quotes(
    relay: RunningRelay, rows: Rows, plant: Plant, fails: str, logged: str
) -> None:
    rows(_FAILING.format(fails))
    await rows.change(
        "CREATE TRIGGER fails BEFORE UPDATE ON relay.discards FOR EACH ROW EXECUTE FUNCTION public.fail()"
    )
    rows("SELECT relay.ask_discard(ARRAY[%s]::bigint[], 'maria', 'spam')", (plant.delivery("dead"),))
    await until(lambda: logged in relay.output)
    assert SECRET not in relay.output


async def test_a_failed_check_is_logged_by_its_name_without_the_row(
    relay: RunningRelay, rows: Rows, plant: Plant
) -> None:
    await rows.change("ALTER TABLE relay.discards ADD CONSTRAINT never CHECK (result IS NULL)")
    rows("SELECT relay.ask_discard(ARRAY[%s]::bigint[], 'maria', 'spam')", (plant.delivery("dead"),))
    await until(lambda: 'violates check constraint "never"' in relay.output)
    assert "Failing row" not in relay.output


async def test_discards_that_fail_do_not_hold_up_replays(
    relay: RunningRelay, operator: Operator, rows: Rows, plant: Plant
) -> None:
    await rows.change("ALTER TABLE relay.discards ADD CONSTRAINT never CHECK (result IS NULL)")
    rows("SELECT relay.ask_discard(ARRAY[%s]::bigint[], 'maria', 'spam')", (plant.delivery("dead"),))
    await until(lambda: "A service failed" in relay.output)
    plant.delivery("dead", delivery_id="one")
    await operator.reaches(await operator.ask("one"), PlanState.DONE)
