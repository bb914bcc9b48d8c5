"""Evaluates the alert rules, records transitions, and sends notifications. One relay at a time has the duty.

A notice is written in the transaction that raises or clears its alert, so that no crash loses it. It is sent
afterwards, and again until it is accepted or an hour old. While Postgres is away the relay that had the duty last
evaluates what it has in memory, sends at once, and records the transitions when Postgres is back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from relay.domain.notifications import message_from, message_of
from relay.errors import StatementRefused, StoreUnavailable
from relay.monitoring.channels import channels
from relay.store import alerts, instances, traffic

if TYPE_CHECKING:
    from uuid import UUID

    from structlog.typing import FilteringBoundLogger

    from relay.domain.alerts import Transition
    from relay.domain.notifications import Message, Origin
    from relay.monitoring.channels import Channel
    from relay.monitoring.store_outage import StoreOutage
    from relay.settings import Settings
    from relay.store.alerts import Notice
    from relay.store.database import Connection, Database
    from relay.store.overview import Overview

_PATIENCE_S = 10.0
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0
_MOST_TRIES = 16  # the last about an hour after the first


@dataclass(frozen=True, slots=True)
class Situation:
    """What is so now, in one sentence, and the command to type next."""

    headline: str
    command: str


class Reader(Protocol):
    """Names what is so now (`relay.incident.situation`)."""

    async def read(self, connection: Connection) -> tuple[Overview, Situation]:
        """The overview, and what it means."""

    def without_store(self, since: datetime, lost: int, now: datetime) -> Situation:
        """What it means that Postgres has been away since then and that `lost` webhooks were refused."""


class AlertNotifier:
    """Evaluates, records and notifies, if this relay has the duty.

    `leads` says that this worker has the duty as long as no relay could ask Postgres for it.
    """

    name = "alerts"
    interval_s = 5.0

    def __init__(
        self,
        settings: Settings,
        database: Database,
        owner: UUID,
        log: FilteringBoundLogger,
        *,
        reader: Reader,
        outage: StoreOutage,
        origin: Origin,
        leads: bool = True,
    ) -> None:
        self._database = database
        self._owner = owner
        self._log = log
        self._reader = reader
        self._outage = outage
        self._origin = origin
        self._has_duty = leads
        self._channels = channels(settings)
        self._severities = settings.alert_severities if self._channels else frozenset()
        self._acknowledged: dict[str, datetime] = {}
        self._unsent: list[tuple[Channel, Message]] = []

    async def run_once(self) -> None:
        """One round.

        Raises:
            StoreUnavailable: Postgres is away; what memory shows has been sent.
        """
        self._outage.sample()
        try:
            notices = await self._evaluate()
        except StatementRefused:
            raise
        except StoreUnavailable:
            await self._evaluate_from_memory()
            raise
        await self._send_unsent()
        for notice in notices:
            await self._post(notice)

    async def run_before_start(self) -> None:
        """One round while the schema is not there yet: only whether Postgres is away."""
        self._outage.sample()
        try:
            async with self._database.connection(_PATIENCE_S):
                if not self._outage.has_news:
                    self._outage.over(())
        except StatementRefused:
            pass
        except StoreUnavailable:
            await self._evaluate_from_memory()

    async def _evaluate(self) -> list[Notice]:
        async with self._database.connection(_PATIENCE_S) as connection:
            if self._outage.has_news:  # also if another relay has the duty by now: it clears what was raised here
                await alerts.adopt(connection, self._outage.unrecorded, self._outage.active)
                self._outage.unrecorded.clear()
            if not await instances.take_duty(connection, "alerts", self._owner):
                self._has_duty = False
                self._outage.over(())
                return []
            await instances.show_alive(connection, self._owner)
            await traffic.learn_usual_gaps(connection)
            state, situation = await self._reader.read(connection)
            known = await alerts.acknowledged(connection)
            self._acknowledged = {rule: one.until for rule, one in known.items()}
            changes = await alerts.record(
                connection, state.verdicts, state.at, notices=lambda change: self._notices_of(change, situation)
            )
            notices = await alerts.due(connection) if self._channels else []
        self._has_duty = True
        self._outage.over(frozenset(verdict.rule.name for verdict in state.firing))
        self._log_changes(changes)
        return notices

    def _log_changes(self, changes: list[Transition]) -> None:
        for change in changes:
            log = self._log.warning if change.raised else self._log.info
            log(f"Alert {change.state}", rule=change.verdict.rule.name, value=change.verdict.value)

    def _is_sent(self, change: Transition) -> bool:
        """An acknowledged alert is not sent again; that it clears is."""
        until = self._acknowledged.get(change.verdict.rule.name)
        is_acknowledged = change.raised and until is not None and until > change.at
        return change.verdict.rule.severity in self._severities and not is_acknowledged

    def _notices_of(self, change: Transition, situation: Situation) -> list[alerts.NewNotice]:
        if not self._is_sent(change):
            return []
        message = message_of(change, self._origin, situation.headline, situation.command)
        return [
            alerts.NewNotice(message.text, message.as_dict() | {"channel": number})
            for number in range(len(self._channels))
        ]

    async def _evaluate_from_memory(self) -> None:
        if not self._has_duty:
            return
        now = datetime.now(UTC)
        changes = self._outage.missed(now)
        self._log_changes(changes)
        assert self._outage.since is not None
        situation = self._reader.without_store(self._outage.since, self._outage.lost, now)
        for change in changes:
            if self._is_sent(change):
                message = message_of(change, self._origin, situation.headline, situation.command)
                self._unsent += [(channel, message) for channel in self._channels]
        await self._send_unsent()

    async def _send_unsent(self) -> None:
        """Send what memory holds. What is not accepted is sent again in the next round."""
        waiting, self._unsent = self._unsent, []
        for channel, message in waiting:
            failure = await channel.send(message)
            if failure is not None:
                self._log.warning("Alert notification failed, will retry", reason=failure)
                self._unsent.append((channel, message))

    async def _post(self, notice: Notice) -> None:
        failure = await self._send(notice)
        async with self._database.connection() as connection:
            if failure is None:
                await alerts.sent(connection, notice)
            elif notice.tries + 1 >= _MOST_TRIES:
                self._log.error("Alert notification failed, given up", reason=failure)
                await alerts.drop(connection, notice)
            else:
                self._log.warning("Alert notification failed, will retry", reason=failure)
                pause_s = min(_FIRST_PAUSE_S * 2**notice.tries, _LONGEST_PAUSE_S)
                await alerts.try_again(connection, notice, pause_s)

    async def _send(self, notice: Notice) -> str | None:
        """Send a notice to its channel; None on success, else the reason. An earlier version's has no message."""
        number = int(notice.message.get("channel", 0)) if notice.message else 0
        if not notice.message or number >= len(self._channels):
            return None
        return await self._channels[number].send(message_from(notice.message))
