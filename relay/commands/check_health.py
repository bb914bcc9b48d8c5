"""`relay check-health`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from relay.commands.common import as_json, print_json
from relay.errors import RelayError
from relay.monitoring.probes import ARTIFACTS, check_health, write_artifact
from relay.settings import load_settings


@click.command("check-health")
@click.option(
    "--artifacts",
    type=click.Path(file_okay=False, path_type=Path),
    default=ARTIFACTS,
    show_default=True,
    help="Folder that the JSON artifact is written to.",
)
@as_json
def command(artifacts: Path, *, as_json: bool) -> None:
    """Run the runbook's health check: Chatwoot, its authenticated API, the Agent SDK. Exit 0 if all pass."""
    check = asyncio.run(check_health(load_settings()))
    try:
        path = write_artifact(check, artifacts)
    except OSError as error:
        raise RelayError(f"{artifacts}: the artifact cannot be written ({error.strerror})") from error
    if as_json:
        print_json(check.as_dict() | {"artifact": str(path)})
    else:
        click.echo("\n".join(check.lines(path)))
    click.get_current_context().exit(0 if check.all_ok else 1)
