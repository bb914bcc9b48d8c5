"""What the command line says of itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import click
import pytest

from relay.cli import cli
from tests.conftest import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fork_server import ForkServer

NAMES = cli.list_commands(None)  # type: ignore[arg-type] # it asks for no context


@pytest.fixture
def relay_command(tmp_path: Path, fork_server: ForkServer) -> CommandLine:
    """The command line, configured wrongly: what it says of itself hangs on nothing."""
    command = CommandLine(tmp_path, "garbage", fork_server)
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


@pytest.mark.parametrize("program", ["relay", "console"])
def test_the_version_is_the_packages(relay_command: CommandLine, program: str) -> None:
    assert relay_command("--version", program=program).stdout == f"{program}, version {version('hotdash-relay')}\n"


def test_every_command_has_the_version(relay_command: CommandLine) -> None:
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in NAMES]
    assert [command for command in commands if not any("--version" in option.opts for option in command.params)] == []  # type: ignore[union-attr]
    assert relay_command("agent", "serve", "--version").stdout == f"relay, version {version('hotdash-relay')}\n"


@pytest.mark.parametrize("program", ["relay", "console"])
def test_a_shell_completes_its_words(relay_command: CommandLine, program: str) -> None:
    script = relay_command("--completion", "bash", program=program)
    assert (script.returncode, f"_{program.upper()}_COMPLETE=bash_complete" in script.stdout) == (0, True)
    words = {f"_{program.upper()}_COMPLETE": "bash_complete", "COMP_WORDS": f"{program} --", "COMP_CWORD": "1"}
    assert "plain,--version" in relay_command(program=program, **words).stdout.splitlines()


def test_an_unknown_command_is_wrong_use(relay_command: CommandLine) -> None:
    ended = relay_command("frobnicate")
    assert ended.returncode == 2
    assert "No such command 'frobnicate'" in ended.stderr
