"""What the alert notifier says of the situation: the headline, and the command to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.incident import state
from relay.incident.headline import headline
from relay.incident.state import State, StoreOutage, without_agents_errors
from relay.monitoring.alert_notifier import Situation

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from relay.incident.cause import Headline
    from relay.incident.state import SpoolState
    from relay.store.database import Connection
    from relay.store.overview import Overview


class SituationReader:
    """Names what is so by the one headline engine. `spool` is this host's spool, None where there is none."""

    def __init__(self, spool: Callable[[], SpoolState | None] = lambda: None) -> None:
        self._spool = spool

    async def read(self, connection: Connection) -> tuple[Overview, Situation]:
        """The overview, and its headline without what the agent said: notifications go to other services."""
        found, now = await state.read(connection)
        return found, _situation(headline(without_agents_errors(now)))

    def without_store(self, since: datetime, lost: int, now: datetime) -> Situation:
        """The headline of an outage of Postgres."""
        return _situation(headline(State(at=now, outage=StoreOutage(since, lost), spool=self._spool())))


def _situation(cause: Headline) -> Situation:
    return Situation(cause.sentence, cause.command)
