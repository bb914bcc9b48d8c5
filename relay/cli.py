"""The `relay` command. Exit status: 0 fine, 1 a check failed, 2 used or configured wrongly (DESIGN, 5)."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, NoReturn

import click

from relay.command_line import completion_option, run_program, version_option, warn_of_near_misses

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_PROGRAM = "relay"

_COMMANDS = {
    "serve": "Receive webhooks and forward them.",
    "demo": "Everything on this machine: Postgres, relay, Chatwoot and Agent SDK stand-ins, an outage.",
    "status": "What the overview shows, as text or JSON.",
    "check-health": "The runbook's health check of Chatwoot and the Agent SDK.",
    "send-test": "Post a signed test webhook and follow it to its end.",
    "replay": "Send dead letters again.",
    "backfill": "Fetch what no webhook brought: customers' messages that Chatwoot has and this database lacks.",
    "hold": "Stop forwarding on all relays; webhooks are stored and wait.",
    "release": "End the hold; what waits is forwarded in order.",
    "redirect": "Move what waits for one Agent SDK to another.",
    "diagnose": "Walk the runbook's troubleshooting on the live system; the first line is the cause.",
    "escalate": "Gather the evidence, and append an entry to reports/manager/ESCALATION.md.",
    "timeline": "What happened, in one list by time: failures, alerts, relays, replays, operators.",
    "handover": "A summary for the next shift, as Markdown: what happened, what is open, what was done.",
    "show": "Show one delivery: timeline, attempts, answers, payload.",
    "tail": "Print the forwarding log and follow it.",
    "erase": "Remove a person's stored payloads.",
    "fsck": "Check the tables, and repair them.",
    "ack": "Acknowledge an alert: it stays visible and is not sent again for a while.",
    "alerts": "Test where notifications of alerts go.",
    "agent": "The reference Agent SDK: drafts replies as private notes; `agent check` tries any other one.",
    "deploy": "Print files for containers, Fly.io, systemd, proxies, Prometheus and Grafana.",
    "dsn": "Print the database's DSN, starting the embedded server if need be.",
    "migrate": "Bring the database's schema up to this version.",
}


@functools.cache
def _load(name: str) -> click.Command:
    module = importlib.import_module(f"relay.commands.{name.replace('-', '_')}")
    command: click.Command = module.command
    _complete(command)
    return command


def _complete(command: click.Command) -> None:
    """Give a command, and those below it, what every one has: `--version`, and a warning of misspelt variables."""
    command.params.append(version_option(_PROGRAM))
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _complete(below)
        return
    work = command.callback
    assert work is not None

    @functools.wraps(work)
    def warned(*args: Any, **kwargs: Any) -> Any:
        warn_of_near_misses(_PROGRAM)
        return work(*args, **kwargs)

    command.callback = warned


class _Commands(click.Group):
    """Finds a command by name and imports its module only then: `relay dsn` does not load a web server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _load(cmd_name) if cmd_name in _COMMANDS else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - for a shell's question alone

        fitting = [CompletionItem(name, help=text) for name, text in _COMMANDS.items() if name.startswith(incomplete)]
        return fitting + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from the environment and from .env in the working directory. "
    "Exit status: 0 fine, 1 a check failed, 2 used or configured wrongly.",
    params=[version_option(_PROGRAM), completion_option(_PROGRAM)],
)
def cli() -> None:
    """A webhook relay that loses nothing: Chatwoot's webhooks reach the Agent SDK, or wait in sight."""


def main() -> NoReturn:
    """Run the command; every error that the relay raises on purpose is one line on stderr."""
    run_program(_PROGRAM, cli)
