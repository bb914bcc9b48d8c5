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
    from tests.fork_server import ForkServer

STAMPED = re.compile(r"artifacts/ops/chatwoot_health_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d+Z\.json")


@pytest.fixture
def relay_command(tmp_path: Path, fork_server: ForkServer) -> CommandLine:
    """The command line; the health check needs no database."""
    return CommandLine(tmp_path, "postgresql://127.0.0.1:1/none", fork_server)


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
    assert datetime.fromisoformat(artifact["started_at"]) <= datetime.fromisoformat(artifact["ended_at"])
    assert artifact["all_ok"] is False
    assert artifact["chatwoot_version"] == chatwoot.version
    assert all(check.pop("latency_ms") > 0 for check in artifact["checks"])
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
    ("trouble", "failed"),
    [
        (_chatwoot_down, ["  /rails/health: FAILED (503)", "  authenticated API: FAILED (503)"]),
        (_other_key, ["  authenticated API: FAILED (401)"]),
        (_agent_down, ["  Agent SDK /health: FAILED (503)"]),
        (_agent_away, ["  Agent SDK /health: FAILED (connection_refused)"]),
    ],
)
async def test_a_probe_that_fails_is_named_and_fails_the_check(
    relay_command: CommandLine,
    surroundings: dict[str, str],
    chatwoot: ChatwootStandIn,
    agent: AgentStandIn,
    trouble: Callable[[Any, Any], Awaitable[None]],
    failed: list[str],
) -> None:
    await trouble(chatwoot, agent)
    ended = await relay_command.run("check-health", **surroundings)
    assert ended.returncode == 1
    _, lines = printed(ended.stdout)
    verdict = "OK" if trouble in {_agent_down, _agent_away} else "FAILED"
    assert lines[0] == f"Chatwoot health check {verdict} → artifacts/ops/chatwoot_health_TIMESTAMP.json"
    assert [shown for shown in lines if "FAILED (" in shown] == failed


def _set_up(name: str, chatwoot: ChatwootStandIn, env: dict[str, str]) -> None:
    """One way in which Chatwoot, a proxy or the relay's settings can be."""
    chatwoot.oddities = {Oddity(name)} if name in set(Oddity) else set()
    changes = {
        "app in the URL": {"CHATWOOT_BASE_URL": f"{chatwoot.url}/app"},
        "a page of the app": {"CHATWOOT_BASE_URL": f"{chatwoot.url}/app/accounts/1/dashboard"},
        "the relay's own URL": {"CHATWOOT_BASE_URL": env["AGENT_SDK_URL"]},
        "a bot's key": {"CHATWOOT_API_KEY": chatwoot.bot_key},
        "an agent's key": {"CHATWOOT_API_KEY": chatwoot.agent_key},
        "another account": {"CHATWOOT_ACCOUNT_ID": "2"},
        "a stranger's key": {"CHATWOOT_API_KEY": chatwoot.stranger_key},
    }
    env |= changes.get(name, {})
    if name in {"4.5.0", "4.17.0"}:
        chatwoot.version = name


SET_UP = [
    # how it is, the line of the health route, the line of the API, a remedy
    ("4.17.0", "/health: OK (200)", "OK (200)", ""),
    ("4.5.0", "/api: OK (200)", "OK (200)", ""),
    ("rails-health", "/rails/health: OK (200)", "OK (200)", ""),
    ("underscores-dropped", "/health: OK (200)", "OK (200)", ""),
    ("an agent's key", "/health: OK (200)", "OK (200)", ""),
    ("app in the URL", "/api: FAILED (200, a web page)", "FAILED (200, a web page)", "CHATWOOT_BASE_URL is a page of"),
    ("a page of the app", "/api: FAILED (200, a web page)", "FAILED (200, a web page)", "CHATWOOT_BASE_URL is a page"),
    ("login-page", "/api: FAILED (200, a web page)", "FAILED (200, a web page)", "without a login page before it"),
    ("the relay's own URL", "/health: FAILED (200, not what Chatwoot", "FAILED (404)", "something else answers there"),
    ("redirected", "/rails/health: FAILED (301)", "FAILED (301)", "set CHATWOOT_BASE_URL to https://127.0.0.1"),
    ("rate-limited", "/rails/health: FAILED (429)", "FAILED (429)", "try again in a minute"),
    ("account-suspended", "/health: OK (200)", "FAILED (401)", "have it activated again"),
    ("a bot's key", "/health: OK (200)", "FAILED (401)", "the access token of an administrator"),
    ("another account", "/health: OK (200)", "FAILED (404)", "check CHATWOOT_ACCOUNT_ID"),
    ("a stranger's key", "/health: OK (200)", "FAILED (404)", "check CHATWOOT_ACCOUNT_ID"),
]


@pytest.mark.slow
async def test_each_way_of_setting_it_up_has_its_lines_and_its_remedy(
    relay_command: CommandLine, surroundings: dict[str, str], chatwoot: ChatwootStandIn
) -> None:
    wrong = []
    for name, health, api, remedy in SET_UP:
        env = dict(surroundings)
        chatwoot.version = "4.17.0"
        _set_up(name, chatwoot, env)
        ended = await relay_command.run("check-health", **env)
        fine = "FAILED" not in health + api
        expected = (f"\n  {health}", f"\n  authenticated API: {api}", remedy)
        if not all(text in ended.stdout for text in expected) or ended.returncode != (0 if fine else 1):
            wrong.append((name, ended.stdout))
    assert wrong == []


async def test_as_json_it_is_the_artifact_and_where_it_is(
    relay_command: CommandLine, surroundings: dict[str, str]
) -> None:
    ended = await relay_command.run("check-health", "--json", "--artifacts", "elsewhere", **surroundings)
    document = json.loads(ended.stdout)
    written = Path(document.pop("artifact"))
    assert document.pop("artifact_error") is None
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
    assert ended.stdout.splitlines()[:2] == ["Chatwoot health check OK → no artifact", "  /rails/health: OK (200)"]


async def test_neither_key_nor_credentials_are_in_what_it_prints_or_writes(
    relay_command: CommandLine, surroundings: dict[str, str], agent: AgentStandIn
) -> None:
    given = surroundings | {"AGENT_SDK_URL": agent.url.replace("http://", "http://user:hunter2@")}
    ended = await relay_command.run("check-health", **given)
    path, _ = printed(ended.stdout)
    everything = ended.stdout + ended.stderr + (relay_command.folder / path).read_text(encoding="utf-8")
    assert "hunter2" not in everything
    assert surroundings["CHATWOOT_API_KEY"] not in everything
