"""Whatever surrounds a command, its error is one line that says what to do, and never a traceback."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.errors import ConfigurationError
from relay.settings import load_settings
from relay.store.migrate import migrate
from tests.conftest import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fork_server import ForkServer
    from tests.servers import Rows


@pytest.fixture
def relay_command(tmp_path: Path, fork_server: ForkServer) -> CommandLine:
    """The command line on no database."""
    return CommandLine(tmp_path, "", fork_server)


def test_a_misspelt_variable_is_warned_of_with_the_right_name(relay_command: CommandLine) -> None:
    (relay_command.folder / ".env").write_text("export AGENT_URL=http://agent\n", encoding="utf-8")
    ended = relay_command("status", CHATWOOT_WEBHOOK_MAX_ATTEMPT="5")
    sentence = r"^relay: warning: (\w+) is set, but not read; did you mean (\w+)\?$"
    warnings = re.findall(sentence, ended.stderr, re.MULTILINE)
    assert warnings == [
        ("AGENT_URL", "AGENT_SDK_URL"),
        ("CHATWOOT_WEBHOOK_MAX_ATTEMPT", "CHATWOOT_WEBHOOK_MAX_ATTEMPTS"),
    ]


@pytest.mark.parametrize("program", ["relay", "console"])
def test_an_env_file_that_cannot_be_read_is_one_line(relay_command: CommandLine, program: str) -> None:
    file = relay_command.folder / ".env"
    arguments = ["status"] if program == "relay" else ["--timing"]
    cases = {
        b"A=1\n\xff\xfeB=2\n": "line 2 holds bytes that are not UTF-8 text",
        "AGENT_SDK_URL=http://x\n".encode("utf-16"): "line 1 holds bytes that are not UTF-8 text",
        b"A=\0\n": "line 1 holds bytes that are not UTF-8 text",
        b'just words\nA=1\n\nRELAY_URL="http://x\n': "line 4: the value of RELAY_URL cannot be read; close its quotes",
    }
    for content, reason in cases.items():
        file.write_bytes(content)
        ended = relay_command(*arguments, program=program)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert ended.stderr.startswith(f"{program}: .env: {reason}")
    file.unlink()
    file.symlink_to("/proc/self/mem")  # opens, and cannot be read, by root neither
    ended = relay_command(*arguments, program=program)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith(f"{program}: .env: cannot be read (")


def test_an_account_without_entry_and_home_needs_neither(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_entry(_uid: int) -> None:
        raise KeyError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for name in ("HOME", "XDG_DATA_HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    settings = load_settings()
    assert (str(settings.relay_data_dir), settings.operator) == ("/var/lib/hotdash-relay", "unknown")
    with pytest.raises(ConfigurationError, match=r"^RELAY_DATA_DIR=~/relay: begins with ~, .* no home directory"):
        load_settings(relay_data_dir="~/relay")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["migrate", "--print-roles"], ["status", "--json"]])
def test_a_full_disk_as_stdout_is_one_line(relay_command: CommandLine, arguments: list[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        ended = subprocess.run(
            [sys.executable, "-m", "relay", *arguments], cwd=relay_command.folder, env=os.environ | relay_command.env,
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("relay: ")
    assert ended.returncode == (2 if "--json" in arguments else 1)


def test_a_stream_that_is_closed_or_of_another_encoding_costs_no_answer(relay_command: CommandLine) -> None:
    nowhere = "http://127.0.0.1:1"
    env = os.environ | relay_command.env | {
        "CHATWOOT_BASE_URL": nowhere, "AGENT_SDK_URL": nowhere, "CHATWOOT_API_KEY": "key", "CHATWOOT_ACCOUNT_ID": "1",
        "PYTHONIOENCODING": "latin-1",
    }  # fmt: skip
    program = [sys.executable, "-m", "relay", "check-health"]
    ended = subprocess.run(program, cwd=relay_command.folder, env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("Chatwoot health check FAILED \\u2192 artifacts/ops/chatwoot_health_")
    closed = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *program]
    ended = subprocess.run(closed, cwd=relay_command.folder, env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


async def test_a_login_without_rights_is_one_line(relay_command: CommandLine, empty_dsn: str, rows: Rows) -> None:
    await migrate(empty_dsn)
    rows("DROP ROLE IF EXISTS relay_no_rights")
    rows("CREATE ROLE relay_no_rights LOGIN")
    try:
        dsn = psycopg.conninfo.make_conninfo(empty_dsn, user="relay_no_rights")
        for arguments in (["status"], ["diagnose"], ["escalate", "--yes"], ["replay", "--dry-run"], ["migrate"]):
            ended = await relay_command.run(*arguments, DATABASE_URL=dsn)
            assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), (arguments, ended.stderr)
            assert "permission denied for schema relay" in ended.stderr
    finally:
        rows("DROP ROLE relay_no_rights")
