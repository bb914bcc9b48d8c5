"""The runbook's health check, run from the console."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from console.data.context import HealthCheck
from relay.errors import RelayError
from relay.monitoring.probes import ARTIFACTS, check_health, write_artifact

if TYPE_CHECKING:
    from collections.abc import Callable

    from console.data.context import Context


async def run_health_check(context: Context, show: Callable[[HealthCheck], None]) -> None:
    """Run the check, pass its lines to `show`, and write the artifact as `relay check-health` does.

    Raises:
        RelayError: The check has ended, but Postgres is away, so that it is not in the audit.
    """
    show(HealthCheck(("Health check is running …",)))
    try:
        check = await check_health(context.settings)
    except RelayError as error:
        show(HealthCheck((f"The health check could not be run: {error}",), ok=False))
        return
    try:
        path = await asyncio.to_thread(write_artifact, check, ARTIFACTS)
    except OSError as error:
        why = f"The artifact could not be written: {error}"
        show(HealthCheck((*check.lines(None), why), ok=False))
        return
    show(HealthCheck(tuple(check.lines(path)), ok=check.all_ok))
    await context.session.record("check-health", {"all_ok": check.all_ok, "artifact": str(path)})
