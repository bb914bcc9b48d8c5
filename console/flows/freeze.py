"""Freezes the dead letters of a replay or a discard before the question, and lists them in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from textual.content import Content

from console.flows.requests import Say
from relay.domain.format import plural
from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from console.data.operator_session import Proposal
    from console.flows.host import Host
    from console.widgets.question import Prompt
    from relay.store.replays import DeadLetter

LISTED = 6
"""Deliveries listed in a question."""
BY_KEY = 50
"""Up to so many listed ones are confirmed by a key; for more, the count is typed."""
_CAUSES = 2


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
    if not proposal.letters:
        host.dialog.close()
        host.request(Say("No dead letter matches any more. ctrl+r refreshes the list", bad=True))
        return None
    return proposal


def which(letters: Sequence[DeadLetter], *, listed: bool) -> list[Content]:
    """Return the first ones, a line each, if `listed`; else their most frequent errors with counts."""
    if listed:
        lines = [Content(f"  {_name(letter, whole=len(letters) == 1)}") for letter in letters[:LISTED]]
        more = len(letters) - LISTED
        return [*lines, Content(f"  … and {more} more")] if more > 0 else lines
    causes = Counter((letter.final_status or "–", letter.last_error or "–") for letter in letters).most_common()
    counted = [f"{number:,} × {clean(error, limit=80)}" for (_, error), number in causes[:_CAUSES]]
    more = len(causes) - _CAUSES
    return [Content("  " + ";  ".join(counted) + (f";  and {plural(more, 'other cause')}" if more > 0 else ""))]


def _name(letter: DeadLetter, *, whole: bool) -> str:
    """Return its id, event, conversation and status; the id is cut as the list has it, unless `whole`."""
    event, conversation = clean(letter.event or "-", limit=40), clean(letter.conversation_id or "-", limit=20)
    status = clean(letter.final_status or "-", limit=20)
    delivery_id = clean(letter.delivery_id, limit=40) if whole else clean(letter.delivery_id[:8])
    return f"{delivery_id}  {event}  conv {conversation}  {status}"
