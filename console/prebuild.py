"""Builds the base screen of a mode before the operator switches to it, so that the first switch takes no longer.

The only use of a private method of Textual (8.2): its public ways to a mode, `switch_mode` and `push_screen`, bring the
screen to the front at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.app import App


async def build_mode(app: App[Any], name: str) -> None:
    """Build the screen of the mode `name` and wait until its widgets exist. Does nothing if it was built before."""
    await app._init_mode(name)  # noqa: SLF001 - see the module's docstring
