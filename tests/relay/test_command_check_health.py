"""`relay check-health`: the runbook's lines to the letter, the artifact, and an exit status for scripts."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relay.demo.chatwoot import Oddity
from tests.conftest import CommandLine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.agent import AgentStandIn
    from relay.demo.chatwoot import ChatwootStandIn

STAMPED = re.compile(r"artifacts/ops/chatwoot_health_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d+Z\.json")


@pytest.fixture
def relay_command(tmp_path: Path) -> CommandLine:
    """The command line; the health check needs no database."""
    return CommandLine(tmp_path, "postgresql://127.0.0.1:1/none")


@pytest.fixture
def surroundings(chatwoot: ChatwootStandIn, agent: AgentStandIn) -> dict[str, str]:
    """What the health check reads from the environment. This Chatwoot has the runbook's route."""
    chatwoot.oddities = {Oddity.RAILS_HEALTH}
    return {
        "CHATWOOT_BASE_URL": chatwoot.url,
        "CHATWOOT_API_KEY": chatwoot.api_key,
        "CHATWOOT_ACCOUNT_ID": str(chatwoot.account_id),
        "AGENT_SDK_URL": agent.url,
    }


def printed(text: str) -> tuple[str, list[str]]:
    """The artifact's path, and the lines printed with `TIMESTAMP` in its place, as the runbook has them."""
    (path,) = STAMPED.findall(text)
    return path, text.replace(path, "artifacts/ops/chatwoot_health_TIMESTAMP.json").splitlines()


async def test_when_all_is_well_it_prints_the_runbooks_lines(
    relay_command: CommandLine, surroundings: dict[str, str]
) -> None:
    ended = await relay_command.run("check-health", **surroundings)
    assert ended.returncode == 0
    assert printed(ended.stdout)[1] == [
        "Chatwoot health check OK → artifacts/ops/chatwoot_health_TIMESTAMP.json",
        "  /rails/health: OK (200)",
        "  authenticated API: OK (200)",
        "  Agent SDK /health: OK (200)",
    ]


async def test_the_artifact_holds_every_probe(
    relay_command: CommandLine, surroundings: dict[str, str], chatwoot: ChatwootStandIn, agent: AgentStandIn
) -> None:
    agent.healthy = False
    ended = await relay_command.run("check-health", **surroundings)
    path, _ = printed(ended.stdout)
    artifact = json.loads((relay_command.folder / path).read_text(encoding="utf-8"))
    assert datetime.fromisoformat(artifact["startedAt"]) <= datetime.fromisoformat(artifact["endedAt"])
    assert artifact["allOk"] is False
    assert all(check.pop("latencyMs") > 0 for check in artifact["checks"])
    assert artifact["checks"] == [
        {"name": "/rails/health", "url": f"{chatwoot.url}/rails/health", "status": 200, "ok": True, "error": None},
        {"name": "authenticated API", "url": f"{chatwoot.url}/api/v1/accounts/1", "status": 200, "ok": True,
         "error": None},
        {"name": "Agent SDK /health", "url": f"{agent.url}/health", "status": 503, "ok": False, "error": "HTTP 503"},
    ]  # fmt: skip


async def _chatwoot_down(chatwoot: ChatwootStandIn, _agent: AgentStandIn) -> None:
    chatwoot.healthy = False


async def _other_key(chatwoot: ChatwootStandIn, _agent: AgentStandIn) -> None:
    chatwoot.api_key = "another"


async def _agent_down(_chatwoot: ChatwootStandIn, agent: AgentStandIn) -> None:
    agent.healthy = False


async def _agent_away(_chatwoot: ChatwootStandIn, agent: AgentStandIn) -> None:
    await agent.refuse()


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        (_chatwoot_down, "  /rails/health: FAILED (503)"),
        (_other_key, "  authenticated API: FAILED (401)"),
        (_agent_down, "  Agent SDK /health: FAILED (503)"),
        (_agent_away, "  Agent SDK /health: FAILED (connection_refused)"),
    ],
)
async def test_one_probe_that_fails_is_named_and_fails_the_check(
    relay_command: CommandLine,
    surroundings: dict[str, str],
    chatwoot: ChatwootStandIn,
    agent: AgentStandIn,
    trouble: Callable[[Any, Any], Awaitable[None]],
    line: str,
) -> None:
    await trouble(chatwoot, agent)
    ended = await relay_command.run("check-health", **surroundings)
    assert ended.returncode == 1
    _, lines = printed(ended.stdout)
    assert lines[0] == "Chatwoot health check FAILED → artifacts/ops/chatwoot_health_TIMESTAMP.json"
    assert [shown for shown in lines if "FAILED (" in shown] == [line]
    assert len(lines) == 4


async def test_as_json_it_is_the_artifact_and_where_it_is(
    relay_command: CommandLine, surroundings: dict[str, str]
) -> None:
    ended = await relay_command.run("check-health", "--json", "--artifacts", "elsewhere", **surroundings)
    document = json.loads(ended.stdout)
    written = Path(document.pop("artifact"))
    assert written.parent == Path("elsewhere")
    assert json.loads((relay_command.folder / written).read_text(encoding="utf-8")) == document


async def test_every_check_leaves_an_artifact_of_its_own(
    relay_command: CommandLine, surroundings: dict[str, str]
) -> None:
    for _ in range(2):
        assert (await relay_command.run("check-health", **surroundings)).returncode == 0
    assert len(list((relay_command.folder / "artifacts" / "ops").iterdir())) == 2


def test_what_is_not_configured_is_named(relay_command: CommandLine) -> None:
    ended = relay_command("check-health", CHATWOOT_BASE_URL="http://chatwoot")
    assert ended.returncode == 2
    assert ended.stderr.startswith("relay: CHATWOOT_API_KEY, CHATWOOT_ACCOUNT_ID: not set;")
    assert not (relay_command.folder / "artifacts").exists()


async def test_an_artifact_that_cannot_be_written_is_said(
    relay_command: CommandLine, surroundings: dict[str, str]
) -> None:
    (relay_command.folder / "artifacts").write_text("not a folder", encoding="utf-8")
    ended = await relay_command.run("check-health", **surroundings)
    assert ended.returncode == 1
    assert ended.stderr.startswith("relay: artifacts/ops: the artifact cannot be written")


async def test_neither_key_nor_credentials_are_in_what_it_prints_or_writes(
    relay_command: CommandLine, surroundings: dict[str, str], agent: AgentStandIn
) -> None:
    given = surroundings | {"AGENT_SDK_URL": agent.url.replace("http://", "http://user:hunter2@")}
    ended = await relay_command.run("check-health", **given)
    path, _ = printed(ended.stdout)
    everything = ended.stdout + ended.stderr + (relay_command.folder / path).read_text(encoding="utf-8")
    assert "hunter2" not in everything
    assert surroundings["CHATWOOT_API_KEY"] not in everything
