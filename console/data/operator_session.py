"""Runs the operator's reads on demand and writes, on a second connection that opens when it is first needed.

Every write goes through here and carries the operator's name; --read-only refuses all of them. The store cleans every
row, so text from outside is already safe.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg

from console.data.choices import Choices
from relay.domain.targets import Target
from relay.errors import RelayError
from relay.replay.requests import DEFAULT, plan_request
from relay.store import (
    actions,
    alerts,
    backfill,
    deliveries,
    delivery_detail,
    facts,
    gate,
    instances,
    proposals,
    replays,
)
from relay.store.cancellation import no_longer_than
from relay.store.database import SILENCE_S
from relay.store.round_trip import together
from relay.store.sessions import open_session, times_in, trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from relay.replay.requests import Pace
    from relay.settings import Settings
    from relay.store.database import Connection
    from relay.store.deliveries import Progress
    from relay.store.delivery_detail import Detail
    from relay.store.facts import Health
    from relay.store.filters import Condition
    from relay.store.proposals import Outcomes, Overlap
    from relay.store.replays import Control, DeadLetter, Plan


class ReadOnlyError(RelayError):
    """The console was opened with --read-only."""

    def __init__(self) -> None:
        super().__init__("The console is read-only: it changes nothing")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A replay, ready to be confirmed: the deliveries are frozen, nothing is sent yet.

    `agent` is the endpoint that the relay sends to, None while no relay is alive; `health` the agent's last probe and
    `outcomes` how the last deliveries ended there. `overlaps` are other open plans that hold some of the deliveries.
    `messages` are the conversation and message ids of customers' messages, by row, None where Chatwoot is not
    configured; `answered` the rows of those that were answered by now, unknown while `asks_chatwoot`;
    `answered_fault` says why that cannot be known.
    `edited_body` replaces the body of the only delivery.
    """

    frozen: list[DeadLetter]
    frozen_at: datetime
    agent: str | None
    health: Health | None
    outcomes: Outcomes
    overlaps: list[Overlap]
    filter: str
    edited_body: bytes | None = None
    pace: Pace = DEFAULT
    messages: dict[int, tuple[int, int]] | None = None
    asks_chatwoot: bool = False
    answered: frozenset[int] = frozenset()
    answered_fault: str = ""
    includes_answered: bool = False

    @property
    def letters(self) -> list[DeadLetter]:
        """The deliveries that would be sent."""
        if self.includes_answered or not self.answered:
            return self.frozen
        return [letter for letter in self.frozen if letter.id not in self.answered]


def _of_agent(health: Sequence[Health]) -> Health | None:
    return next((probe for probe in health if probe.target == Target.AGENT), None)


class OperatorSession:
    """Reads on demand and writes, for `operator`. Its calls take turns on one connection.

    Times that it returns are in the zone of the `choices`; those of a report are in UTC.
    """

    def __init__(
        self, settings: Settings, dsn: str, operator: str, *, read_only: bool, choices: Choices | None = None
    ) -> None:
        self._choices = choices or Choices()
        self.settings = settings
        self.operator = operator
        self._dsn = dsn
        self._read_only = read_only
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Connect before the connection is needed. A failure is left to the first use of it."""
        with suppress(RelayError):
            async with self._session():
                pass

    async def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection is not None:
            await self._connection.close()

    @asynccontextmanager
    async def _session(self, *, write: bool = False) -> AsyncIterator[Connection]:
        """Yield the connection, reopened after a failure.

        Raises:
            RelayError: Postgres is away, has no tables, or refuses.
            ReadOnlyError: `write`, and the console is read-only.
        """
        if write and self._read_only:
            raise ReadOnlyError
        async with self._turn:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await open_session(
                        self._dsn, read_only=self._read_only, application="hotdash console session", timeout_ms=10_000
                    )
                    times_in(self._connection, lambda: self._choices.zone)
                with no_longer_than(SILENCE_S, self._connection):
                    yield self._connection
            except (psycopg.Error, OSError) as error:
                if self._connection is not None:
                    await self._connection.close()
                raise trouble(error) from error

    async def propose(self, condition: Condition, text: str = "", edited_body: bytes | None = None) -> Proposal:
        """Freeze the dead letters that match `condition`, oldest first. `text` is the filter as it was typed."""
        async with self._session() as connection:
            letters, relays, health, outcomes = await together(
                connection,
                replays.matching(connection, condition),
                instances.liveness(connection),
                facts.last_health(connection),
                proposals.last_outcomes(connection),
            )
            ids = [letter.id for letter in letters]
            overlaps, messages = await together(
                connection, proposals.overlaps(connection, ids), self._messages_of(connection, ids)
            )
        alive = [relay for relay in relays if relay.alive]
        return Proposal(
            frozen=letters,
            frozen_at=datetime.now(UTC),
            agent=alive[0].agent if alive else None,
            health=_of_agent(health),
            outcomes=outcomes,
            overlaps=overlaps,
            filter=text,
            edited_body=edited_body,
            messages=messages,
            asks_chatwoot=bool(messages) and len(letters) > 1,
        )

    async def refreshed(self, proposal: Proposal) -> Proposal:
        """Return `proposal` with what is known by now of the agent and of other plans."""
        ids = [letter.id for letter in proposal.frozen]
        async with self._session() as connection:
            health, outcomes, overlaps = await together(
                connection,
                facts.last_health(connection),
                proposals.last_outcomes(connection),
                proposals.overlaps(connection, ids),
            )
        return replace(proposal, health=_of_agent(health), outcomes=outcomes, overlaps=overlaps)

    async def _messages_of(self, connection: Connection, ids: Sequence[int]) -> dict[int, tuple[int, int]] | None:
        """Return which of the rows are customers' messages; None where Chatwoot is not configured."""
        account_id = self.settings.chatwoot_account_id
        if account_id is None or not self.settings.chatwoot_base_url or not self.settings.chatwoot_api_key:
            return None
        return await backfill.messages_of(connection, account_id, ids)

    async def send(self, proposal: Proposal, reason: str = "") -> int:
        """Enqueue a proposal as a plan; returns the plan's id."""
        request = plan_request(
            proposal.letters,
            requested_by=self.operator,
            pace=proposal.pace,
            reason=reason,
            filter=proposal.filter,
            edited_body=proposal.edited_body,
        )
        async with self._session(write=True) as connection:
            return await replays.ask(connection, request, proposal.letters)

    async def control(self, plan_id: int, control: Control) -> None:
        """Pause, resume or stop a plan."""
        async with self._session(write=True) as connection:
            await replays.control(connection, plan_id, control, operator=self.operator)

    async def plan(self, plan_id: int) -> Plan | None:
        """Return a plan; None if it is not known."""
        async with self._session() as connection:
            return await replays.plan(connection, plan_id)

    async def discard(self, row_ids: Sequence[int], reason: str) -> None:
        """Ask the relay to discard dead letters."""
        async with self._session(write=True) as connection:
            await actions.discard(connection, row_ids, self.operator, reason)

    async def hold(self, reason: str, for_s: float | None) -> None:
        """Hold forwarding on all relays, for `for_s` seconds or until it is released."""
        async with self._session(write=True) as connection:
            await gate.hold(connection, self.operator, reason, for_s)

    async def release(self, rate: float | None) -> bool:
        """Release the hold; what waits drains, at `rate` a second if given. False if there is none."""
        async with self._session(write=True) as connection:
            return await gate.release(connection, self.operator, rate)

    async def acknowledge(self, rule: str, reason: str, for_s: float) -> datetime:
        """Acknowledge a rule's alert for `for_s` seconds; returns when that ends."""
        async with self._session(write=True) as connection:
            return await alerts.acknowledge(connection, self.operator, rule, reason, for_s)

    async def record(self, action: str, details: dict[str, object]) -> None:
        """Record something done in the audit, unless the console is read-only."""
        if self._read_only:
            return
        async with self._session(write=True) as connection:
            await actions.record(connection, self.operator, action, "", details)

    @asynccontextmanager
    async def report_connection(self) -> AsyncIterator[Connection]:
        """Yield a separate connection for slow reads.

        Raises:
            RelayError: Postgres is away, has no tables, or refuses.
        """
        try:
            connection = await open_session(
                self._dsn, read_only=True, application="hotdash console report", timeout_ms=10_000
            )
            times_in(connection, lambda: UTC)
            async with connection:
                with no_longer_than(3 * SILENCE_S, connection):
                    yield connection
        except (psycopg.Error, OSError) as error:
            raise trouble(error) from error

    async def detail(self, row_id: int) -> Detail | None:
        """Return one delivery with attempts, payload and replays; None if it is gone."""
        async with self._session() as connection:
            return await delivery_detail.detail(connection, row_id)

    async def body(self, row_id: int) -> bytes:
        """Return the whole body of one delivery, unchanged."""
        async with self._session() as connection:
            return await delivery_detail.body_of(connection, row_id)

    async def find(self, delivery_id: str) -> int | None:
        """Return the row id of a delivery; None if the delivery is not stored."""
        async with self._session() as connection:
            return await delivery_detail.row_of(connection, delivery_id)

    async def progress(self, delivery_id: str) -> Progress | None:
        """Return how far a delivery has got; None while it is not stored."""
        async with self._session() as connection:
            return await deliveries.progress(connection, delivery_id)
