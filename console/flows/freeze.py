"""Freezes the dead letters of a replay or a discard before the question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.actions import DEAD
from console.flows.requests import Say
from console.keymap import key_of
from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from console.data.operator_session import Proposal
    from console.flows.host import Host
    from console.widgets.prompt import Prompt


async def frozen(host: Host, proposing: Awaitable[Proposal], waiting: Prompt) -> Proposal | None:
    """Return the proposal; None if it is empty, or if the operator closed `waiting` in the meantime.

    Raises:
        RelayError: Postgres is away.
    """
    try:
        proposal = await proposing
    except RelayError:
        if host.is_up and host.dialog.shows(waiting):
            host.dialog.close()
        raise
    if not host.is_up or not host.dialog.shows(waiting):
        return None
    if not proposal.frozen:
        host.dialog.close()
        host.request(
            Say(f"No dead letter matches any more. {key_of(DEAD, 'refresh_now')} refreshes the list", bad=True)
        )
        return None
    return proposal


def is_refused_without_relay(host: Host, proposal: Proposal, what: str) -> bool:
    """Return True, close the strip and say why, if no relay is alive that could do `what`."""
    if proposal.agent is not None:
        return False
    host.dialog.close()
    say_no_relay(host, what)
    return True


def say_no_relay(host: Host, what: str) -> None:
    """Say that nothing can be done, because no relay runs."""
    host.request(Say(f"No relay is running, so nothing can be {what}. Start one: `relay serve`", bad=True))
