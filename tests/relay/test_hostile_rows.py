"""No command prints what a terminal would obey, whatever any table holds and whatever the command line quotes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.servers import PATIENCE_S, Behaviour, free_port, until
from tests.store.hostile import HOSTILE, harmful, plant_hostile, texts_in

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine
    from tests.servers import AgentStandIn, Rows, RunningRelay

ONE_LINE = HOSTILE.replace("\n", " ")
COMMANDS = {
    "status": ("status",),
    "diagnose": ("diagnose",),
    "escalate": ("escalate", "--yes", "--reason", ONE_LINE),
    "dry run": ("replay", "--dry-run"),
    "a replay": ("replay", "--yes", "--reason", ONE_LINE),
    "a dry run by id": ("replay", "--dry-run", HOSTILE),
    "send-test": ("send-test",),
    "check-health": ("check-health",),
}


def assert_harmless(ended: subprocess.CompletedProcess[str]) -> None:
    for printed in (ended.stdout, ended.stderr):
        assert harmful(printed, lines=True) == set(), printed
    assert "Traceback" not in ended.stderr


@pytest.fixture
def surroundings(agent: AgentStandIn, chatwoot: ChatwootStandIn) -> dict[str, str]:
    """What the commands reach beside the database."""
    return {
        "AGENT_SDK_URL": agent.url, "CONSOLE_OPERATOR": ONE_LINE, "CHATWOOT_BASE_URL": chatwoot.url,
        "CHATWOOT_API_KEY": chatwoot.api_key, "CHATWOOT_ACCOUNT_ID": "1",
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_command_prints_what_a_terminal_would_obey(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, agent: AgentStandIn,
    surroundings: dict[str, str], name: str, form: str,
) -> None:  # fmt: skip
    plant_hostile(rows)
    if name == "a replay":  # no header can carry the planted id
        rows("UPDATE relay.deliveries SET delivery_id = 'plain'")
    agent.behave(Behaviour(status=503))
    arguments = (*COMMANDS[name], *(("--json",) if form == "json" else ()))
    ended = await relay_command.run(*arguments, RELAY_URL=relay.url, **surroundings)
    assert_harmless(ended)
    assert ended.stdout
    if form == "json":
        document = json.loads(ended.stdout)
        if name not in {"send-test", "check-health", "a replay"}:
            assert "␛]52;" in "".join(texts_in(document))
    elif name not in {"send-test", "check-health", "a replay"}:
        assert "␛]52;" in ended.stdout
        assert "@click=app.quit" in ended.stdout


async def test_the_escalation_report_holds_no_controls(
    relay: RunningRelay, relay_command: CommandLine, rows: Rows, surroundings: dict[str, str]
) -> None:
    plant_hostile(rows)
    await relay_command.run("escalate", "--yes", "--reason", ONE_LINE, RELAY_URL=relay.url, **surroundings)
    report = (relay_command.folder / "reports/manager/ESCALATION.md").read_text(encoding="utf-8")
    assert harmful(report, lines=True) == set()
    assert "␛\\]52;" in report


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        ("replay", HOSTILE),
        ("replay", "--rate", HOSTILE),
        ("replay", f"--{HOSTILE}"),
        ("replay", "--filter", f'{HOSTILE}:"'),
        ("replay", "--filter", f'state:"{HOSTILE}"'),
        ("send-test", "--event", HOSTILE),
        ("send-test", "--url", f"http://{HOSTILE}"),
        ("status", HOSTILE),
        ("escalate", "--severity", HOSTILE),
        ("escalate", "--yes", "--report", f"/proc/{HOSTILE}/report"),
        ("check-health", "--artifacts", f"/proc/{HOSTILE}/x"),
    ],
    ids=lambda arguments: " ".join(map(ascii, arguments))[:40],
)
def test_an_error_quotes_the_command_line_without_its_controls(
    relay_command: CommandLine, arguments: tuple[str, ...]
) -> None:
    ended = relay_command(*arguments, AGENT_SDK_URL=f"http://127.0.0.1:{free_port()}")
    assert ended.returncode in {1, 2}
    assert ended.stderr
    assert_harmless(ended)


@pytest.mark.parametrize("name", ["CHATWOOT_WEBHOOK_MAX_ATTEMPTS", "RELAY_BIND", "AGENT_SDK_URL", "RELAY_DATA_DIR"])
def test_an_error_quotes_a_setting_without_its_controls(relay_command: CommandLine, name: str) -> None:
    ended = relay_command("status", **{"DATABASE_URL": "", name: HOSTILE + " "})
    assert ended.returncode == 2
    assert_harmless(ended)


def test_a_postgres_that_is_away_is_named_without_controls(relay_command: CommandLine) -> None:
    ended = relay_command("status", DATABASE_URL=f"host='/nowhere/{ONE_LINE.replace(chr(92), '')}' port=1")
    assert ended.returncode in {1, 2}
    assert_harmless(ended)


async def test_a_relays_answer_that_is_no_json_is_shown_without_its_controls(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn
) -> None:
    agent.behave(Behaviour(status=503))
    ended = await relay_command.run("send-test", "--url", f"{agent.url}/{'x' * 3}")
    assert_harmless(ended)


async def test_health_and_metrics_carry_no_controls(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows
) -> None:
    relay = await start_relay()
    await until(
        lambda: rows("SELECT 1 FROM dashboard_facts WHERE fact_type = 'support.health'"), what="the first probe"
    )
    plant_hostile(rows)
    async with httpx.AsyncClient(base_url=relay.url, timeout=PATIENCE_S) as client:
        health, metrics = await client.get("/health"), await client.get("/metrics")
    assert harmful(health.text) == set()
    assert harmful("".join(texts_in(health.json()))) == set()
    assert health.json()["agent"]["error"].startswith("␛]52;")
    assert harmful(metrics.text, lines=True) == set()
