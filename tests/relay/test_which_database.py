"""Which database a command reads: it says so, creates none by accident, and takes a demo's for nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from relay.demo.agent import AgentStandIn
from relay.demo.chatwoot import ChatwootStandIn, documented_payload, rails_json
from relay.demo.play import demo_settings
from relay.demo.script import Traffic
from relay.store import embedded
from relay.store.database import connect
from relay.store.demo_history import is_demo, mark_as_demo
from relay.store.migrate import migrate
from tests.servers import PATIENCE_S, Behaviour, Rows, free_port, program, until, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.conftest import CommandLine
    from tests.postgres import Server
    from tests.servers import RunningRelay

CHATWOOT = {"CHATWOOT_BASE_URL": "http://127.0.0.1:9", "CHATWOOT_API_KEY": "k", "CHATWOOT_ACCOUNT_ID": "1"}
_ABANDONED = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, headers, body)
    VALUES ('abandoned', 'received', gen_random_uuid(), false, false, '[]', '{}')
"""
READERS = {
    "status": ("status",),
    "diagnose": ("diagnose",),
    "escalate": ("escalate", "--yes"),
    "replay": ("replay", "--dry-run"),
    "send-test": ("send-test", "--wait", "1"),
}


@pytest.fixture
def data(relay_command: CommandLine) -> Iterator[Path]:
    """The command line without DATABASE_URL; its data directory, which is not there yet."""
    folder = relay_command.folder / "data"
    port = free_port()
    relay_command.env |= {
        "DATABASE_URL": "", "RELAY_DATA_DIR": str(folder), "RELAY_BIND": f"127.0.0.1:{port}",
        "AGENT_SDK_URL": "http://127.0.0.1:9", **CHATWOOT,
    }  # fmt: skip
    yield folder
    for one in (folder, folder / "demo"):
        embedded.release(one)


@pytest.fixture
def console(relay_command: CommandLine) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `console ARGUMENTS` to its end."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "console", *arguments], cwd=relay_command.folder,
            env=os.environ | relay_command.env, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip

    return run


@contextmanager
def running_demo(command: CommandLine) -> Iterator[None]:
    """A demo for the length of the block, on the command line's settings."""
    with program("-m", "relay", "demo", "--no-console", env=command.env):
        wait_until_healthy(int(command.env["RELAY_BIND"].rpartition(":")[2]), 60)
        yield


# Nothing there


@pytest.mark.parametrize("arguments", [*READERS.values(), ("migrate",), ("agent", "serve")], ids=" ".join)
def test_a_command_that_finds_no_database_creates_none_and_says_what_to_set(
    relay_command: CommandLine, data: Path, arguments: tuple[str, ...]
) -> None:
    ended = relay_command(*arguments)
    assert ended.returncode == 2, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"relay: DATABASE_URL is not set, and RELAY_DATA_DIR={data} holds no embedded PostgreSQL")
    assert ended.stdout == "" or arguments[0] == "agent"
    assert not data.exists()


def test_a_console_that_finds_no_database_creates_none_either(data: Path, console: Callable[..., Any]) -> None:
    ended = console("--timing")
    assert ended.returncode == 2
    assert ended.stderr.startswith("console: DATABASE_URL is not set, and RELAY_DATA_DIR=")
    assert not data.exists()


def test_a_data_directory_that_cannot_be_read_is_one_line(relay_command: CommandLine, data: Path) -> None:
    data.write_text("a file", encoding="utf-8")
    ended = relay_command("status")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


# One's own


def test_one_that_is_there_is_used_whether_it_runs_or_not_and_named(relay_command: CommandLine, data: Path) -> None:
    assert relay_command("dsn").returncode == 0
    for _ in range(2):
        ended = relay_command("status")
        assert ended.returncode == 1
        assert ended.stdout.splitlines()[1] == f"database      embedded PostgreSQL in {data}"
        assert json.loads(relay_command("status", "--json").stdout)["database"] == {
            "name": f"embedded PostgreSQL in {data}", "demo": False,
        }  # fmt: skip
        relay_command("dsn", "--stop")
        assert not embedded.is_running(data)


def test_a_given_one_is_named_without_its_password(relay_command: CommandLine, dsn: str) -> None:
    ended = relay_command("status", DATABASE_URL=f"{dsn} password=hunter2")
    (_, line, *_) = ended.stdout.splitlines()
    assert line.startswith("database ")
    assert line.endswith("@localhost (DATABASE_URL)")
    assert "hunter2" not in ended.stdout + ended.stderr


# A demo's


@pytest.mark.slow
def test_commands_and_console_find_a_running_demo_and_say_so(
    relay_command: CommandLine, data: Path, console: Callable[..., Any]
) -> None:
    with running_demo(relay_command):
        texts = {name: relay_command(*arguments) for name, arguments in READERS.items()}
        jsons = {name: relay_command(*arguments, "--json") for name, arguments in READERS.items()}
        printed = relay_command("dsn")
        timed = console("--timing")
        assert Rows(printed.stdout.strip()).one("SELECT count(*) > 0 FROM relay.deliveries") is True
    for name, ended in texts.items():
        assert "DEMO" in ended.stdout.splitlines()[0], (name, ended.stdout, ended.stderr)
    for name, ended in jsons.items():
        assert json.loads(ended.stdout)["database"]["demo"] is True, name
    assert texts["status"].stdout.splitlines()[1].endswith(f"the demo's PostgreSQL in {data / 'demo'}")
    assert "DEMO, everything here is invented" in printed.stderr
    assert timed.returncode == 0, timed.stderr
    assert not (data / "postgres").exists()
    assert "DEMO, invented data" in (relay_command.folder / "reports/manager/ESCALATION.md").read_text(encoding="utf-8")
    assert relay_command("status").returncode == 2  # it has ended


@pytest.mark.slow
def test_ones_own_comes_before_a_demos(relay_command: CommandLine, data: Path) -> None:
    relay_command("dsn")
    with running_demo(relay_command):
        ended = relay_command("status")
    assert ended.stdout.splitlines()[1] == f"database      embedded PostgreSQL in {data}"
    assert f"A demo is running too; RELAY_DATA_DIR={data / 'demo'} reads that one." in ended.stderr


@pytest.mark.parametrize("command", [("serve",), ("agent", "serve", "--bind", "127.0.0.1:0")], ids=" ".join)
async def test_nothing_that_reaches_real_systems_runs_on_a_demos_database(
    relay_command: CommandLine, dsn: str, command: tuple[str, ...]
) -> None:
    async with await connect(dsn, "tests") as connection:
        await mark_as_demo(connection)
    ended = await relay_command.run(*command, RELAY_BIND="127.0.0.1:0", **CHATWOOT)
    assert ended.returncode == 2
    assert "holds the invented data of `relay demo`" in ended.stderr
    status = await relay_command.run("status")
    assert status.stdout.startswith("DEMO: ")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_relay_that_finds_postgres_away_refuses_a_demos_database_once_it_is_there(
    relay_command: CommandLine, server: Server, agent: AgentStandIn, workers: str
) -> None:
    await migrate(server.dsn)
    async with await connect(server.dsn, "tests") as connection:
        await mark_as_demo(connection)
    Rows(server.dsn)(_ABANDONED)
    server.stop()
    port, output = free_port(), relay_command.folder / "output"
    env = relay_command.env | {
        "DATABASE_URL": server.dsn,
        "AGENT_SDK_URL": agent.url,
        "RELAY_BIND": f"127.0.0.1:{port}",
    }
    with (
        output.open("w", encoding="utf-8") as out,
        program("-m", "relay", "serve", "--workers", workers, env=env, out=out) as relay,
    ):
        await until(lambda: "Postgres is away" in output.read_text(encoding="utf-8"), what="it is without Postgres")
        server.start()
        assert await asyncio.to_thread(relay.wait, PATIENCE_S) == 2
    assert "holds the invented data of `relay demo`" in output.read_text(encoding="utf-8")
    assert not agent.seen


async def test_a_demo_leaves_a_database_alone_that_a_relay_has_worked_in(
    relay_command: CommandLine, data: Path
) -> None:
    dsn = relay_command("dsn", RELAY_DATA_DIR=str(data / "demo")).stdout.strip()
    await migrate(dsn)
    rows = Rows(dsn)
    rows(_ABANDONED)
    ended = await relay_command.run("demo", "--no-console", "--seconds", "1")
    assert ended.returncode == 2
    assert "The demo needs a database of its own" in ended.stderr
    assert rows("SELECT state FROM relay.deliveries") == ["received"]
    async with await connect(dsn, "tests") as connection:
        assert not await is_demo(connection)


@pytest.mark.slow
async def test_nothing_that_a_demo_invented_reaches_a_real_agent(
    relay_command: CommandLine, data: Path, agent: AgentStandIn
) -> None:
    ended = await relay_command.run("demo", "--no-console", "--seconds", "14")  # into its outage
    assert "500" in ended.stdout.partition("stopped.")[2], ended.stdout
    port = free_port()
    env = {"AGENT_SDK_URL": agent.url, "RELAY_AUTO_REPLAY": "1", "RELAY_PROBE_SECONDS": "1"}
    with program("-m", "relay", "serve", "--bind", f"127.0.0.1:{port}", env=relay_command.env | env):
        await asyncio.to_thread(wait_until_healthy, port)
        own = await relay_command.run("status", "--json")
        assert json.loads(own.stdout)["dead_letters"]["open"] == 0
        replayed = await relay_command.run("replay", "--yes")
        assert "There are no dead letters." in replayed.stdout
        demo = await relay_command.run(
            "serve", RELAY_DATA_DIR=str(data / "demo"), RELAY_BIND="127.0.0.1:0", AGENT_SDK_URL=agent.url
        )
        assert demo.returncode == 2
        rows = Rows((await relay_command.run("dsn")).stdout.strip())
        await until(lambda: len(rows.facts("support.health")) >= 9, what="auto-replay has had its turns")
    assert list(agent.seen) == []


def test_a_demo_sends_nothing_to_a_real_team_collector_or_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    real = ("RELAY_ALERT_WEBHOOK_URL", "RELAY_HEARTBEAT_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "LLM_BASE_URL",
            "LLM_API_KEY", "LLM_MODEL", "TRANSCRIBE_BASE_URL", "TRANSCRIBE_API_KEY", "AGENT_SDK_URL",
            "CHATWOOT_BASE_URL", "CHATWOOT_API_KEY")  # fmt: skip
    for name in real:
        monkeypatch.setenv(name, "https://real.example/secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://real/db")
    settings = demo_settings(AgentStandIn(port=1), ChatwootStandIn(port=1))
    assert settings.database_url is None
    kept = [name for name in real if "real.example" in str(getattr(settings, name.lower()))]
    secret = [value for value in vars(settings).values() if hasattr(value, "get_secret_value")]
    assert kept == []
    assert [one for one in secret if "real.example" in one.get_secret_value()] == []


# What the demo of an earlier version left


async def test_what_an_earlier_demo_left_beside_real_deliveries_is_discarded_and_said(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    relay_command: CommandLine,
    agent: AgentStandIn,
    rows: Rows,
    dsn: str,
) -> None:
    relay = await start_relay(chatwoot_webhook_max_attempts=1)
    agent.behave(Behaviour(status=503))
    traffic = Traffic(ChatwootStandIn(), agent, print)
    for _ in range(60):
        payload = traffic._payload()
        written_then = {name: documented_payload(payload["event"])[name] for name in payload.keys() & {"created_at"}}
        assert (await relay.post(rails_json(payload | written_then))).status_code == 500
    invented = set(rows("SELECT id FROM relay.deliveries"))
    theirs = documented_payload("message_created")
    real = [
        theirs,
        theirs | {"conversation": theirs["conversation"] | {"id": 701}},
        theirs | {"conversation": theirs["conversation"] | {"id": 701}, "content": "I was charged twice"},
        {"event": "conversation_status_changed", "id": 705},
        {"event": "message_created", "content": "The discount code does not work at checkout.",
         "sender": {"name": "Aiko Tanaka"}, "conversation": {"id": 702}},
    ]  # fmt: skip
    for payload in real:
        await relay.post(payload)
    await relay.stop()
    rows("UPDATE relay.deliveries SET state = 'received' WHERE id = ANY(%s)", (sorted(invented)[:5],))
    agent.behave()
    agent.seen.clear()
    port, output = free_port(), relay_command.folder / "output"
    env = relay_command.env | {"AGENT_SDK_URL": agent.url, "RELAY_LEASE_SECONDS": "60"}
    with (
        output.open("w", encoding="utf-8") as out,
        program("-m", "relay", "serve", "--bind", f"127.0.0.1:{port}", env=env, out=out),
    ):
        await asyncio.to_thread(wait_until_healthy, port)
        await until(lambda: rows.one("SELECT count(*) FROM relay.instances WHERE boot <> %s", (relay.identity.boot,)))
        replayed = await relay_command.run("replay", "--yes", RELAY_BIND=f"127.0.0.1:{port}")
        assert replayed.returncode == 0, replayed.stderr
    assert set(rows("SELECT id FROM relay.deliveries WHERE state = 'discarded'")) == invented
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'delivered'") == len(real)
    assert len(agent.seen) == len(real)
    assert "demo were discarded: they are invented { deliveries: 60 }" in output.read_text(encoding="utf-8")
    ((operator, deliveries, result),) = rows(
        "SELECT operator, deliveries, result FROM relay.operator_actions WHERE action = 'discard'"
    )
    assert (operator, set(deliveries), result) == ("relay", invented, {"discarded": 60, "asked": 60})
    assert rows.one("SELECT coalesce(sum(letters), 0) FROM relay.dead_causes") == 0
