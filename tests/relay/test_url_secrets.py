"""User names, passwords and queries in URLs: used, and shown by no command, log, artifact, page or table."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from relay.errors import ConfigurationError
from relay.settings import WEBHOOK_PATH, load_settings, without_credentials
from tests.servers import PATIENCE_S, ROOT, Behaviour, free_port, program, until, wait_until_healthy
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.demo.agent import AgentStandIn
    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine
    from tests.servers import Rows

SECRET = "pa55-w0rd"


def with_secret(url: str) -> str:
    return url.replace("://", f"://{SECRET}:{SECRET}@")


def tables(dsn: str) -> Iterator[str]:
    """Every row of every table of ours, as text."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        names = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace IN ('relay'::regnamespace, 'public'::regnamespace)"
        ).fetchall()
        for (name,) in names:
            for (row,) in connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall():
                yield f"{name}: {row}"


def written(folder: Path) -> dict[str, str]:
    """What the commands have written."""
    return {str(path): path.read_text() for path in folder.rglob("*") if path.suffix in {".json", ".md"}}


@pytest.fixture(params=["up", "down"])
def environment(
    request: pytest.FixtureRequest, agent: AgentStandIn, chatwoot: ChatwootStandIn, dsn: str
) -> dict[str, str]:
    """Settings whose every URL holds the secret; the services behind them are up, or nothing listens there."""
    up = request.param == "up"
    nowhere = f"http://127.0.0.1:{free_port()}"
    relay = f"127.0.0.1:{free_port()}"
    chatwoot.webhook_url = with_secret(f"http://{relay}{WEBHOOK_PATH}?token={SECRET}")
    return {
        "CHATWOOT_BASE_URL": with_secret(chatwoot.url if up else nowhere),
        "CHATWOOT_API_KEY": chatwoot.api_key,
        "CHATWOOT_ACCOUNT_ID": str(chatwoot.account_id),
        "CHATWOOT_WEBHOOK_SECRET": chatwoot.secret.decode(),
        "CHATWOOT_WEBHOOK_BASE_DELAY_MS": "1",
        "AGENT_SDK_URL": with_secret(agent.url if up else nowhere),
        "AGENT_BIND": f"127.0.0.1:{free_port()}",
        "LLM_BASE_URL": with_secret(nowhere),
        "LLM_MODEL": "a-model",
        "RELAY_BIND": relay,
        "RELAY_URL": with_secret(f"http://{relay}"),
        "RELAY_ALERT_WEBHOOK_URL": with_secret(f"{nowhere}/{SECRET}?token={SECRET}"),
        "RELAY_ALERT_SEVERITIES": "P0,P1,P2,Warning,Info,escalate",
        "RELAY_PROBE_SECONDS": "1",
        "DATABASE_URL": make_conninfo(dsn, password=SECRET),
    }


@pytest.mark.slow
async def test_no_command_log_artifact_page_or_table_shows_what_is_secret_in_a_url(
    environment: dict[str, str], relay_command: CommandLine, agent: AgentStandIn, rows: Rows, tmp_path: Path
) -> None:
    agent.behave(Behaviour(status=503))
    Plant(rows).dead_letters(30)
    shown: dict[str, str] = {}

    async def run(*arguments: str) -> None:
        done = await relay_command.run(*arguments, **environment)
        shown[" ".join(arguments)] = done.stdout + done.stderr

    async def run_all() -> None:
        for arguments in (
            ["status"], ["status", "--json"], ["diagnose"], ["diagnose", "--json"], ["check-health"],
            ["check-health", "--json"], ["send-test", "--wait", "5"], ["send-test", "--json", "--wait", "5"],
            ["replay", "--dry-run"], ["replay", "--dry-run", "--json"], ["escalate", "--yes"], ["migrate"],
        ):  # fmt: skip
            await run(*arguments)

    await run_all()  # while no relay runs
    log = tmp_path / "log"
    with log.open("w") as out:
        env = environment | {"HOME": str(tmp_path)}
        with program("-m", "relay", "serve", "--log-level", "debug", env=env, out=out):
            port = int(environment["RELAY_BIND"].rpartition(":")[2])
            await asyncio.to_thread(wait_until_healthy, port)
            await run_all()
            probed = "SELECT count(*) FROM dashboard_facts WHERE fact_type = 'support.health'"
            await until(lambda: rows.one(probed) >= 3)
            await until(lambda: "Alert notification failed" in log.read_text())
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
                shown |= {path: (await client.get(path)).text for path in ("/health", "/metrics")}
        with program("-m", "relay", "agent", "serve", env=env, out=out):
            await until(lambda: "Agent SDK is listening" in log.read_text())
    shown["log"] = log.read_text()
    shown |= written(tmp_path)
    shown |= {f"table {n}": row for n, row in enumerate(tables(environment["DATABASE_URL"]))}
    assert {where: text for where, text in shown.items() if SECRET in text} == {}
    assert len([where for where in shown if where.endswith((".json", ".md"))]) >= 2
    assert "127.0.0.1" in shown["send-test --wait 5"]


def test_serve_refuses_a_bad_url_without_showing_what_is_secret_in_it(tmp_path: Path) -> None:
    bad = [
        f"https://user:{SECRET}/x@host", f"https://user:{SECRET}@x@host:port", f"user:{SECRET}@host",
        f"https://host?token={SECRET}", f"https://host#{SECRET}", f"https://user:{SECRET}#@host", f"://a:{SECRET}@b",
        f"https://user:{SECRET}@[::1", f"https://1:2/{SECRET}@host", f"https://user:{SECRET} @host/ ",
        f"{SECRET}@https://host", f"https://user:{SECRET}\u2100@host", f"ftp://{SECRET}:{SECRET}@host?{SECRET}",
    ]  # fmt: skip
    shown = []
    for name in ("CHATWOOT_BASE_URL", "AGENT_SDK_URL", "RELAY_URL", "LLM_BASE_URL", "RELAY_ALERT_WEBHOOK_URL"):
        for value in bad:
            try:
                load_settings(_env_file=None, **{name.lower(): value})
            except ConfigurationError as error:
                shown.append(str(error))
            else:
                assert name == "RELAY_ALERT_WEBHOOK_URL"  # it is shown nowhere, and may have a query
    for value in (
        f"postgresql://user:p@{SECRET}@host/db", f"postgresql://user:12/{SECRET}@host/db", f"host=x {SECRET}",
        f"postgresql://user:{SECRET}@host:port/db", f"postgresql://u:%zz{SECRET}@host/db",
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            load_settings(_env_file=None, database_url=value)
        shown.append(str(caught.value))
    assert [text for text in shown if SECRET in text] == []
    assert len(shown) > 50
    done = subprocess.run(
        [sys.executable, "-m", "relay", "serve"], cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env={"PYTHONPATH": str(ROOT), "AGENT_SDK_URL": bad[0], "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/path", "https://host/path"),
        ("https://user@host:1/path", "https://host:1/path"),
        ("https://user:a@b@host", "https://host"),
        ("https://user:pass@[::1]:80/x", "https://[::1]:80/x"),
        ("https://host/hook?token=1", "https://host/hook?…"),
        ("https://host/hook#token", "https://host/hook?…"),
        ("https://user:pass@[::1", "https://[::1"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_credentials_and_its_query(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_password_may_hold_anything_that_is_percent_encoded() -> None:
    given: dict[str, Any] = {
        "agent_sdk_url": "https://user:p%40ss%2Fw%3Fo%23rd@host/base",
        "database_url": "postgresql://user:p%40ss%2Fw%3Fo%23rd@host/db",
    }
    settings = load_settings(_env_file=None, **given)
    assert settings.agent_endpoint_shown == "https://host/base/webhooks/chatwoot"
