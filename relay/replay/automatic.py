"""Auto-replay, off by default: requests a replay of the dead letters of an outage once the Agent SDK has recovered.

The request id is derived from the beginning of the outage, so that several relays make one plan. The plan sends one
delivery first and stops after a few failures. In the console's Activity it is a replay by `auto-replay` that can be
paused and stopped like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from relay.domain.format import utc_clock
from relay.domain.retry import RETRIED_4XX, Failure
from relay.errors import Refused
from relay.replay.requests import AUTOMATIC, plan_request
from relay.store import instances, outages, replays
from relay.store.filters import compile_filter

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from relay.store.database import Database
    from relay.store.outages import Outage

OPERATOR = replays.AUTOMATIC
GOOD_PROBES = 2
"""Good probes in a row after which the agent counts as recovered. Deliveries in retry have ended by then."""

INTERVAL_S = 5.0
_OUTAGES = UUID("6b1f3a0e-3f0c-4f3e-9a57-2d3c0f0d9b1e")
_RETRIED = ",".join(["5xx", *(str(code) for code in sorted(RETRIED_4XX)), *Failure])


def filter_of(outage: Outage) -> str:
    """The filter that matches the dead letters of an outage that may succeed now."""
    return f"status:{_RETRIED} !test:yes since:{outage.well_at:%Y-%m-%dT%H:%M:%S}"


class AutoReplay:
    """Requests a replay when an outage is over. One relay at a time has the duty."""

    name = "auto-replay"

    def __init__(self, database: Database, owner: UUID, log: FilteringBoundLogger, *, interval_s: float) -> None:
        self.interval_s = interval_s
        self._database = database
        self._owner = owner
        self._log = log
        self._seen: UUID | None = None

    async def run_once(self) -> None:
        """One round.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            if not await instances.take_duty(connection, "auto-replay", self._owner):
                return
            outage = await outages.last(connection)
            if outage is None or outage.well_since < GOOD_PROBES:
                return
            request_id = uuid5(_OUTAGES, outage.began_at.isoformat())
            if request_id == self._seen or await replays.is_known(connection, request_id):
                self._seen = request_id
                return
            text = filter_of(outage)
            letters = await replays.matching(connection, compile_filter(text))
            self._seen = request_id
            if not letters:
                return
            down = f"{utc_clock(outage.began_at)} to {utc_clock(outage.failed_at)}"
            request = plan_request(
                letters,
                request_id=request_id,
                requested_by=OPERATOR,
                pace=AUTOMATIC,
                reason=f"the Agent SDK has recovered; down {down}",
                filter=text,
            )
            try:
                plan_id = await replays.ask(connection, request, letters)
            except Refused:
                if await replays.is_known(connection, request_id):  # another relay was faster, with other letters
                    return
                raise
        self._log.info("Auto-replay requested", replay=plan_id, deliveries=len(letters))
