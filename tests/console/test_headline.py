"""The first line is true: of what was recorded, of what matters most, and of what a replay can help."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from console.data import snapshot
from relay.store.sessions import open_session
from tests.store.plant import DEAD_LETTER, HEALTH, REPLAY, RETRY, Plant

if TYPE_CHECKING:
    from relay.incident.cause import Headline
    from tests.servers import Rows

ERRORS = {
    "503": "Agent SDK answered 503",
    "422": "Agent SDK refused the payload (422)",
    "connection_reset": "Agent SDK dropped the connection before its answer was complete",
}
REFUSED = ERRORS["422"]


class Scene:
    """Plants what failed and what was delivered, and asks for the cause."""

    def __init__(self, rows: Rows, dsn: str) -> None:
        self.plant, self.rows, self._dsn = Plant(rows), rows, dsn
        self.plant.relay()

    def fails(self, status: str, times: int, *, age_s: float, test: bool = False, waits: bool = True) -> None:
        """Webhooks that were dead-lettered so long ago, and still wait unless an operator dealt with them."""
        value = {"attempts": 3, "success": False, "durationMs": 5, "finalStatus": status}
        metadata = {"test": True} if test else {}
        for _ in range(times if waits else 0):
            self.plant.delivery(final_status=status, last_error=ERRORS[status], age_s=age_s, test=test)
        self.plant.facts(RETRY, value, metadata, age_s=age_s, times=times)
        self.plant.facts(DEAD_LETTER, value | {"lastError": ERRORS[status]}, metadata, age_s=age_s, times=times)

    def replay_fails(self, status: str, *, age_s: float) -> None:
        """The oldest dead letter of a status was replayed, and died again so long ago."""
        value = {"attempts": 3, "success": False, "durationMs": 5, "finalStatus": status}
        self.plant.facts(REPLAY, value, {}, age_s=age_s)
        self.rows(
            "UPDATE relay.deliveries SET finished_at = now() - make_interval(secs => %s) WHERE id ="
            " (SELECT id FROM relay.deliveries WHERE final_status = %s ORDER BY finished_at LIMIT 1)",
            (age_s, status),
        )

    def probe(self, *, ok: bool, age_s: float) -> None:
        """What the agent's health said so long ago."""
        self.plant.facts(HEALTH, {"target": "agent", "ok": ok, "status": "200" if ok else "503"}, age_s=age_s)

    async def cause(self) -> Headline:
        """What the first line says."""
        async with await open_session(self._dsn, read_only=True, application="tests", timeout_ms=60_000) as connection:
            return (await snapshot.read(connection, None, minutes_of=timedelta(hours=1))).headline


@pytest.fixture
def scene(rows: Rows, dsn: str) -> Scene:
    return Scene(rows, dsn)


async def test_what_failed_a_minute_ago_is_said_though_all_of_it_was_replayed(scene: Scene) -> None:
    scene.fails("connection_reset", 3, age_s=900)
    scene.fails("503", 12, age_s=61, waits=False)
    found = await scene.cause()
    assert found.sentence.startswith("The last failure was 1m ago (503). 3 dead letters can be replayed"), found
    scene.rows("UPDATE relay.deliveries SET state = 'delivered'")
    found = await scene.cause()
    assert (found.sentence, found.level) == ("The last failure was 1m ago (503). No dead letter waits.", "warning")


async def test_since_stays_where_it_was_while_a_replay_runs(scene: Scene) -> None:
    scene.fails("503", 5, age_s=600)
    scene.fails("503", 20, age_s=20)
    before = (await scene.cause()).sentence
    assert before.startswith("Agent SDK answered 503 since ")
    assert "(10m)" in before
    scene.rows("UPDATE relay.deliveries SET state = 'delivered' WHERE finished_at < now() - interval '5 minutes'")
    after = (await scene.cause()).sentence
    assert after.partition(". ")[0] == before.partition(". ")[0]
    assert "20 of 20 open dead letters" in after


@pytest.mark.parametrize("what", ["a failed replay", "a new failure"])
async def test_one_straggler_does_not_take_the_headline(scene: Scene, what: str) -> None:
    scene.fails("503", 115, age_s=40)
    scene.fails("422", 9, age_s=900)
    scene.fails("connection_reset", 3, age_s=900)
    if what == "a failed replay":
        scene.replay_fails("422", age_s=5)
    else:
        scene.fails("422", 1, age_s=5)
    assert (await scene.cause()).sentence.startswith("Agent SDK answered 503 since ")
    scene.rows("UPDATE dashboard_facts SET recorded_at = recorded_at - interval '10 minutes'"
               " WHERE value ->> 'finalStatus' = '503'")  # fmt: skip
    scene.rows("UPDATE relay.deliveries SET finished_at = finished_at - interval '10 minutes'"
               " WHERE final_status = '503'")  # fmt: skip
    found = await scene.cause()
    said = r"The last failure was \d+s ago \(422\)\. 118 dead letters can be replayed, 115 of them"
    assert re.match(said, found.sentence), found
    assert found.group is not None
    assert found.group.final_status == "503"


async def test_what_fails_now_takes_the_headline_from_more_that_wait(scene: Scene) -> None:
    scene.fails("503", 115, age_s=900)
    scene.fails("422", 6, age_s=20)
    assert (await scene.cause()).sentence.startswith(f"{REFUSED} since ")


async def test_a_health_that_was_well_all_along_does_not_make_it_over(scene: Scene) -> None:
    scene.fails("503", 5, age_s=50)
    scene.probe(ok=True, age_s=120)
    scene.probe(ok=True, age_s=2)
    found = await scene.cause()
    assert found.level == "bad"
    assert found.sentence.startswith("Agent SDK answered 503 since ")


async def test_a_health_that_failed_and_passes_now_is_named(scene: Scene) -> None:
    scene.fails("503", 5, age_s=80)
    scene.probe(ok=False, age_s=60)
    scene.probe(ok=True, age_s=2)
    found = await scene.cause()
    assert found.level == "warning"
    assert found.sentence.startswith("The Agent SDK's /health answers again (Agent SDK answered 503 from ")
    assert found.sentence.endswith("). 5 dead letters wait.")


async def test_deliveries_that_get_through_again_are_said(scene: Scene) -> None:
    scene.fails("503", 5, age_s=50)
    scene.plant.runs(delivered=1, age_s=10)
    found = await scene.cause()
    assert found.level == "warning"
    assert found.sentence.startswith("Agent SDK answers again since ")
    assert found.sentence.endswith("). 5 dead letters wait.")


async def test_a_rejected_payload_never_counts_as_recovered(scene: Scene) -> None:
    scene.fails("422", 5, age_s=50)
    scene.plant.runs(delivered=9, age_s=10)
    scene.probe(ok=False, age_s=60)
    scene.probe(ok=True, age_s=2)
    found = await scene.cause()
    assert found.level == "warning"
    assert re.match(r"The last failure was \d+s ago.* 5 dead letters rejected", found.sentence), found
    scene.fails("422", 1, age_s=5)
    found = await scene.cause()
    assert found.level == "bad"
    assert found.sentence.startswith(f"{REFUSED} since ")


async def test_what_was_refused_is_not_said_to_be_replayable(scene: Scene) -> None:
    scene.fails("422", 9, age_s=600)
    found = await scene.cause()
    assert found.sentence == (
        f"The last failure was 10m ago. 9 dead letters rejected by the Agent SDK; retrying will not help: {REFUSED}."
    )
    scene.fails("503", 3, age_s=600)
    found = await scene.cause()
    assert f" 3 dead letters can be replayed: {ERRORS['503']}; 9 rejected, retrying will not help." in found.sentence
    assert found.group is not None
    assert found.group.final_status == "503"


async def test_a_replay_that_fails_again_is_said_as_one(scene: Scene) -> None:
    scene.fails("503", 5, age_s=7_200)
    scene.replay_fails("503", age_s=10)
    found = await scene.cause()
    assert found.sentence.startswith("A replay failed 1")
    assert found.sentence.endswith("s ago: Agent SDK answered 503. 5 of 5 open dead letters share this cause.")


async def test_a_failed_test_is_no_failure(scene: Scene) -> None:
    scene.fails("503", 1, age_s=5, test=True)
    found = await scene.cause()
    assert (found.sentence, found.level) == (
        "Nothing is failing. There is nothing but 1 dead letter of test webhooks.",
        "well",
    )
    scene.fails("422", 2, age_s=600)
    assert (await scene.cause()).sentence.startswith(("The last failure was 10m ago", "Nothing has failed for 10m"))


async def test_more_than_a_day_is_said_so(scene: Scene) -> None:
    for minutes in range(0, 30 * 60, 10):
        scene.fails("503", 1, age_s=60 * minutes + 5, waits=minutes < 60)
    assert (await scene.cause()).sentence.startswith("Agent SDK answered 503 for more than a day. 6 of 6")
