"""The command palette: what the view in front can do first, then what is possible everywhere, then where to go."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.app import SystemCommand
from textual.command import DiscoveryHit
from textual.system_commands import SystemCommandsProvider

from console.key_names import shown_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from textual.command import Hits

    from console.actions import Action


def commands_of(actions: Iterable[Action], view: str, run: Callable[[str], object]) -> Iterator[SystemCommand]:
    """Return the commands for the `actions` that are possible in `view`; each calls `run` with the action's name."""
    for action in sorted(actions, key=partial(_place, view)):
        yield SystemCommand(action.text, " ".join(map(shown_key, action.keys)), partial(run, action.name))


def _place(view: str, action: Action) -> int:
    if action.name.startswith(("view(", "cursor(", "back", "leave")):
        return 2
    return 0 if action.where is not None and view in action.where else 1


class Commands(SystemCommandsProvider):
    """Textual's own provider sorts by name."""

    async def discover(self) -> Hits:
        """Return every command in the app's order."""
        for name, help_text, callback, _ in self.app.get_system_commands(self.screen):
            yield DiscoveryHit(name, callback, help=help_text)
