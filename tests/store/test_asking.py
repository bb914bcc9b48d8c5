"""What operators ask for goes through functions that check it; the audit is signed with the login and never changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relay.errors import Refused
from relay.store import actions, delivery_detail, replays
from relay.store.deliveries import apply_discards
from relay.store.filters import compile_filter
from relay.store.migrate import migrate, migrations
from relay.store.replays import LEAST_RATE, MOST_RATE, Control, PlanRequest
from tests.servers import Rows
from tests.store.attacks import Target, attempts, target_on, tried
from tests.store.plant import Plant
from tests.store.test_roles import connected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from relay.store.replays import DeadLetter

REQUEST = UUID(int=7)


@pytest.fixture
def target(any_postgres: str) -> Iterator[Target]:
    """A migrated database with a history, on each PostgreSQL."""
    with target_on(any_postgres) as made:
        yield made


def name_of(dsn: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(dsn)["user"])


_GIVEN: dict[str, str] = {
    "request": "gen_random_uuid()", "operator": "'maria'", "reason": "''", "filter": "''", "rate": "5", "canary": "1",
    "stop_after": "3", "edited_body": "NULL", "deliveries": "ARRAY[1]", "runs": "ARRAY[1]",
}  # fmt: skip


_NO_RATES = ("NaN", "Infinity", "-Infinity", "-1", "0", "1e-300", "1e300")
_NO_OBJECTS = (
    "''",
    "'null'",
    "'[1]'",
    "'1'",
    "'{'",
    "'\\xff'",
    "'{} {}'",
    """'{"a": NaN}'""",
    "repeat('[', 99999)::bytea",
)


def ask_with(**given: str) -> str:
    return f"SELECT relay.ask_replay({', '.join(f'{name} => {value}' for name, value in (_GIVEN | given).items())})"


_REFUSED: list[tuple[dict[str, str], str]] = [
    ({"request": "NULL"}, "request id"),
    ({"edited_body": "'{}'", "deliveries": "ARRAY[1, 2]", "runs": "ARRAY[1, 1]"}, "exactly one delivery"),
    ({"edited_body": "'{}'", "deliveries": "'{}'", "runs": "'{}'"}, "exactly one delivery"),
    ({"edited_body": "convert_to(repeat('x', 67108865), 'UTF8')"}, "64 MiB"),
    *(({"rate": f"'{rate}'"}, "0.001 to 10,000 a second") for rate in (*_NO_RATES, LEAST_RATE / 2, MOST_RATE + 1)),
    *(({"edited_body": body}, "not a JSON object") for body in _NO_OBJECTS),
    *(({"canary": canary}, "canary") for canary in ("-1", "NULL")),
    *(({"stop_after": limit}, "limit of failures") for limit in ("-1", "NULL")),
    ({"deliveries": "ARRAY[1, 2]"}, "one run for each"),
    ({"deliveries": "NULL"}, "one run for each"),
    ({"runs": "NULL"}, "one run for each"),
    ({"runs": "ARRAY[0]"}, "positive number"),
    ({"runs": "ARRAY[NULL]::int[]"}, "positive number"),
    ({"deliveries": "ARRAY[0]"}, "positive number"),
    ({"deliveries": "ARRAY[NULL]::bigint[]"}, "positive number"),
    ({"deliveries": "ARRAY[9999]"}, "1 of the 1 deliveries do not exist"),
    ({"deliveries": "ARRAY[1, 1]", "runs": "ARRAY[1, 1]"}, "named twice"),
    ({"deliveries": "ARRAY[[1], [2]]", "runs": "ARRAY[1, 1]"}, "list of row ids"),
]


def not_refused(target: Target, calls: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """The calls, each with the reason that it should have, that an operator's login is not refused for that reason."""
    login, before = target.login("console_operator"), target.stored()
    odd = []
    with attempts(login) as attempt:
        for call, why in calls:
            error = attempt(call)
            if error is None or error.sqlstate != "RL001" or why not in (error.diag.message_primary or ""):
                odd.append((call[:300], why, str(error)))
    assert target.stored() == before
    return odd


def test_a_replay_that_cannot_be_carried_out_is_refused_with_the_reason(target: Target) -> None:
    assert not_refused(target, ((ask_with(**given), why) for given, why in _REFUSED)) == []


_ACCEPTED: list[dict[str, str]] = [
    {"rate": "NULL", "canary": "0", "stop_after": "0"},
    {"rate": str(LEAST_RATE)},
    {"rate": str(MOST_RATE)},
    {"edited_body": """convert_to('{"a": "\\u0000", "n": 1e999999}', 'UTF8')"""},
    {"deliveries": "'{}'", "runs": "'{}'"},
]


def test_a_replay_that_can_be_carried_out_is_accepted(target: Target) -> None:
    with attempts(target.login("console_operator")) as attempt:
        assert [(given, error) for given in _ACCEPTED if (error := attempt(ask_with(**given))) is not None] == []


async def letters_of(target: Target) -> list[DeadLetter]:
    async with connected(target.dsn) as connection:
        return await replays.matching(connection, compile_filter(""))


async def test_asked_again_by_the_same_login_it_is_the_same_plan_and_another_login_is_refused(target: Target) -> None:
    letters = await letters_of(target)
    request = PlanRequest(REQUEST, "maria")
    mine, other = target.login("console_operator"), target.login("console_operator")
    async with connected(mine) as connection:
        plan = await replays.ask(connection, request, letters)
        assert await replays.ask(connection, request, letters) == plan
        for other_one in (replace(request, rate=7), replace(request, canary=1), replace(request, edited_body=b"{}")):
            with pytest.raises(Refused, match="another replay"):
                await replays.ask(connection, other_one, letters)
        for other_letters in ([], [replace(one, run=9) for one in letters]):
            with pytest.raises(Refused, match="another replay"):
                await replays.ask(connection, request, other_letters)
    async with connected(other) as connection:
        with pytest.raises(Refused, match="another login"):
            await replays.ask(connection, request, letters)
        await replays.control(connection, plan, Control.PAUSE, operator="jonas")
    assert target.rows("SELECT count(*) FROM relay.replay_items WHERE plan_id = %s", (plan,)) == [len(letters)]
    async with connected(target.dsn) as connection:
        found = await replays.plan(connection, plan)
        newest = await actions.newest(connection, 2)
        detail = await delivery_detail.detail(connection, letters[0].id)
    assert found is not None
    assert found.login == name_of(mine)
    assert [(one.operator, one.login, one.action) for one in newest] == [
        ("jonas", name_of(other), "replay.pause"), ("maria", name_of(mine), "replay"),
    ]  # fmt: skip
    assert newest[1].who == f"maria (login: {name_of(mine)})"
    assert detail is not None
    assert detail.replays[-1].login == name_of(mine)


def test_only_a_plan_that_exists_is_controlled_and_only_by_the_three_controls(target: Target) -> None:
    given = (("'replay.stop'", 999), ("'discard'", 1), ("'replay'", 1), ("NULL", 1))
    calls = (f"SELECT relay.control_replay({plan}, {control}, 'maria', '')" for control, plan in given)
    assert not_refused(target, ((call, "") for call in calls)) == []


async def test_only_known_actions_are_recorded(target: Target) -> None:
    async with connected(target.login("console_operator")) as connection:
        for action in ("discard", "replay", "replay.stop", "replay.pause", "", "note\n", "anything"):
            with pytest.raises(Refused, match="no action"):
                await actions.record(connection, "maria", action, "", {})
        with pytest.raises(Refused, match="16 KiB"):
            await actions.record(connection, "maria", "note", "", {"a": "x" * 20_000})
        await actions.record(connection, "maria", "note", "looked at it", {"a": 1})


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("maria\x1b]52;c;x\x07", "maria�]52;c;x�"),
        ("maria\n(CEO)\u202e\u200b\x9b", "maria�(CEO)���"),
        ("m" * 500, "m" * 99 + "…"),
        ("  maria  ", "maria"),
        ("Ünïcode 張", "Ünïcode 張"),
    ],
)
async def test_a_name_is_stored_clean_and_capped(target: Target, typed: str, stored: str) -> None:
    for dsn in (target.login("console_operator"), target.dsn):
        async with connected(dsn) as connection:
            await actions.record(connection, typed, "note", typed, {})
            await replays.ask(connection, PlanRequest(uuid4(), typed), [])
    target.rows("INSERT INTO relay.operator_actions (operator, action) VALUES (%s, 'note')", (typed,))
    names = target.rows("SELECT DISTINCT operator FROM relay.operator_actions WHERE id > 1")
    assert names == target.rows("SELECT DISTINCT requested_by FROM relay.replay_plans WHERE id > 1") == [stored]


@pytest.mark.parametrize("name", ["", "   ", None])
def test_an_action_without_a_name_is_the_logins(target: Target, name: str | None) -> None:
    dsn = target.login("console_operator")
    Rows(dsn)("SELECT relay.record_action(%s, 'note', NULL, NULL)", (name,))
    assert target.rows.one("SELECT operator, reason FROM relay.operator_actions WHERE action = 'note'") == (
        name_of(dsn), "",
    )  # fmt: skip


def test_the_login_cannot_be_chosen_not_even_by_the_owner(target: Target) -> None:
    target.rows("INSERT INTO relay.operator_actions (operator, action, login) VALUES ('maria', 'note', 'maria')")
    target.rows(
        "INSERT INTO relay.replay_plans (request_id, requested_by, login) VALUES (gen_random_uuid(), 'maria', 'maria')"
    )
    assert set(target.rows("SELECT login FROM relay.operator_actions")) == {"postgres"}
    assert set(target.rows("SELECT login FROM relay.replay_plans")) == {"postgres"}


def test_the_login_is_that_of_the_session_whatever_role_it_takes(target: Target) -> None:
    dsn = target.login("console_operator")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET ROLE console_operator")
        connection.execute("SELECT relay.record_action('maria', 'note', '', '{}')")
    assert target.rows.one("SELECT login FROM relay.operator_actions WHERE action = 'note'") == name_of(dsn)


_CHANGES = [
    "UPDATE relay.operator_actions SET operator = 'another operator'",
    "UPDATE relay.operator_actions SET reason = '' WHERE false",
    "DELETE FROM relay.operator_actions",
    "TRUNCATE relay.operator_actions",
    (
        "INSERT INTO relay.operator_actions (id, operator, action) OVERRIDING SYSTEM VALUE VALUES (1, 'm', 'note') "
        "ON CONFLICT (id) DO UPDATE SET operator = excluded.operator"
    ),
]


def test_the_audit_is_append_only_for_the_owner_too(target: Target) -> None:
    before = target.stored()
    with attempts(target.dsn) as attempt:
        assert [change for change in _CHANGES if "append-only" not in str(attempt(change))] == []
    assert target.stored() == before


_OLD = [
    "INSERT INTO relay.operator_actions (operator, action, deliveries) VALUES ('maria', 'discard', '{1}')",
    (
        "INSERT INTO relay.operator_actions (operator, action, deliveries, applied_at, result) "
        "VALUES ('maria', 'discard', '{2}', now(), '{\"discarded\": 1, \"asked\": 1}')"
    ),
    "INSERT INTO relay.replay_plans (request_id, requested_by) VALUES ('00000000-0000-0000-0000-000000000007', 'm')",
    "GRANT USAGE ON SCHEMA relay TO relay_service, console_operator, console_reader",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA relay TO relay_service",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA relay TO relay_service",
    "GRANT SELECT ON ALL TABLES IN SCHEMA relay TO console_operator, console_reader",
    "GRANT SELECT ON dashboard_facts TO relay_service, console_operator, console_reader",
    "GRANT INSERT, DELETE ON dashboard_facts TO relay_service",
    (
        "GRANT INSERT (request_id, requested_by, reason, filter, rate, canary, stop_after, edited_body, total) "
        "ON relay.replay_plans TO console_operator"
    ),
    "GRANT INSERT (plan_id, position, delivery, run) ON relay.replay_items TO console_operator",
    (
        "GRANT INSERT (operator, action, plan_id, deliveries, reason, details) ON relay.operator_actions "
        "TO console_operator"
    ),
]


@pytest.mark.parametrize("again", [False, True], ids=["migrated", "and roles.sql run again"])
async def test_an_installation_of_before_keeps_its_rows_and_loses_the_old_rights(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    old = [step for step in migrations() if step.version <= 14]
    monkeypatch.setattr("relay.store.migrate.migrations", lambda: old)
    await migrate(any_dsn)
    monkeypatch.undo()
    rows = Rows(any_dsn)
    if not rows("SELECT 1 FROM pg_roles WHERE rolname = 'console_reader'"):
        rows("CREATE ROLE relay_service; CREATE ROLE console_operator; CREATE ROLE console_reader")
    Plant(rows).delivery("dead", delivery_id="open")
    for statement in _OLD:
        rows(statement)
    await migrate(any_dsn, roles=again)
    target = Target(any_dsn)
    operator, service, reader = (target.login(role) for role in ("console_operator", "relay_service", "console_reader"))
    try:
        assert rows("SELECT operator, login, action FROM relay.operator_actions ORDER BY id") == [
            ("maria", None, "discard"), ("maria", None, "discard"),
        ]  # fmt: skip
        assert rows("SELECT action, applied_at FROM relay.discards") == [(1, None)]
        async with connected(service) as connection:
            assert await apply_discards(connection) == 1
            assert [one.result for one in await actions.newest(connection, 5)] == [{"discarded": 1, "asked": 1}] * 2
        assert rows("SELECT state FROM relay.deliveries") == ["discarded"]
        for dsn in (operator, service, reader):
            for statement in (*_OLD[:3], "UPDATE relay.operator_actions SET reason = ''", "SELECT relay.roll_up()"):
                error: Any = tried(dsn, statement)
                assert isinstance(error, psycopg.errors.InsufficientPrivilege), (dsn, statement)
        async with connected(operator) as connection:
            assert await replays.ask(connection, PlanRequest(uuid4(), "maria"), await letters_of(target)) > 1
            with pytest.raises(Refused, match="another login"):
                await replays.ask(connection, PlanRequest(REQUEST, "m"), [])
    finally:
        target.close()


def backfill_with(change: dict[str, object] | None = None, **given: str) -> str:
    """A call that stores message 5 of account 1 in conversation 7; `change` and `given` say otherwise."""
    message = {"event": "message_created", "id": 5, "message_type": "incoming", "private": False, "content": "hi",
               "account": {"id": 1}, "conversation": {"id": 7}}  # fmt: skip
    text = json.dumps(message | (change or {}))
    plain = {
        "ids": "'{backfill-1-5}'", "conversations": "'{7}'", "operator": "'maria'",
        "bodies": f"ARRAY[convert_to($body${text}$body$, 'UTF8')]",
    } | given  # fmt: skip
    return f"SELECT relay.store_backfill({', '.join(f'{name} => {value}' for name, value in plain.items())})"


_MANY = "(SELECT array_agg({}) FROM generate_series(1, 501) AS n)"


_NO_BACKFILLS: list[tuple[str, str]] = [
        *((backfill_with({name: value}), "not the message_created") for name, value in (
            ("id", 6), ("id", "5"), ("id", None), ("account", {"id": 2}), ("account", 1), ("conversation", {"id": 8}),
            ("event", "conversation_created"), ("message_type", "outgoing"), ("private", True),
        )),
        *((backfill_with(bodies=f"ARRAY[{body}]"), "not the message_created") for body in (
            "'not JSON'::bytea", "'[]'::bytea", "''::bytea", "NULL::bytea", "'\\xff'::bytea",
        )),
        *((backfill_with(ids=f"ARRAY['{one}']"), "not backfill-ACCOUNT-MESSAGE") for one in (
            "x", "backfill-1", "backfill-01-5", "backfill-1-0", "backfill-1-5\n", "backfill-1-" + "9" * 30,
        )),
        (backfill_with(ids="ARRAY[NULL]::text[]"), "not backfill-ACCOUNT-MESSAGE"),
        (backfill_with(ids="'{{backfill-1-5}}'"), "one conversation and one body"),
        (backfill_with(conversations="'{}'"), "one conversation and one body"),
        (backfill_with(conversations="'{x}'"), "not the message_created"),
        (backfill_with(bodies="ARRAY[convert_to(repeat('x', 70000000), 'UTF8')]"), "larger than 64 MiB"),
        (backfill_with(
            ids="ARRAY['backfill-1-1', 'backfill-1-2', 'backfill-1-3', 'backfill-1-4', 'backfill-1-5']",
            conversations="'{7,7,7,7,7}'",
            bodies="array_fill(convert_to(repeat('x', 4000000), 'UTF8'), ARRAY[5])",
        ), "more than 16 MiB"),
        (backfill_with(
            ids=_MANY.format("'backfill-1-' || n"), conversations=_MANY.format("'7'::text"),
            bodies=_MANY.format("''::bytea"),
        ), "more than 500"),
        (backfill_with(
            ids="'{backfill-1-5,backfill-1-5}'", conversations="'{7,7}'", bodies="ARRAY[''::bytea, '']",
        ), "named twice"),
]  # fmt: skip


def test_a_backfill_of_anything_but_customers_messages_is_refused(target: Target) -> None:
    assert not_refused(target, _NO_BACKFILLS) == []


async def test_a_backfill_is_in_the_audit_under_the_login(target: Target) -> None:
    login = target.login("console_operator")
    for _ in range(2):
        assert Rows(login)(backfill_with(operator="'the CEO'"))
    async with connected(target.dsn) as connection:
        newest = await actions.newest(connection, 2)
    assert {one.who for one in newest} == {f"the CEO (login: {name_of(login)})"}
    assert [(one.action, one.details["asked"], one.details["stored"], one.details["first"]) for one in newest] == [
        ("backfill", 1, 0, ["backfill-1-5"]), ("backfill", 1, 1, ["backfill-1-5"]),
    ]  # fmt: skip


def test_the_audits_time_is_the_moment_of_the_action(target: Target) -> None:
    with psycopg.connect(target.login("console_operator")) as connection:
        begun = connection.execute("SELECT now()").fetchone()
        connection.execute("SELECT pg_sleep(0.01)")
        connection.execute("SELECT relay.record_action('maria', 'note', '', '{}')")
        connection.execute(ask_with())
    later = "SELECT max({}) > %s + interval '10 ms' FROM relay.{}"
    assert target.rows(later.format("at", "operator_actions"), begun) == [True]
    assert target.rows(later.format("created_at", "replay_plans"), begun) == [True]


def test_one_login_cannot_fill_the_audit(target: Target) -> None:
    notes = "SELECT count(relay.record_action('maria', 'note', '', '{}')) FROM generate_series(1, {})"
    one, other = target.login("console_operator"), target.login("console_operator")
    before = target.rows("SELECT count(*) FROM relay.operator_actions")
    error = tried(one, notes.replace("{})", "20000)"))
    assert error is not None
    assert (error.sqlstate, "1,000 actions a minute" in str(error)) == ("RL001", True)
    assert target.rows("SELECT count(*) FROM relay.operator_actions") == before
    assert tried(one, notes.replace("{})", "1000)")) is None
    assert tried(other, notes.replace("{})", "1000)")) is None
