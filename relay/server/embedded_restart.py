"""Starts the embedded Postgres again when it has ended while the relay runs: killed, or without disk space."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from relay.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import FilteringBoundLogger

    from relay.store.embedded import EmbeddedPostgres

_EVERY_S = 1.0


@contextmanager
def supervised(server: EmbeddedPostgres | None, relay_log: FilteringBoundLogger) -> Iterator[None]:
    """Keep `server` running for the block; None: there is no embedded server. A thread checks it every second.

    A start that fails is logged once, and tried again until it succeeds.
    """
    if server is None:
        yield
        return
    ending = threading.Event()
    thread = threading.Thread(target=_watch, args=(server, relay_log, ending), name="embedded-postgres", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _watch(server: EmbeddedPostgres, relay_log: FilteringBoundLogger, ending: threading.Event) -> None:
    said = ""
    while not ending.wait(_EVERY_S):
        try:
            if server.revive():
                relay_log.warning("The embedded Postgres had ended and was started again")
            said = ""
        except (StoreUnavailable, ConfigurationError, OSError) as error:
            if said != str(error):
                said = str(error)
                relay_log.error("The embedded Postgres has ended and does not start, will retry", reason=said)
