"""Text is cleaned where rows leave the store, whatever table it is in; keys keep matching their rows."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from relay.domain.delivery import State
from relay.store import (
    actions,
    alerts,
    browse,
    claims,
    delivery_detail,
    facts,
    instances,
    log,
    notes,
    outages,
    overview,
    refused,
    replays,
    timeline,
)  # fmt: skip
from relay.store.database import Database, connect
from relay.store.deliveries import progress
from relay.store.filters import compile_filter
from relay.store.sessions import open_session
from tests.servers import ROOT
from tests.store.hostile import HOSTILE, harmful, plant_hostile, texts_in

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from relay.store.database import Connection
    from tests.servers import Rows

LONG = "x" * 1_200_500


def every_reading(connection: Connection, row_id: int) -> dict[str, Awaitable[Any]]:
    """What screens and commands read."""
    everything = compile_filter("")
    since = datetime.now(UTC) - timedelta(days=1)
    return {
        "overview": overview.read(connection),
        "streaks": overview.streaks(connection),
        "health": facts.last_health(connection),
        "refused": refused.refused(connection),
        "liveness": instances.liveness(connection),
        "active alerts": alerts.active(connection),
        "raised alerts": alerts.raised_since(connection, since),
        "notices": alerts.due(connection),
        "actions": actions.newest(connection, 10),
        "timeline": timeline.read(connection, since),
        "groups": browse.groups(connection),
        "dead letters": browse.window(connection, everything, states=(State.DEAD,)),
        "deliveries": browse.window(connection, everything, states=None),
        "detail": delivery_detail.detail(connection, row_id),
        "plans": browse.plans(connection, 10),
        "newest log": log.before(connection, None, 10),
        "log": log.after(connection, 0, 10),
        "progress": progress(connection, HOSTILE),
        "frozen": replays.matching(connection, everything),
        "plan": replays.plan(connection, 1),
        "outage": outages.last(connection),
    }


async def test_no_reading_of_any_table_gives_text_that_could_harm(dsn: str, rows: Rows) -> None:
    row_id = plant_hostile(rows)
    rows("UPDATE relay.instances SET name = %s", (HOSTILE,))
    async with await connect(dsn, "tests") as connection:
        found = {name: await reading for name, reading in every_reading(connection, row_id).items()}
    detail = found["detail"]
    harm = {name: sorted(set().union(*map(harmful, texts_in(value)))) for name, value in found.items()}
    assert {name: characters for name, characters in harm.items() if characters} == {"detail": ["\n"]}  # an answer's
    silent = {"active alerts", "outage", "streaks"}
    assert {name for name, value in found.items() if "␛]52;" not in "".join(texts_in(value))} <= silent
    assert detail.headers == (("x-chatwoot-event", clean_of(HOSTILE)),)


def clean_of(text: str) -> str:
    """What is shown of `HOSTILE`, written out."""
    pictures = {chr(code): chr(0x2400 + code) for code in range(0x20)} | {"\x7f": "␡"}
    return "".join(pictures.get(c) or (f"<U+{ord(c):04X}>" if harmful(c) else c) for c in text)


@pytest.mark.parametrize("kind", ["pool", "console", "command"])
async def test_every_kind_of_connection_cleans_what_any_query_reads(dsn: str, kind: str) -> None:
    query = "SELECT %(t)s::text, ARRAY[%(t)s::text], jsonb_build_object(%(t)s::text, %(t)s::text), %(t)s::bytea, 1"
    database = Database(dsn)
    await database.open()
    if kind == "pool":
        async with database.connection() as connection:
            row = await (await connection.execute(query, {"t": "a\x1b\u202e"})).fetchone()
    elif kind == "console":
        async with await open_session(dsn, read_only=True, application="t", timeout_ms=60_000) as connection:
            row = await (await connection.execute(query, {"t": "a\x1b\u202e"})).fetchone()
    else:
        async with await connect(dsn, "t") as connection:
            row = await (await connection.execute(query, {"t": "a\x1b\u202e"})).fetchone()
    await database.close()
    shown = "a␛<U+202E>"
    assert row == (shown, [shown], {shown: shown}, "a\x1b\u202e".encode(), 1)


async def test_what_is_too_long_says_how_much_is_missing(dsn: str) -> None:
    async with await connect(dsn, "tests") as connection:
        (text,) = await (await connection.execute("SELECT %s", (LONG,))).fetchone() or ("",)
    assert text == "x" * 500 + "… 1.2 MB more"


async def test_json_that_nests_deeper_than_python_reads_spoils_no_reading(dsn: str, rows: Rows) -> None:
    deep = "[" * 4_000 + "]" * 4_000
    rows("INSERT INTO relay.operator_actions (operator, action, details) VALUES ('o', 'a', %s::jsonb)", (deep,))
    rows("INSERT INTO relay.operator_actions (operator, action, details) VALUES ('o', 'b', '[1]')")
    async with await connect(dsn, "tests") as connection:
        found = await actions.newest(connection, 5)
    assert [action.details for action in found] == [{"value": [1]}, {"value": "nested too deeply to be read"}]


# Keys


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("503", "Agent SDK answered 503"),
        (HOSTILE, HOSTILE),
        ("Odd Status", 'with "quotes" and \\ and \\u001b written out'),
        ("a,b", "of a status with a comma"),
        ("\u0085", "\U000e0041\U0010ffff"),
        ("5xx\x1b", LONG[:2_500]),
    ],
)
async def test_the_filter_of_a_group_finds_its_rows_and_is_safe_to_show(
    dsn: str, rows: Rows, status: str, error: str
) -> None:
    first = plant_hostile(rows, "another")
    found = "UPDATE relay.deliveries SET final_status = %s, last_error = %s WHERE id = %s"
    second = plant_hostile(rows, "one")
    rows(found, (status, error, second))
    async with await connect(dsn, "tests") as connection:
        groups = {group.filter: group for group in await browse.groups(connection)}
        assert len(groups) == 2
        for text in groups:
            assert not harmful(text)
            matching = await browse.window(connection, compile_filter(text), states=(State.DEAD,))
            assert len(matching) == await browse.count(connection, compile_filter(text), (State.DEAD,)) == 1
            assert {row.id for row in matching} <= {first, second}


async def test_groups_of_like_errors_are_distinguished(dsn: str, rows: Rows) -> None:
    for number, error in enumerate(("a\x1b", "a␛")):
        row_id = plant_hostile(rows, f"t{number}")
        rows("UPDATE relay.deliveries SET final_status = '503', last_error = %s WHERE id = %s", (error, row_id))
    async with await connect(dsn, "tests") as connection:
        groups = await browse.groups(connection)
    assert {group.last_error for group in groups} == {"a␛"}
    assert len({group.filter for group in groups}) == 2


async def test_what_is_forwarded_and_posted_stays_exact(dsn: str, rows: Rows) -> None:
    plant_hostile(rows)
    rows("UPDATE relay.deliveries SET state = 'received'")
    async with await connect(dsn, "tests") as connection:
        (claimed,) = await claims.claim_backlog(connection, uuid4(), most=9, most_bytes=9_000)
        key, claim = notes.NoteKey(HOSTILE, 1, 2, 3), uuid4()
        await notes.claim(connection, key, claim, 60)
        await notes.keep_draft(connection, key, claim, HOSTILE)
        note = await notes.claim(connection, key, claim, 60)
    assert claimed.delivery.delivery_id == claimed.delivery.event == HOSTILE
    assert claimed.delivery.headers == (("x-chatwoot-event", HOSTILE),)
    assert json.loads(claimed.delivery.body)["event"] == HOSTILE
    assert note.draft == HOSTILE


async def test_a_dead_letter_is_found_by_its_exact_id(dsn: str, rows: Rows) -> None:
    row_id = plant_hostile(rows)
    async with await connect(dsn, "tests") as connection:
        letters, states = await replays.named(connection, [HOSTILE, "unknown"])
    assert ([letter.id for letter in letters], states) == ([row_id], {HOSTILE: "dead"})


# The one place

_EXACT = {
    ("browse", "groups"), ("storing", "_execute_store"), ("storing", "_known"),
    ("gate", "heal_order"),
    ("claims", "claim_abandoned"), ("claims", "claim_backlog"), ("claims", "claim_probe"),
    ("claims", "claim_tests"), ("claims", "read_claimed"), ("finishing", "finish"), ("notes", "claim"),
    ("backfill", "known_messages"),
    ("backfill", "messages_of"), ("backfill", "_store_part"), ("effects", "_settings"), ("replay_work", "claim_next"),
    ("replays", "states_of"), ("signatures", "deliveries_of"), ("signatures", "deliveries_with_expired"),
    ("erasure", "_aside"), ("erasure", "_facts"),
}  # fmt: skip
"""The queries that need exact text. Another one belongs here only if its text is a key, is parsed, or is sent on."""


def test_connections_are_made_in_one_place_and_exact_rows_are_read_where_they_are_needed() -> None:
    connecting, exact = [], set()
    for path in sorted([*(ROOT / "relay").rglob("*.py"), *(ROOT / "console").rglob("*.py")]):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for call in ast.walk(function):
                if not isinstance(call, ast.Call):
                    continue
                source = ast.unparse(call.func)
                if (source.startswith("psycopg.") and source.endswith("connect")) or "ConnectionPool" in source:
                    connecting.append(path.name)
                if source in {"exact", "exact_rows_of"}:
                    exact.add((path.stem, function.name))
                if any(keyword.arg == "row_factory" for keyword in call.keywords):
                    assert path.name in {"database.py", "server_session.py"}, path
    assert set(connecting) == {"database.py"}
    assert exact == _EXACT
