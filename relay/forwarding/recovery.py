"""Claims deliveries whose relay is gone: one that died, or lost its lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.forwarding.receipt_storage import STORE_PATIENCE_S
from relay.store import claims

if TYPE_CHECKING:
    from uuid import UUID

    from relay.forwarding.lease import Lease
    from relay.forwarding.pipeline import Pipeline
    from relay.store.database import Database
    from relay.telemetry.forwarding_log import ForwardingLog
    from relay.telemetry.metrics import Counters

_ORPHAN_S = 2 * STORE_PATIENCE_S + 5
_BATCH = 64


class Recovery:
    """Claims as much as the pipeline has room for, while the lease is held."""

    name = "recovery"

    def __init__(
        self,
        database: Database,
        owner: UUID,
        *,
        pipeline: Pipeline,
        lease: Lease,
        forwarding_log: ForwardingLog,
        counters: Counters,
    ) -> None:
        self._database = database
        self._owner = owner
        self._pipeline = pipeline
        self._lease = lease
        self._forwarding_log = forwarding_log
        self._counters = counters
        self.interval_s = min(2.0, lease.seconds / 4)

    async def run_once(self) -> None:
        """Claim and resume batches until nothing is left or there is no room.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        while True:
            most = min(_BATCH, self._pipeline.capacity)
            if not most or not self._lease.is_held:
                return
            async with self._database.connection() as connection:
                taken = await claims.claim_abandoned(
                    connection,
                    self._owner,
                    held=list(self._pipeline.held),
                    settled=self._lease.is_settled,
                    most=most,
                    orphan_s=_ORPHAN_S,
                )
            for claimed in taken:
                self._counters.taken_over += 1
                self._forwarding_log.taken_over(claimed.delivery)
                self._pipeline.resume(claimed)
            if len(taken) < most:
                return
