"""Evaluates the alert rules, records transitions, and posts notifications. One relay at a time has the duty.

A notice is written in the transaction that raises or clears its alert, so that no crash loses it. It is posted
afterwards, and again until it is accepted or an hour old. The address is a secret and is never logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from relay.domain.retry import failure_of
from relay.store import alerts, instances, overview, traffic

if TYPE_CHECKING:
    from uuid import UUID

    from structlog.typing import FilteringBoundLogger

    from relay.settings import Settings
    from relay.store.alerts import Notice
    from relay.store.database import Database

_DUTY_S = 15.0
_POST_TIMEOUT_S = 10
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0
_MOST_TRIES = 16  # the last about an hour after the first


class AlertNotifier:
    """Evaluates, records and notifies, if this relay has the duty."""

    name = "alerts"
    interval_s = 5.0

    def __init__(self, settings: Settings, database: Database, owner: UUID, log: FilteringBoundLogger) -> None:
        self._database = database
        self._owner = owner
        self._log = log
        self._url = settings.relay_alert_webhook_url
        self._severities = settings.alert_severities if self._url is not None else frozenset()

    async def run_once(self) -> None:
        """One round.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            if not await instances.take_duty(connection, "alerts", self._owner, for_s=_DUTY_S):
                return
            await traffic.learn_usual_gaps(connection)
            state = await overview.read(connection)
            changes = await alerts.record(connection, state.verdicts, state.at, notified=self._severities)
            notices = await alerts.due(connection) if self._url is not None else []
        for change in changes:
            log = self._log.warning if change.raised else self._log.info
            log(f"Alert {change.state}", rule=change.verdict.rule.name, value=change.verdict.value)
        for notice in notices:
            await self._post(notice)

    async def _post(self, notice: Notice) -> None:
        assert self._url is not None
        failure = await self._send(self._url.get_secret_value(), notice)
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

    async def _send(self, url: str, notice: Notice) -> str | None:
        """Post a notice in the form that Slack accepts; None on success, else the reason."""
        try:
            async with httpx.AsyncClient(timeout=_POST_TIMEOUT_S) as client:
                answer = await client.post(url, json={"text": notice.text})
        except httpx.HTTPError as error:
            return str(failure_of(error))
        return None if answer.is_success else f"answered {answer.status_code}"
