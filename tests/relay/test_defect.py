"""A relay that is broken inside stops and says by what, instead of going on by halves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from relay.store import instances
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers import Rows, RunningRelay


class Defect(BaseException):
    """What no service's loop takes for a failure that passes."""


async def test_a_relay_whose_services_end_by_a_defect_stops_in_good_order(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await start_relay()
    assert (await relay.post({"event": "message_created"})).status_code == 200

    async def broken(*_: object, **__: object) -> bool:
        raise Defect("planted")

    monkeypatch.setattr(instances, "beat", broken)
    with pytest.raises(BaseExceptionGroup) as raised:
        await relay._task
    assert raised.group_contains(Defect, match="planted")
    await until(lambda: "The relay's services have ended by a defect; it stops" in relay.output)
    assert rows("SELECT state FROM relay.deliveries") == ["delivered"]
    assert rows("SELECT id FROM relay.instances WHERE stopped_at IS NULL") == []
    with pytest.raises(httpx.ConnectError):
        await relay.post({"event": "message_created"})
    await relay.client.aclose()
