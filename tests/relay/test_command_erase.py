"""`relay erase`: nothing that a person wrote is left, and nothing else is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from relay.domain.delivery import Receipt
from relay.domain.person import Person
from relay.store.spool import address_of
from relay.store.spool_file import SpoolFile
from relay.store.spooled import SpooledReceipt
from tests.servers import Behaviour
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.conftest import CommandLine
    from tests.servers import AgentStandIn, Rows, RunningRelay

THEIRS, OTHERS = "jane-marker-wrote-this", "somebody-else-wrote-this"


def message(conversation: int, contact: int, text: str, **more: Any) -> dict[str, Any]:
    """A message of a contact in a conversation of account 1."""
    return {
        "event": "message_created", "content": text, "message_type": "incoming", "account": {"id": 1},
        "sender": {"id": contact, "type": "contact", "name": text}, "conversation": {"id": conversation},
    } | more  # fmt: skip


def everything(rows: Rows) -> str:
    """All rows of every table, as text, and the bodies of deliveries."""
    tables = rows(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('relay', 'public')"
    )
    texts = [str(row) for table in tables for row in rows(f"SELECT t::text FROM {table} AS t")]
    return "\n".join(texts + [bytes(body).decode() for body in rows("SELECT body FROM relay.deliveries")])


@pytest.mark.parametrize("option", [("--conversation", "7"), ("--contact", "14")])
async def test_a_persons_payloads_go_and_all_else_stays(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows, relay_command: CommandLine,
    option: tuple[str, str],
) -> None:  # fmt: skip
    relay = await start_relay(chatwoot_webhook_max_attempts=1)
    for status in (200, 422):
        agent.behave(Behaviour(status=status, error=THEIRS if status == 422 else None))
        await relay.post(message(7, 14, THEIRS))
        await relay.post(message(7, 14, THEIRS, event="message_updated", status=status))
        agent.behave(Behaviour(status=status))
        await relay.post(message(77, 147, OTHERS, n=status))
    await relay.stop()
    before = rows("SELECT state, count(*) FROM relay.deliveries GROUP BY 1 ORDER BY 1")
    figures = rows("SELECT fact_type, sum(facts) FROM relay.minutes GROUP BY 1 ORDER BY 1")
    assert before == [("dead", 3), ("delivered", 3)]

    planned = await relay_command.run("erase", *option, "--dry-run", "--json")
    assert json.loads(planned.stdout) | {"database": {}} == {
        "database": {}, "erased": f"{option[0][2:]} {option[1]}", "dry_run": True, "deliveries": 4, "facts": 2,
        "drafts": 0, "unfinished": 0, "spooled": 0,
    }  # fmt: skip
    assert THEIRS in everything(rows)

    ended = await relay_command.run("erase", *option, "--reason", "asked for it", CONSOLE_OPERATOR="maria")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"{option[0][2:].capitalize()} {option[1]}: 4 payloads, 2 facts, 0 drafts erased." in ended.stdout
    assert OTHERS in everything(rows)
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE position(%s IN body) > 0", (THEIRS.encode(),)) == 0
    assert rows.one("SELECT count(*) FROM relay.attempts WHERE answer LIKE %s", (f"%{THEIRS}%",)) == 0
    payloads = [value["payload"] for value, _ in rows.facts("support.webhook.dead_letter")]
    assert payloads.count({"erased": True}) == 2
    assert rows("SELECT state, count(*) FROM relay.deliveries GROUP BY 1 ORDER BY 1") == [
        ("dead", 1), ("delivered", 3), ("discarded", 2),
    ]  # fmt: skip
    assert rows("SELECT fact_type, sum(facts) FROM relay.minutes GROUP BY 1 ORDER BY 1") == figures
    ((who, why, details),) = rows(
        "SELECT operator, reason, details FROM relay.operator_actions WHERE details ? 'erase' ORDER BY id"
    )
    assert (who, why, details["deliveries"]) == ("maria", "asked for it", 4)
    again = await relay_command.run("erase", *option, "--json")
    assert json.loads(again.stdout)["deliveries"] == 0
    assert (await relay_command.run("fsck")).returncode == 0


async def test_what_is_still_to_be_forwarded_is_left_and_said(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, relay_command: CommandLine
) -> None:
    relay = await start_relay(relay_respond="stored")
    agent.hold()
    await relay.post(message(7, 14, THEIRS))
    ended = await relay_command.run("erase", "--conversation", "7")
    assert ended.returncode == 1
    assert "1 delivery still to be forwarded" in ended.stdout
    agent.release()


async def test_receipts_in_this_hosts_spool_go_too(relay_command: CommandLine, rows: Rows, tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool.db", max_bytes=1 << 20, address=address_of(rows.dsn))
    for name, payload in (("theirs", message(7, 14, THEIRS)), ("other's", message(77, 147, OTHERS))):
        body = json.dumps(payload).encode()
        receipt = Receipt(name, (), body, event="message_created", conversation_id=None, customer=True, test=False)
        file.append([SpooledReceipt(uuid4(), receipt, datetime.now(UTC))])
    here = {"RELAY_DATA_DIR": str(tmp_path), "DATABASE_URL": rows.dsn}
    for option in ("--conversation=7", "--contact=14"):
        planned = await relay_command.run("erase", option, "--dry-run", "--json", **here)
        assert json.loads(planned.stdout)["spooled"] == 1
    assert file.state().receipts == 2
    ended = await relay_command.run("erase", "--contact", "14", **here)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "This host's spool: 1 receipt erased." in ended.stdout
    assert [item.receipt.delivery_id for item in file.page(most=9, most_bytes=1 << 20)] == ["other's"]
    file.close()
    assert THEIRS.encode() not in (tmp_path / "spool.db").read_bytes()
    (tmp_path / "spool.db.damaged-20261127T120000").write_text(THEIRS)
    damaged = await relay_command.run("erase", "--contact", "14", **here)
    assert damaged.returncode == 1
    assert "Not searched, delete once it is of no use: spool.db.damaged-20261127T120000 in " in damaged.stderr
    assert rows("SELECT details ->> 'spooled' FROM relay.operator_actions WHERE details ? 'erase'") == ["1", "0"]


async def test_wrong_use_and_missing_rights_are_one_line(relay_command: CommandLine, rows: Rows) -> None:
    plant = Plant(rows)
    for arguments in ((), ("--conversation", "7", "--contact", "14"), ("--conversation", "0")):
        assert (await relay_command.run("erase", *arguments)).returncode == 2, arguments
    plant.delivery("delivered", conversation_id="7", body=b'{"conversation": {"id": 7}}')
    name = f"login_{rows.one('SELECT pg_backend_pid()')}"
    rows(f"CREATE ROLE {name} LOGIN IN ROLE console_operator")
    try:
        dsn = psycopg.conninfo.make_conninfo(rows.dsn, user=name)
        for command in (("erase", "--conversation", "7"), ("fsck",)):
            ended = await relay_command.run(*command, DATABASE_URL=dsn)
            assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
            assert f"`relay {command[0]}` needs the login that owns the relay's tables, postgres" in ended.stderr
    finally:
        rows(f"DROP ROLE {name}")


CONCERNS = [
    (Person(contact=14), {"event": "contact_updated", "id": 14}, True),
    (Person(contact=14), {"event": "webwidget_triggered", "contact": {"id": 14}}, True),
    (Person(contact=14), {"conversation": {"contact_inbox": {"contact_id": 14}}, "sender": {"type": "user"}}, True),
    (Person(contact=14), {"event": "conversation_created", "id": 9, "meta": {"sender": {"id": 14}}}, True),
    (Person(contact=14), {"sender": {"id": 14, "type": "user"}}, False),
    (Person(contact=14), {"event": "message_created", "id": 14, "conversation": {"id": 14}}, False),
    (Person(conversation=7), {"event": "conversation_status_changed", "id": 7}, True),
    (Person(conversation=7), {"event": "message_created", "id": 7, "conversation": {"id": 8}}, False),
    (Person(conversation=7, account=2), {"account": {"id": 1}, "conversation": {"id": 7}}, False),
    (Person(conversation=7, account=2), {"account": {"id": "2"}, "conversation": {"id": 7}}, True),
    (Person(conversation=7), ["conversation", 7], False),
]  # fmt: skip


def test_whose_a_payload_is() -> None:
    assert [case for case in CONCERNS if case[0].concerns(case[1]) is not case[2]] == []
