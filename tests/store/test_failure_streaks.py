"""Since when something fails, by what was recorded as it failed: no replay and no discard moves it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from relay.incident.state import state_of
from relay.store import overview
from tests.store.plant import DEAD_LETTER, HEALTH, REPLAY, RETRY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Connection
    from tests.store.plant import Plant

MINUTE, HOUR = 60, 3600


def failures(
    plant: Plant, status: str, *ages_s: float, fact_type: str = RETRY, test: bool = False, success: bool = False
) -> None:
    for age_s in ages_s:
        value = {"attempts": 3, "success": success, "durationMs": 5, "finalStatus": status}
        plant.facts(fact_type, value, {"test": True} if test else {}, age_s=age_s)


async def ages(connection: Connection, pause_s: float = 15 * MINUTE) -> dict[str, tuple[int | None, int]]:
    """From how long ago to how long ago each status failed, in whole seconds; replays have an `r` before it."""
    now = (await overview.read(connection)).at
    return {
        ("r" if one.replayed else "") + one.status: (
            None if one.first is None else int((now - one.first).total_seconds()),
            int((now - one.last).total_seconds()),
        )
        for one in await overview.streaks(connection, pause=timedelta(seconds=pause_s))
    }


def near(found: tuple[int | None, int], first: float | None, last: float) -> bool:
    return found == (
        None if first is None else pytest.approx(first, abs=5), pytest.approx(last, abs=5)
    )  # fmt: skip


async def test_a_spell_is_exact_and_of_its_own_status(connection: Connection, plant: Plant) -> None:
    failures(plant, "503", 500, 300, 41)
    failures(plant, "422", 100)
    failures(plant, "200", 20, success=True)
    found = await ages(connection)
    assert set(found) == {"503", "422"}
    assert near(found["503"], 500, 41)
    assert near(found["422"], 100, 100)


async def test_it_begins_after_a_pause_as_long_as_asked_for(connection: Connection, plant: Plant) -> None:
    failures(plant, "503", 45 * MINUTE, 20 * MINUTE, 10 * MINUTE)
    assert near((await ages(connection))["503"], 20 * MINUTE, 10 * MINUTE)
    assert near((await ages(connection, HOUR))["503"], 45 * MINUTE, 10 * MINUTE)


async def test_minutes_of_nothing_but_success_end_a_run(connection: Connection, plant: Plant) -> None:
    failures(plant, "503", 400, 390, 20, 10)
    failures(plant, "200", *range(60, 361, 10), success=True)
    assert near((await ages(connection))["503"], 20, 10)
    assert near((await ages(connection, HOUR))["503"], 20, 10)
    failures(plant, "422", 400, 380, 20)
    failures(plant, "422", *range(60, 361, 50))
    assert near((await ages(connection))["422"], 400, 20)


async def test_tests_do_not_count_and_replays_are_separate(connection: Connection, plant: Plant) -> None:
    failures(plant, "503", 30, test=True)
    failures(plant, "503", 200)
    failures(plant, "503", 100, fact_type=REPLAY)
    found = await ages(connection)
    assert near(found["503"], 200, 200)
    assert near(found["r503"], 100, 100)


@pytest.mark.parametrize(
    ("ages_s", "first_s"),
    [
        ([5 * HOUR, *range(10 * MINUTE, 3 * HOUR, 10 * MINUTE)], 170 * MINUTE),
        ([*range(10 * MINUTE, 20 * HOUR, 10 * MINUTE)], 20 * HOUR - 10 * MINUTE),
        ([*range(10 * MINUTE, 30 * HOUR, 10 * MINUTE)], None),
    ],
    ids=["three hours", "twenty hours", "more than a day"],
)
async def test_one_that_is_longer_than_two_hours_is_followed_back(
    connection: Connection, plant: Plant, ages_s: Sequence[float], first_s: float | None
) -> None:
    failures(plant, "503", *ages_s)
    assert near((await ages(connection))["503"], first_s, 10 * MINUTE)


async def test_the_last_failure_and_the_last_success_are_exact(connection: Connection, plant: Plant) -> None:
    failures(plant, "503", 90)
    failures(plant, "503", 90, fact_type=DEAD_LETTER)
    failures(plant, "503", 10, fact_type=DEAD_LETTER, test=True)
    failures(plant, "200", 300, 40, success=True)
    failures(plant, "200", 5, success=True, test=True)
    state = await overview.read(connection)
    assert state.last_failure_at is not None
    assert (state.at - state.last_failure_at).total_seconds() == pytest.approx(90, abs=5)
    assert state.last_success_at is not None
    assert (state.at - state.last_success_at).total_seconds() == pytest.approx(40, abs=5)
    assert state_of(state, [], []).gets_through_since(state.last_failure_at)


async def test_a_success_is_seen_after_failures_of_hours_ago_too(connection: Connection, plant: Plant) -> None:
    plant.delivery(age_s=3 * HOUR)
    failures(plant, "200", 60, success=True)
    state = await overview.read(connection)
    assert state.streaks == []
    assert state_of(state, [], []).gets_through_since(state.at - timedelta(hours=3))


@pytest.mark.parametrize(
    ("probes", "is_well"),
    [
        ([(300, True), (90, True), (5, True)], False),
        ([(300, True), (90, False), (5, True)], True),
        ([(300, True), (90, False)], False),
        ([(900, False), (300, True), (5, True)], False),
    ],
    ids=["well all along", "failed and well again", "fails still", "failed long before"],
)
async def test_an_agent_is_well_again_only_if_its_health_failed_meanwhile(
    connection: Connection, plant: Plant, probes: list[tuple[int, bool]], is_well: bool
) -> None:
    for age_s, ok in probes:
        plant.facts(HEALTH, {"target": "agent", "ok": ok, "status": "200" if ok else "503"}, age_s=age_s)
    state = await overview.read(connection)
    first, last = state.at - timedelta(seconds=200), state.at - timedelta(seconds=60)
    assert state_of(state, [], []).agent_is_well_since(first, last) is is_well
