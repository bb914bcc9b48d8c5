"""`fsck` finds what the tables disagree on, repairs it, and finds nothing wrong in what a relay leaves."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from psycopg import AsyncConnection

from relay.store.embedded_server import programs
from relay.store.fsck import CheckResult, check
from tests.servers import Behaviour, Rows, database_like
from tests.store.plant import DEAD_LETTER, REJECTED, RETRY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from relay.store.database import Connection
    from tests.conftest import CommandLine
    from tests.servers import AgentStandIn, RunningRelay
    from tests.store.plant import Plant

_NEWEST = "(SELECT max(minute) FROM relay.minutes)"
DAMAGE = {
    "sequences": ["ALTER SEQUENCE relay.deliveries_id_seq RESTART", "ALTER SEQUENCE dashboard_facts_id_seq RESTART"],
    "figures follow dashboard_facts": ["DROP TRIGGER relay_inserted ON dashboard_facts"],
    "roll-ups by minute": [f"UPDATE relay.minutes SET facts = facts + 1 WHERE minute = {_NEWEST}"],
    "roll-ups by hour": ["DELETE FROM relay.hours"],
    "failure groups": ["UPDATE relay.dead_causes SET letters = letters + 5"],
    "positions in conversations": ["UPDATE relay.conversations SET issued = 0"],
    "heads of conversations": [  # as a relay of an earlier version finishes the head
        "UPDATE relay.deliveries SET state = 'delivered', finished_at = now() WHERE delivery_id = 'first'"
    ],
    "blocked deliveries have a head": [
        "UPDATE relay.deliveries SET blocked = true, waits = 'order' WHERE delivery_id = 'third'",
        "DELETE FROM relay.conversations WHERE key = '1/3'",
    ],
    "counts of the backlog": ["UPDATE relay.backlog_counts SET number = number + 7 WHERE kind = 'order'"],
    "marks of destinations": ["UPDATE relay.deliveries SET waits = 'destination' WHERE delivery_id = 'marked'"],
    "attempts have a delivery": [
        """INSERT INTO relay.attempts (delivery, run, number, started_at, wait_ms, duration_ms, status, answer)
           VALUES (4711, 1, 1, now(), 0, 1, '200', '')"""
    ],
    "finished deliveries have an end": ["UPDATE relay.deliveries SET finished_at = NULL WHERE state = 'dead'"],
    "indexes are valid": [
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'relay.deliveries_received'::regclass"
    ],
}


async def results(connection: Connection, *, repair: bool = False) -> dict[str, CheckResult]:
    """What every check finds, by its name."""
    return {one.check: one async for one in check(connection, repair=repair)}


def plant_history(rows: Rows, plant: Plant) -> None:
    """Facts of two hours, deliveries, and one that is dead."""
    plant.runs(delivered=40, failed=3, age_s=30)
    plant.facts(RETRY, {"attempts": 3, "success": False, "durationMs": 700, "finalStatus": "503"}, age_s=5000, times=7)
    plant.facts(DEAD_LETTER, {"attempts": 3, "lastError": "x"}, age_s=4000, times=3)
    plant.facts(REJECTED, {"reason": "invalid_signature", "count": 17}, age_s=50)
    plant.delivery("dead")
    plant.delivery("delivered")
    for name, key, position in [("first", "1/1", 1), ("second", "1/1", 2), ("third", "1/3", 2), ("marked", None, None)]:
        plant.delivery("received", delivery_id=name)
        rows(
            "UPDATE relay.deliveries SET conversation_key = %(key)s, position = %(position)s, "
            "blocked = %(blocked)s, waits = CASE WHEN %(blocked)s THEN 'order' ELSE 'capacity' END "
            "WHERE delivery_id = %(name)s",
            {"key": key, "position": position, "blocked": name == "second", "name": name},
        )
    rows("INSERT INTO relay.conversations VALUES ('1/1', 2, 1), ('1/3', 2, 2)")


async def test_every_damage_is_found_and_repaired(connection: Connection, rows: Rows, plant: Plant) -> None:
    plant_history(rows, plant)
    assert [one for one in (await results(connection)).values() if one.wrong] == []
    for name, statements in DAMAGE.items():
        for statement in statements:
            rows(statement)
        found = await results(connection)
        assert found[name].wrong, name
        assert {one.check for one in found.values() if one.wrong} == {name}
        repaired = await results(connection, repair=True)
        assert repaired[name].repaired is (name != "indexes are valid"), name
        assert [one.check for one in repaired.values() if not one.ok] == ([] if repaired[name].repaired else [name])


async def test_marks_of_destinations_follow_the_relays(connection: Connection, rows: Rows, plant: Plant) -> None:
    plant.relay()
    rows("UPDATE relay.instances SET started_at = now() - interval '1 hour'")
    wanted = {"theirs": "capacity", "another's": "destination", "new": "capacity"}
    for name in wanted:
        plant.delivery("received", delivery_id=name, age_s=300)
    rows("UPDATE relay.deliveries SET destination = 'http://gone', waits = 'capacity', since = received_at")
    rows("UPDATE relay.deliveries SET since = now() WHERE delivery_id = 'new'")
    rows(
        "UPDATE relay.deliveries d SET destination = i.agent, waits = 'destination' FROM relay.instances i "
        "WHERE delivery_id = 'theirs'"
    )
    repaired = (await results(connection, repair=True))["marks of destinations"]
    assert (repaired.wrong, repaired.repaired) == (2, True)
    found = dict(rows("SELECT delivery_id, waits FROM relay.deliveries"))
    assert {**found, "new": "capacity"} == wanted  # the new one may be marked with the other
    assert [one for one in (await results(connection)).values() if one.wrong] == []


async def test_a_repair_never_makes_writers_wait_and_says_whom_it_waits_for_itself(
    connection: Connection, dsn: str, rows: Rows, plant: Plant
) -> None:
    """Another session's transaction stays open: as before, its writes are not counted; it commits afterwards."""
    plant_history(rows, plant)
    for name in ("roll-ups by minute", "failure groups", "counts of the backlog", "figures follow dashboard_facts"):
        for statement in DAMAGE[name]:
            rows(statement)
    async with await AsyncConnection.connect(dsn, application_name="a long import") as other:
        for state in ("dead", "received"):
            await other.execute(
                "INSERT INTO relay.deliveries (delivery_id, claim, test, customer, headers, body, state) "
                "VALUES (%s, gen_random_uuid(), false, false, '[]', '{}', %s)",
                (f"late {state}", state),
            )
        await other.execute("INSERT INTO dashboard_facts (fact_type, scope, value) VALUES (%s, 's', '{}')", (RETRY,))
        found = await results(connection, repair=True)
        waits = found["figures follow dashboard_facts"]
        assert (waits.wrong, waits.repaired) == (1, False)
        assert f"process {other.info.backend_pid}, login" in waits.detail
        assert "application a long import" in waits.detail
        assert [one.check for one in found.values() if not one.ok] == [waits.check]
    await results(connection, repair=True)
    assert [one for one in (await results(connection)).values() if one.wrong] == []


async def test_what_relays_leave_is_in_order(
    connection: Connection, start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn
) -> None:
    relay = await start_relay()
    agent.behave(Behaviour(status=503, times=4), Behaviour(status=422, times=2))
    for number in range(9):
        await relay.post({"event": "message_created", "id": number})
    await relay.post(b"[]")
    await relay.stop()
    assert [one for one in (await results(connection)).values() if one.wrong] == []


def test_the_command_says_what_it_finds_and_repairs(relay_command: CommandLine, rows: Rows, plant: Plant) -> None:
    plant_history(rows, plant)
    for statement in (*DAMAGE["sequences"], *DAMAGE["failure groups"]):
        rows(statement)
    found = relay_command("fsck")
    assert found.returncode == 1
    assert "  WRONG     sequences: 2 × gives an id that is taken" in found.stdout
    repaired = relay_command("fsck", "--repair")
    assert (repaired.returncode, repaired.stdout.splitlines()[-1]) == (0, "The tables agree.")
    assert "  repaired  failure groups: " in repaired.stdout
    assert relay_command("fsck", "--json").returncode == 0
    assert rows("SELECT details -> 'repaired' ->> 'sequences' FROM relay.operator_actions") == ["2"]


def test_a_dump_that_is_restored_is_in_order(
    relay_command: CommandLine, rows: Rows, plant: Plant, postgres: str, tmp_path: Path
) -> None:
    plant_history(rows, plant)
    dump = tmp_path / "relay.dump"
    run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={rows.dsn}")
    with database_like("template1", postgres) as restored:
        run("pg_restore", "--exit-on-error", f"--dbname={restored}", str(dump))
        ended = relay_command("fsck", DATABASE_URL=restored)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        others = Rows(restored)
        for table in ("relay.deliveries", "dashboard_facts", "relay.minutes"):
            assert others.one(f"SELECT count(*) FROM {table}") == rows.one(f"SELECT count(*) FROM {table}")
        others("INSERT INTO dashboard_facts (fact_type, scope, value) VALUES ('support.webhook.retry', 's', '{}')")
        assert relay_command("fsck", DATABASE_URL=restored).returncode == 0, "it counts on"


def run(program: str, *arguments: str) -> None:
    """One of PostgreSQL's own programs, of the server's version."""
    ended = subprocess.run(
        [programs() / program, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
