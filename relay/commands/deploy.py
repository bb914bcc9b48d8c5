"""`relay deploy`: prints the files with which the relay is deployed and watched."""

from __future__ import annotations

import click

from relay.deploy.catalogue import FILES, find


def _listing() -> str:
    width = max(len(one.name) for one in FILES)
    return "\n".join(f"{one.name:<{width}}  {one.text}" for one in FILES)


def _complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [one.name for one in FILES if one.name.startswith(incomplete)]


@click.command("deploy", epilog="\b\nNames:\n" + "\n".join(f"  {line}" for line in _listing().splitlines()))
@click.argument("name", required=False, shell_complete=_complete)
def command(name: str | None) -> None:
    """Print the file NAME, which works as it is; without NAME list the files.

    `relay deploy systemd > /etc/systemd/system/hotdash-relay.service`. relay/deploy/README.md says how they are used.
    """
    if name is None:
        click.echo(_listing())
        return
    found = find(name)
    if found is None:
        names = ", ".join(one.name for one in FILES)
        raise click.UsageError(f"There is no file {name!r} to deploy. Names: {names}.")
    click.echo(found.content(), nl=False)
