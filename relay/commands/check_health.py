"""`relay check-health`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from relay.commands.common import as_json, print_json, say
from relay.monitoring.probes import ARTIFACTS, HealthCheck, check_health, write_artifact
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
    """Run the runbook's health check: Chatwoot, its authenticated API, the Agent SDK.

    Exit 0 if all pass and the artifact is written. The first line is about Chatwoot alone.
    """
    check = asyncio.run(check_health(load_settings()))
    path, fault = _write(check, artifacts)
    if as_json:
        artifact = {"artifact": None if path is None else str(path), "artifact_error": fault}
        print_json(check.as_dict() | artifact)
    else:
        click.echo("\n".join(check.lines(path)))
    if fault is not None:
        say(f"relay: {fault}", err=True)
    click.get_current_context().exit(0 if check.all_ok and fault is None else 1)


def _write(check: HealthCheck, folder: Path) -> tuple[Path | None, str | None]:
    """The artifact's path, or why there is none."""
    try:
        return write_artifact(check, folder), None
    except OSError as error:
        return None, f"{folder}: the artifact cannot be written ({error.strerror})"
