"""`relay timeline` and `relay handover`: what happened, what is open and what was done, with and without Postgres."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.store.plant import Plant

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.servers import Rows


def plant_incident(rows: Rows) -> None:
    plant = Plant(rows)
    plant.runs(failed=6, delivered=2, age_s=700)
    plant.dead_letters(6, age_s=700)
    for n in range(6):
        plant.delivery(
            "dead",
            age_s=700,
            body=b'{"event":"message_created","content":"what the customer wrote"}',
            conversation_id=str(n),
        )
    plant.probe(ok=False, age_s=650)
    plant.relay()
    rows("INSERT INTO relay.alerts (rule, since) VALUES ('dlq-warning', now() - interval '10 min')")
    rows("SELECT relay.acknowledge('jonas', 'dlq-warning', 'known | *already*', 3600)")
    rows("SELECT relay.hold('maria', 'a \x1b[2Jdeployment', NULL)")


def test_the_commands_list_an_incident(relay_command: CommandLine, rows: Rows) -> None:
    plant_incident(rows)
    ended = relay_command("timeline")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("database: ")
    assert [line[19:31].strip() for line in lines[1:]] == [
        "Z  failure", "Z  failure", "Z  health", "Z  relay", "Z  alert", "Z  hold"
    ]  # fmt: skip
    assert lines[1:] == sorted(lines[1:], key=lambda line: line[:19])
    assert "\x1b" not in ended.stdout
    assert len(relay_command("timeline", "--since", "660s").stdout.splitlines()) == 5

    passed_on = relay_command("handover", "--since", "1h")
    assert passed_on.returncode == 0, passed_on.stderr
    happened, _, rest = passed_on.stdout.partition("### What is open")
    opened, _, done = rest.partition("### What was done")
    assert happened.startswith("## Handover ")
    assert "Now: Forwarding is held by maria" in happened
    assert "| failure | the first delivery failed (503) |" in happened
    assert "Alert Warning dlq-warning: " in opened
    assert "acknowledged by jonas (login: postgres) until " in opened
    assert "known \\| \\*already\\*" in opened
    assert "6 open dead letters" in opened
    assert "6 × Agent SDK answered 503" in opened
    assert "| hold | maria (login: postgres): hold (" in done
    assert "what the customer wrote" not in passed_on.stdout
    assert "\x1b" not in passed_on.stdout


def test_a_window_that_is_none_is_refused(relay_command: CommandLine) -> None:
    for since in ("soon", "2999-01-01", "9" * 30 + "d", "0s"):
        ended = relay_command("timeline", "--since", since)
        assert (ended.returncode, ended.stderr.count("Traceback")) == (2, 0), since


def test_nothing_on_record_is_said(relay_command: CommandLine) -> None:
    assert "Nothing is on record since " in relay_command("timeline").stdout
    text = json.loads(relay_command("handover", "--json").stdout)["text"]
    assert text.count("Nothing is on record.") == 1
    assert text.endswith("No operator acted.\n")


def test_without_postgres_they_say_what_they_could_not_read(relay_command: CommandLine) -> None:
    for name in ("timeline", "handover"):
        ended = relay_command(name, DATABASE_URL="postgresql://none@127.0.0.1:1/none")
        assert ended.returncode == 1, ended.stderr
        assert "not read: " in ended.stdout
