"""`relay escalate`: all the evidence that the runbook lists, previewed, appended, never overwritten."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo

from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from pathlib import Path

    from relay.demo.agent import AgentStandIn
    from tests.conftest import CommandLine
    from tests.servers import Rows, RunningRelay

REPORT = "reports/manager/ESCALATION.md"
SECRET_TEXT = "what the customer wrote"


async def incident(relay: RunningRelay, agent: AgentStandIn, count: int = 25) -> None:
    agent.behave(Behaviour(status=503))
    agent.healthy = False
    hostile = "``` | <b>\x1b[2J\u202e"
    await asyncio.gather(
        *(relay.post({"event": hostile if not n else "message_created", "id": n, "content": SECRET_TEXT})
          for n in range(count))
    )  # fmt: skip


def report(command: CommandLine) -> Path:
    return command.folder / REPORT


async def test_the_entry_holds_all_the_evidence_that_the_runbook_lists(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine, rows: Rows
) -> None:
    await incident(relay, agent)
    rows("UPDATE dashboard_facts SET recorded_at = recorded_at - interval '570 s' WHERE id = "
         "(SELECT min(id) FROM dashboard_facts WHERE fact_type = 'support.webhook.retry')")  # fmt: skip
    rows("INSERT INTO relay.operator_actions (operator, action, reason) VALUES ('maria', 'discard', 'tried | that')")
    await until(lambda: rows.one("SELECT count(*) FROM relay.log WHERE level = 'error'") == 25)
    env = {"AGENT_SDK_URL": agent.url, "RELAY_URL": relay.url, "CONSOLE_OPERATOR": "jonas",
           "RELAY_OUTAGE_RUNBOOK": "wiki/outage"}  # fmt: skip
    ended = await relay_command.run("escalate", "--yes", "--reason", "please look", **env)
    assert ended.returncode == 0, ended.stderr
    text = report(relay_command).read_text(encoding="utf-8")
    for wanted in (
        "P0: Agent SDK answered 503 since ", "Tags: `support`, `webhook`, `p0`",
        "Notify: Engineering Manager, AI-Customer lane (draft generation is affected), CEO", "Filed by: jonas",
        "Reason: please look", "success-rate-p0", "escalate-dlq", "25 open; 25 in 1 h", "| 25 | 503 |",
        "Success rate: 0.00 % in 15 min", "Agent SDK /health: FAILED (503)", "Webhook failed, dead-lettered",
        "| maria (login: postgres) | discard | tried \\| that |",
        "| open | status | error | oldest died | newest died |", "High Retry Rate: ", "Follow: wiki/outage",
        "| failure | the first delivery failed (503) |",
        "| relay | relay ", "| action | maria (login: postgres): discard (",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert SECRET_TEXT not in text
    assert not {"\x1b", "\u202e"} & set(text + ended.stdout)
    assert rows("SELECT operator, reason FROM relay.operator_actions WHERE action = 'escalate'") == [
        ("jonas", "please look")
    ]


async def test_nothing_is_written_without_confirmation(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine, rows: Rows
) -> None:
    ended = await relay_command.run("escalate", AGENT_SDK_URL=agent.url, RELAY_URL=relay.url)
    assert ended.returncode == 2
    assert "### Recent dead letters" in ended.stdout
    assert "Add --yes" in ended.stderr
    assert not report(relay_command).exists()
    assert rows("SELECT count(*) FROM relay.operator_actions") == [0]


@pytest.mark.slow
async def test_entries_of_several_people_at_once_are_all_written_whole(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine
) -> None:
    report(relay_command).parent.mkdir(parents=True)
    report(relay_command).write_text("# Ours\n\nwritten by hand\n", encoding="utf-8")
    names = ["maria", "jonas", "aiko", "priya"]
    env = {"AGENT_SDK_URL": agent.url, "RELAY_URL": relay.url}
    ended = await asyncio.gather(
        *(relay_command.run("escalate", "--yes", "--severity", "p2", CONSOLE_OPERATOR=name, **env) for name in names)
    )
    assert {one.returncode for one in ended} == {0}
    text = report(relay_command).read_text(encoding="utf-8")
    assert text.startswith("# Ours\n\nwritten by hand\n\n## ")
    entries = text.split("\n## ")[1:]
    assert len(entries) == len(names)
    assert {entry.partition("Filed by: ")[2].partition("\n")[0] for entry in entries} == set(names)
    assert all(entry.count("### ") == 8 for entry in entries)


async def test_as_json_it_reports_what_was_filed(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine
) -> None:
    arguments = ["escalate", "--yes", "--json", "--severity", "p1", "--report", "elsewhere.md"]
    ended = await relay_command.run(*arguments, AGENT_SDK_URL=agent.url, RELAY_URL=relay.url)
    document = json.loads(ended.stdout)
    assert document["level"] == "p1"
    assert document["notify"] == ["Engineering Manager"]
    assert document["entry"] in (relay_command.folder / document["report"]).read_text(encoding="utf-8")


async def test_a_report_that_cannot_be_written_is_said_and_nothing_is_on_record(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine, rows: Rows
) -> None:
    (relay_command.folder / "reports").write_text("in the way", encoding="utf-8")
    ended = await relay_command.run("escalate", "--yes", AGENT_SDK_URL=agent.url, RELAY_URL=relay.url)
    assert ended.returncode == 1
    assert "the escalation cannot be written" in ended.stderr
    assert rows("SELECT count(*) FROM relay.operator_actions") == [0]


def test_without_postgres_the_entry_says_what_could_not_be_read(relay_command: CommandLine) -> None:
    gone = {"DATABASE_URL": "postgresql://none@127.0.0.1:1/none", "AGENT_SDK_URL": "http://127.0.0.1:1"}
    assert relay_command("escalate", **gone).returncode == 2
    assert not report(relay_command).exists()
    ended = relay_command("escalate", "--yes", "--reason", "no | base", **gone)
    assert ended.returncode == 1, ended.stderr
    text = report(relay_command).read_text(encoding="utf-8")
    for wanted in (" P0: ", "Notify: Engineering Manager, CEO", "Reason: no \\| base", "Agent SDK /health: FAILED",
                   "### What could not be read", "the audit"):  # fmt: skip
        assert wanted in text, wanted
    assert "not to the audit" in ended.stdout
    document = json.loads(relay_command("escalate", "--yes", "--json", **gone).stdout)
    assert (document["level"], document["cause"] in document["entry"]) == ("p0", True)


async def test_a_login_that_may_not_write_the_audit_appends_nothing(
    relay: RunningRelay, agent: AgentStandIn, relay_command: CommandLine, rows: Rows
) -> None:
    login = f"reader_{uuid4().hex}"
    rows(f"CREATE ROLE {login} LOGIN IN ROLE console_reader")
    try:
        dsn = make_conninfo(rows.dsn, user=login)
        ended = await relay_command.run(
            "escalate", "--yes", AGENT_SDK_URL=agent.url, RELAY_URL=relay.url, DATABASE_URL=dsn
        )
    finally:
        rows(f"DROP ROLE {login}")
    assert ended.returncode != 0
    assert "This role of Postgres may not do that" in ended.stderr
    assert not report(relay_command).exists()
