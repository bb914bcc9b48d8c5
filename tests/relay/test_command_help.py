"""What the command line says of itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from relay.cli import cli
from tests.conftest import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

NAMES = cli.list_commands(None)  # type: ignore[arg-type] # it asks for no context


@pytest.fixture
def relay_command(tmp_path: Path) -> CommandLine:
    """The command line, configured wrongly: what it says of itself hangs on nothing."""
    command = CommandLine(tmp_path, "garbage")
    command.env["AGENT_SDK_URL"] = "garbage"
    return command


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(relay_command: CommandLine, name: str) -> None:
    ended = relay_command(name, "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith("Usage: ")
    assert f" {name} " in ended.stdout.splitlines()[0]
    assert ended.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_help_lists_every_command(relay_command: CommandLine, arguments: list[str]) -> None:
    ended = relay_command(*arguments)
    assert ended.returncode == 0
    assert [name for name in NAMES if f"\n  {name} " not in ended.stdout] == []


def test_the_version_is_the_packages(relay_command: CommandLine) -> None:
    assert relay_command("--version").stdout == f"relay, version {version('hotdash-relay')}\n"


def test_an_unknown_command_is_wrong_use(relay_command: CommandLine) -> None:
    ended = relay_command("frobnicate")
    assert ended.returncode == 2
    assert "No such command 'frobnicate'" in ended.stderr
