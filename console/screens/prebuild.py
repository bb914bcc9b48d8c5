"""Builds the base screen of a mode before the operator switches to it, so that the first switch takes no longer.

The only use of a private method of Textual (8.2): its public ways to a mode, `switch_mode` and `push_screen`, bring the
screen to the front at once (https://github.com/Textualize/textual/issues/2327 has the design of modes).
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import App

_BUILD_AFTER_S = 0.3
_COLLECT_AFTER = (5_000, 20, 20)


async def build_mode(app: App[Any], name: str) -> None:
    """Build the screen of the mode `name` and wait until its widgets exist. Does nothing if it was built before."""
    await app._init_mode(name)  # noqa: SLF001 - see the module's docstring


async def build_views(app: App[Any], names: Sequence[str], may_continue: Callable[[], bool]) -> None:
    """Build the other views while the operator reads the first one, so that the first switch is a quick one.

    Freezes the objects built so far, so that garbage collections (about 40 ms) do not delay key presses.
    """
    for name in names:
        await asyncio.sleep(_BUILD_AFTER_S)
        if not may_continue() or not app.is_running:
            return
        await build_mode(app, name)
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
