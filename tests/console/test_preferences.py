"""What the operator chooses: the zone of times, keys, themes and filters from files, and what is remembered."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    import pytest

    from tests.console.screens import Watched
    from tests.servers import RunningRelay

    Console = Callable[..., AbstractAsyncContextManager[Watched]]


async def test_times_are_utc_or_this_machines(
    incident: RunningRelay, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")  # 5 h 45 min ahead of UTC, all year
    time.tzset()
    try:
        async with console() as seen:
            await seen.shows("Failure groups")
            assert re.search(r"\d\d:\d\d:\d\dZ", seen.text.splitlines()[0])
            await seen.press("L")
            await seen.shows("+05:45")
            await seen.press("2", "enter")
            await seen.shows("received", "+05:45")
            await seen.press("L")
            await seen.hides("+05:45")
    finally:
        monkeypatch.undo()
        time.tzset()
