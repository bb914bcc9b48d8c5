"""What a flow needs of the screen that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from textual.message import Message

    from console.data.context import Context
    from console.flows.dialog import Dialog


class Host(Protocol):
    """A screen. `is_up` is True while its widgets exist; `is_in_front` while nothing covers it."""

    context: Context
    dialog: Dialog

    @property
    def is_up(self) -> bool:
        """True while its widgets exist."""

    @property
    def is_in_front(self) -> bool:
        """True while no other screen covers it."""

    def request(self, message: Message) -> None:
        """Send a message to the app, even while this screen closes."""

    def in_background(self, work: Coroutine[Any, Any, None], *, group: str = "reading") -> None:
        """Run `work` until the screen closes or other work of the same group begins; errors become notices."""
