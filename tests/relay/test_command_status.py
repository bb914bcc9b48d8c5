"""`relay status`: the overview as text and as JSON, and an exit status that says whether an operator must act."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from relay.settings import Settings
from tests.servers import free_port, until
from tests.store.plant import REJECTED, Plant

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.servers import Rows, RunningRelay


@pytest.fixture
def plant(rows: Rows) -> Plant:
    return Plant(rows)


def line(text: str, name: str) -> str:
    """The first line of the overview called `name`, without its name."""
    return next(found.removeprefix(name).strip() for found in text.splitlines() if found.startswith(f"{name} "))


async def test_a_relay_that_is_well_is_exit_status_0(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows
) -> None:
    await until(lambda: rows.facts("support.health"))
    await relay.post({"event": "message_created"})
    ended = await relay_command.run("status")
    assert ended.returncode == 0, ended.stdout
    assert line(ended.stdout, "alerts") == "none"
    assert line(ended.stdout, "success").startswith("100.00 % in 15 min")
    assert line(ended.stdout, "deliveries") == "1 delivered, 0 failed in 1 h; 0 in flight"
    assert line(ended.stdout, "dead letters") == "0 open; 0 in 1 h, 0 in 24 h"
    assert line(ended.stdout, "health").startswith("Agent SDK: ok, ")
    assert "UNSIGNED webhooks accepted" in line(ended.stdout, "relays")


def test_without_any_relay_it_fails_and_says_how_to_start_one(relay_command: CommandLine) -> None:
    ended = relay_command("status")
    assert ended.returncode == 1
    assert line(ended.stdout, "relays") == "none has run in the last day; start one with: relay serve"
    assert line(ended.stdout, "success") == "no data in 15 min, no data in 1 h, no data in 24 h"


def test_a_relay_without_heartbeats_is_an_alert(relay_command: CommandLine, plant: Plant) -> None:
    plant.relay(heartbeat_age_s=660)
    ended = relay_command("status")
    assert ended.returncode == 1
    assert line(ended.stdout, "relays").startswith("NONE ALIVE")
    assert "relay-down" in line(ended.stdout, "alerts")


def test_a_relay_whose_agent_is_the_default_is_named(relay_command: CommandLine, plant: Plant, rows: Rows) -> None:
    plant.relay()
    assert "is the default" not in relay_command("status").stdout
    rows("UPDATE relay.instances SET agent = %s", (Settings(_env_file=None).agent_endpoint,))
    ended = relay_command("status")
    assert "AGENT_SDK_URL is the default: deliveries go to https://hotdash-agent-service.fly.dev" in ended.stdout
    assert json.loads(relay_command("status", "--json").stdout)["relays"][0]["agent_is_default"] is True


def test_an_alert_is_named_with_its_condition_and_its_value(relay_command: CommandLine, plant: Plant) -> None:
    plant.relay()
    plant.dead_letters(7)
    ended = relay_command("status")
    assert ended.returncode == 1
    shown = line(ended.stdout, "alerts")
    assert shown.startswith("Warning  dlq-warning: more than 5 dead letters in 1 h (")
    assert "7" in shown


def test_json_holds_the_same_figures(relay_command: CommandLine, plant: Plant) -> None:
    plant.relay(name="host/1/127.0.0.1:8788")
    plant.runs(delivered=3, failed=1, attempts=2, duration_ms=100)
    plant.dead_letters(7)
    plant.delivery("dead")
    plant.facts(REJECTED, {"reason": "invalid_signature", "status": 401, "count": 4})
    ended = relay_command("status", "--json")
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    hour = document["windows"]["1h"]
    assert (hour["delivered"], hour["failed"], hour["success_rate_percent"]) == (3, 1, 75)
    assert hour["average_attempts"] == 2
    assert hour["failures_by_status"] == {"503": 1}
    assert hour["rejected_by_reason"] == {"invalid_signature": 4}
    assert document["dead_letters"] == {"open": 1, "1h": 7, "24h": 7}
    assert [relay["name"] for relay in document["relays"]] == ["host/1/127.0.0.1:8788"]
    firing = {alert["rule"]: alert for alert in document["alerts"] if alert["firing"]}
    assert {"dlq-warning", "refused-p0"} <= set(firing)
    assert firing["dlq-warning"]["severity"] == "Warning"
    assert (firing["dlq-warning"]["value"], firing["dlq-warning"]["threshold"]) == (7, 5)


def test_what_is_under_way_is_shown_with_the_age_of_the_oldest(relay_command: CommandLine, plant: Plant) -> None:
    relay = plant.relay()
    plant.delivery("forwarding", owner=relay, age_s=90)
    plant.delivery("forwarding", owner=relay, age_s=5)
    ended = relay_command("status")
    assert re.search(r"; 2 in flight, the oldest for 9\d\.\d s$", line(ended.stdout, "deliveries"))


def test_while_postgres_is_away_it_says_so_and_what_it_could_not_read(relay_command: CommandLine) -> None:
    away = {
        "DATABASE_URL": f"postgresql://127.0.0.1:{free_port()}/none", "AGENT_SDK_URL": f"http://127.0.0.1:{free_port()}",
        "RELAY_URL": f"http://127.0.0.1:{free_port()}",
    }  # fmt: skip
    for command in ("status", "diagnose"):
        ended = relay_command(command, **away)
        assert ended.returncode == 1
        first = "Postgres is away, and no relay answers: webhooks may be lost.\n"
        assert ended.stdout.startswith(first), ended.stdout
        assert "Postgres cannot be used now:" in ended.stdout
        assert "the relay: none answers at " in ended.stdout
        assert "Agent SDK /health: FAILED (connection_refused)" in ended.stdout
        assert "not read: alerts, figures, dead letters" in ended.stdout


def test_long_and_many_statuses_that_others_wrote_are_cut(relay_command: CommandLine, rows: Rows) -> None:
    rows(
        "INSERT INTO dashboard_facts (fact_type, scope, value, metadata) SELECT 'support.webhook.retry', 's', "
        "jsonb_build_object('success', false, 'finalStatus', n || repeat('x', 90)), '{}' FROM generate_series(1, 20) n"
    )
    shown = line(relay_command("status").stdout, "failures")
    assert ("…" in shown, "12 more kinds" in shown, len(shown) < 500) == (True, True, True)


def test_the_first_line_is_the_headline_and_tests_are_counted_apart(relay_command: CommandLine, plant: Plant) -> None:
    plant.relay(heartbeat_age_s=-600)  # however long the commands take
    plant.runs(delivered=2, test=True)
    plant.facts(REJECTED, {"reason": "invalid_signature", "status": 401, "count": 600}, age_s=1)
    ended = relay_command("status")
    assert ended.stdout.startswith("600 webhooks refused (401, bad signature) since ")
    assert line(ended.stdout, "tests") == "2 in 15 min, 2 in 1 h; only the runbook's SQL counts them"
    document = json.loads(relay_command("status", "--json").stdout)
    assert document["headline"]["kind"] == "refused"
    assert document["tests"] == {"15m": 2, "1h": 2}
    assert relay_command("diagnose").stdout.startswith("600 webhooks refused (401, bad signature) since ")


def test_an_acknowledged_alert_says_by_whom_and_until_when(
    relay_command: CommandLine, plant: Plant, rows: Rows
) -> None:
    plant.relay()
    plant.dead_letters(7)
    refused = relay_command("ack", "dlq-warning")
    assert refused.returncode == 2
    assert relay_command("ack", "made-up", "--reason", "x").returncode == 2
    ended = relay_command("ack", "dlq-warning", "--for", "30m", "--reason", "being replayed", CONSOLE_OPERATOR="maria")
    assert ended.returncode == 0, ended.stderr
    assert "dlq-warning is acknowledged until " in ended.stdout
    status = relay_command("status")
    assert status.returncode == 1
    assert re.search(
        r"acknowledged by maria \(login: postgres\) until \d\d:\d\d:\d\dZ: being replayed\)$",
        line(status.stdout, "alerts"),
    ), status.stdout
    alerts = {alert["rule"]: alert for alert in json.loads(relay_command("status", "--json").stdout)["alerts"]}
    assert alerts["dlq-warning"]["acknowledged"]["by"] == "maria (login: postgres)"
    assert alerts["dlq-p2"]["acknowledged"] is None
