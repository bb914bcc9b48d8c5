"""What it means that Postgres is away: asks the relay's `/health`. Loads an HTTP client when it is first wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.settings import Settings


async def outage_of(settings: Settings) -> str:
    """Return the headline of the outage, without its full stop."""
    from relay.incident.without_store import outage_headline  # noqa: PLC0415 - loads an HTTP client when first wanted

    return (await outage_headline(settings)).sentence.removesuffix(".")
