"""`relay serve` as a process: what it refuses to start with, what it says, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import PATIENCE_S, Rows, database_like, free_port, wait_for, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import CommandLine

URL = "must be a URL such as https://host"
ROUNDS = [
    {
        "AGENT_SDK_URL": ("agent.example", URL),
        "CHATWOOT_BASE_URL": ("ftp://chatwoot", URL),
        "RELAY_URL": ("http://relay:99999", "port must be a number from 1 to 65535"),
        "CHATWOOT_API_KEY": ("kéy", "characters that no API key has"),
        "CHATWOOT_ACCOUNT_ID": ("one", "must be a valid integer"),
        "CHATWOOT_WEBHOOK_SECRET": (" , ", "leave it unset to accept unsigned webhooks"),
        "CHATWOOT_WEBHOOK_MAX_ATTEMPTS": ("0", "must be greater than or equal to 1"),
        "CHATWOOT_WEBHOOK_BASE_DELAY_MS": ("-1", "must be greater than or equal to 0"),
        "CHATWOOT_WEBHOOK_BACKOFF_FACTOR": ("0.5", "must be greater than or equal to 1"),
        "CHATWOOT_WEBHOOK_JITTER": ("1.5", "must be less than or equal to 1"),
        "AGENT_SDK_TIMEOUT_MS": ("soon", "must be a valid integer"),
        "RELAY_BIND": ("8788", "must be host:port"),
        "RELAY_RESPOND": ("later", "must be 'forwarded' or 'stored'"),
        "RELAY_WORKERS": ("0", "must be greater than or equal to 1"),
        "RELAY_LEASE_SECONDS": ("nan", "must be"),
        "DATABASE_URL": ("mysql://user:hunter2@db/relay", "must be a connection string such as postgresql://"),
    },
    {
        "AGENT_SDK_URL": ("http://user:hunter2@agent/?a=1", "must not have a query"),
        "CHATWOOT_BASE_URL": ("http://ag ent", "must not contain spaces"),
        "RELAY_URL": ("http://a\nb", "is not a URL that can be called"),
        "CHATWOOT_WEBHOOK_BASE_DELAY_MS": ("nan", "must be"),
        "RELAY_BIND": ("::1:8788", "write an IPv6 host in brackets"),
        "RELAY_DATA_DIR": ("/a b", "must not contain a space"),
        "DATABASE_URL": ("postgresql://u:hunter2@db:port/relay", "must be a connection string such as postgresql://"),
    },
    {
        "AGENT_SDK_URL": ("http://☃.é..x", "is not a URL that can be called"),
        "CHATWOOT_BASE_URL": ("http://999.1.1.1", "is not a URL that can be called"),
        "RELAY_BIND": ("127.0.0.1:65536", "must be host:port"),
    },
]


@contextmanager
def serving(
    command: CommandLine, *arguments: str, limits: str = "true", **env: str
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`relay serve ARGUMENTS` as a process, and the file that it prints into; killed if it does not end.

    `limits` is what a shell runs before it becomes the process.
    """
    output = command.folder / "output"
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            ["sh", "-c", f'{limits} && exec "$@"', "sh", sys.executable, "-m", "relay", "serve", *arguments],
            cwd=command.folder, env=os.environ | command.env | env, stdout=file, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    try:
        yield process, output
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("bad", ROUNDS, ids=["first", "second", "third"])
def test_every_bad_value_is_one_line_that_names_variable_and_reason(
    relay_command: CommandLine, bad: dict[str, tuple[str, str]]
) -> None:
    ended = relay_command("serve", **{variable: value for variable, (value, _) in bad.items()})
    assert ended.returncode == 2
    assert ended.stdout == ""
    expected = {variable: reason for variable, (_, reason) in bad.items()}
    lines = {re.split("[=:]", line.removeprefix("relay: "))[0]: line for line in ended.stderr.splitlines()}
    assert lines.keys() == expected.keys()
    assert [variable for variable, reason in expected.items() if reason not in lines[variable]] == []
    assert "hunter2" not in ended.stderr


def test_a_data_directory_that_cannot_be_made_is_a_bad_value(relay_command: CommandLine) -> None:
    ended = relay_command("serve", DATABASE_URL="", RELAY_DATA_DIR="/dev/null/data")
    assert ended.returncode == 2
    assert ended.stderr.startswith("relay: RELAY_DATA_DIR=/dev/null/data: ")
    assert ended.stderr.count("\n") == 1


def test_an_option_is_checked_like_its_variable(relay_command: CommandLine) -> None:
    ended = relay_command("serve", "--workers", "0", "--bind", "nowhere")
    assert ended.returncode == 2
    assert "RELAY_WORKERS=0: " in ended.stderr
    assert "RELAY_BIND=nowhere: " in ended.stderr


def test_a_port_in_use_is_said_at_the_start(relay_command: CommandLine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        ended = relay_command("serve", RELAY_BIND=bind)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"relay: RELAY_BIND={bind}: cannot listen there (Address already in use)")
    assert ended.stderr.count("\n") == 1


def test_a_database_it_cannot_work_on_is_said_at_the_start(relay_command: CommandLine, postgres: str) -> None:
    with database_like("template1", postgres) as dsn:
        Rows(dsn)("CREATE TABLE dashboard_facts (id text, must_be_given text NOT NULL)")
        ended = relay_command("serve", "--bind", "127.0.0.1:0", DATABASE_URL=dsn)
    assert ended.returncode == 2
    assert ended.stderr.startswith("relay: The database cannot be migrated:")
    assert "must_be_given" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_on_a_signal(relay_command: CommandLine, number: signal.Signals) -> None:
    port = free_port()
    with serving(relay_command, "--bind", f"127.0.0.1:{port}", AGENT_SDK_URL="http://u:hunter2@agent:1") as (
        relay,
        out,
    ):
        wait_until_healthy(port)
        relay.send_signal(number)
        assert relay.wait(PATIENCE_S) == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    listening, unsigned, *rest = (line.partition("Z ")[2] for line in lines)
    assert listening == (
        f"INFO [relay] Relay is listening {{ url: 'http://127.0.0.1:{port}', "
        "agentEndpoint: 'http://agent:1/webhooks/chatwoot', workers: 1, database: 'DATABASE_URL' }"
    )
    assert unsigned == "WARNING [relay] CHATWOOT_WEBHOOK_SECRET is not set: unsigned webhooks are accepted"
    assert "Traceback" not in "".join(rest)


def test_it_says_that_the_agent_is_the_default(relay_command: CommandLine) -> None:
    port = free_port()
    with serving(relay_command, "--bind", f"127.0.0.1:{port}") as (relay, out):
        wait_until_healthy(port)
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(PATIENCE_S) == 0
    assert "[relay] AGENT_SDK_URL is the default: deliveries go there" in out.read_text(encoding="utf-8")


def test_options_win_over_the_environment_and_that_over_the_file(relay_command: CommandLine) -> None:
    ports = {name: free_port() for name in ("option", "environment", "file")}
    (relay_command.folder / ".env").write_text(
        f"RELAY_BIND=127.0.0.1:{ports['file']}\nAGENT_SDK_URL=http://from-the-file\n", encoding="utf-8"
    )
    bind = f"127.0.0.1:{ports['option']}"
    with serving(relay_command, "--bind", bind, RELAY_BIND=f"127.0.0.1:{ports['environment']}") as (_, out):
        wait_until_healthy(ports["option"])
        text = out.read_text(encoding="utf-8")
    assert f"url: 'http://{bind}'" in text
    assert "agentEndpoint: 'http://from-the-file/webhooks/chatwoot'" in text


def test_every_worker_announces_itself_and_all_end_together(relay_command: CommandLine, rows: Rows) -> None:
    port = free_port()
    with serving(relay_command, "--bind", f"127.0.0.1:{port}", "--workers", "2") as (relay, out):
        wait_for(lambda: sorted(rows("SELECT slot FROM relay.instances WHERE stopped_at IS NULL")) == [0, 1])
        relay.terminate()
        assert relay.wait(PATIENCE_S) == 0
    assert rows("SELECT count(*) FROM relay.instances WHERE stopped_at IS NULL") == [0]
    assert "Traceback" not in out.read_text(encoding="utf-8")
