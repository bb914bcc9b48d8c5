"""What the command line says of dead letters whose customers were answered by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.commands.common import say
from relay.domain.format import verb
from relay.errors import RelayError
from relay.replay.answered import answered_rows
from relay.store import backfill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.settings import Settings
    from relay.store.database import Connection
    from relay.store.replays import DeadLetter

CHECK_S = 60
"""How long Chatwoot is asked, at most. At ten requests a second that is some 600 conversations."""


def to_send(total: int, answered_count: int, *, include: bool) -> str:
    """The plan's first line: `193 to send, of which 12 are answered by now (left out unless you say so: …)`."""
    if not answered_count:
        return f"{total} to send"
    what = "included" if include else "left out unless you say so: --include-answered"
    return f"{total} to send, of which {answered_count} {verb(answered_count, 'are')} answered by now ({what})"


async def answered_letters(connection: Connection, settings: Settings, letters: Sequence[DeadLetter]) -> set[int]:
    """The row ids of those of `letters` whose message was answered by now.

    None where Chatwoot is not configured. Where it cannot be asked, a line on stderr says why.
    """
    account_id = settings.chatwoot_account_id
    if account_id is None or settings.chatwoot_base_url is None or settings.chatwoot_api_key is None:
        return set()
    messages = await backfill.messages_of(connection, account_id, [letter.id for letter in letters])
    if not messages:
        return set()
    try:
        return await answered_rows(settings, messages, within_s=CHECK_S)
    except RelayError as error:
        say(f"Whether some of them are answered by now is not known: {error}", err=True)
        return set()
