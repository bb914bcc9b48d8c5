"""Background services of one relay process: their common shape, and the loop that runs them.

A step that fails is logged and repeated. The loss and the return of Postgres are logged once each, not once a step.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from relay.errors import SchemaError, StatementRefused, StoreUnavailable
from relay.store.cancellation import heeding_cancellation
from relay.store.failures import described

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

HEARTBEAT = "heartbeat"
"""The name of the service whose success shows that Postgres is back."""

_PAUSE_AFTER_FAILURE_S = 1.0


class Service(Protocol):
    """Work that is repeated while the relay runs. `interval_s` is the pause between two rounds, in seconds."""

    @property
    def name(self) -> str:
        """What logs call it."""

    @property
    def interval_s(self) -> float:
        """The pause between two rounds, in seconds."""

    async def run_once(self) -> None:
        """Work one round.

        Raises:
            StoreUnavailable: Postgres is away.
        """


class ServiceLoop:
    """Runs services for ever. With `strict`, a `SchemaError` of a step named "start" ends the relay."""

    def __init__(self, log: FilteringBoundLogger, *, strict: bool) -> None:
        self._log = log
        self._strict = strict
        self._unavailable = False

    async def run(self, service: Service) -> None:
        """Repeat `service` until cancelled; after a failure not before a second has passed."""
        while True:
            succeeded = await self._succeeds(service.name, service.run_once)
            await asyncio.sleep(service.interval_s if succeeded else max(service.interval_s, _PAUSE_AFTER_FAILURE_S))

    async def until_success(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        """Repeat `step` once a second until it succeeds.

        Raises:
            SchemaError: the step is "start", and the database lacks what every delivery needs.
        """
        while True:
            if await self._succeeds(name, step):
                return
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)

    async def _succeeds(self, name: str, step: Callable[[], Awaitable[object]]) -> bool:
        """Run one step. False if it failed, which is logged."""
        try:
            with heeding_cancellation():
                await step()
        except StatementRefused as error:
            self._log.warning("A statement was refused, will retry", service=name, reason=str(error))
        except StoreUnavailable as error:
            if not self._unavailable:
                self._unavailable = True
                self._log.error("Postgres is away", reason=str(error))
        except SchemaError as error:
            if self._strict and name == "start":
                raise
            self._log.error("A service failed, will retry", service=name, error=str(error))
        except Exception as error:  # noqa: BLE001 - the loop's top
            self._log.error("A service failed, will retry", service=name, error=described(error))
        else:
            if self._unavailable and name == HEARTBEAT:
                self._unavailable = False
                self._log.info("Postgres is back")
            return True
        return False
