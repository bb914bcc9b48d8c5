"""The command palette's commands, in the order of the key map: what one does here comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.command import DiscoveryHit
from textual.system_commands import SystemCommandsProvider

if TYPE_CHECKING:
    from textual.command import Hits


class Commands(SystemCommandsProvider):
    """Textual's own provider sorts by name."""

    async def discover(self) -> Hits:
        """Return every command in the app's order."""
        for name, help_text, callback, _ in self.app.get_system_commands(self.screen):
            yield DiscoveryHit(name, callback, help=help_text)
