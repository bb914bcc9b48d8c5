"""The `relay` command. Exit status: 0 fine, 1 a check failed, 2 used or configured wrongly (DESIGN, 5)."""

from __future__ import annotations

import importlib
import io
import sys
from typing import NoReturn

import click

from relay import __version__
from relay.errors import ConfigurationError, FilterError, RelayError
from relay.text import clean

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
    "diagnose": "Walk the runbook's troubleshooting on the live system; the first line is the cause.",
    "escalate": "Gather the evidence, and append an entry to reports/manager/ESCALATION.md.",
    "agent": "The reference Agent SDK: drafts replies as private notes; `agent check` tries any other one.",
    "deploy": "Print files for containers, Fly.io, systemd, proxies, Prometheus and Grafana.",
    "dsn": "Print the database's DSN, starting the embedded server if need be.",
    "migrate": "Bring the database's schema up to this version.",
}


_ERROR_CHARS = 10_000


class _Commands(click.Group):
    """Finds a command by name and imports its module only then: `relay dsn` does not load a web server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"relay.commands.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from the environment and from .env in the working directory. "
    "Exit status: 0 fine, 1 a check failed, 2 used or configured wrongly.",
)
@click.version_option(__version__, prog_name="relay")
def cli() -> None:
    """A webhook relay that loses nothing: Chatwoot's webhooks reach the Agent SDK, or wait in sight."""


def show_click_error(error: click.ClickException) -> None:
    """Print a wrong use as click does, on stderr. What it quotes of the command line is cleaned."""
    shown = io.StringIO()
    error.show(shown)
    click.echo(clean(shown.getvalue(), limit=_ERROR_CHARS, newlines=True), err=True, nl=False)


def main() -> NoReturn:
    """Run the command; every error that the relay raises on purpose is one line on stderr."""
    try:
        status = cli(standalone_mode=False)  # what a command's exit asks for is returned, not raised
    except click.ClickException as error:
        show_click_error(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted.", err=True)
        sys.exit(130)
    except RelayError as error:
        click.echo(f"relay: {clean(str(error), limit=_ERROR_CHARS, newlines=True)}", err=True)
        sys.exit(2 if isinstance(error, (ConfigurationError, FilterError)) else 1)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(status)
