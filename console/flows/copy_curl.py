"""Copies a delivery as an equivalent curl command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.flows.requests import Copy, Say
from console.render.curl import MOST_BYTES, curl_command

if TYPE_CHECKING:
    from console.flows.host import Host


async def copy_curl(host: Host, row_id: int) -> None:
    """Copy the command for one delivery to the operator's clipboard.

    Raises:
        StoreUnavailable: Postgres is away.
    """
    context = host.context
    detail = await context.session.detail(row_id)
    if detail is None:
        host.request(Say("That delivery is no longer stored", bad=True))
        return
    if detail.body_length > MOST_BYTES:
        length = f"Its payload is {detail.body_length:,} bytes: too long for the clipboard of a terminal"
        host.request(Say(length, bad=True))
        return
    body = await context.session.body(row_id)
    command = curl_command(context.settings.agent_endpoint_shown, detail.row.delivery_id, body)
    host.request(Copy(command, "Copied as a curl command"))
