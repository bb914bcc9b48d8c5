"""Edited payloads that are not sent yet, by delivery. One is kept until it is sent or discarded by name."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Drafts:
    """The text of each edited payload, by the delivery's row id. They last as long as the console runs."""

    _texts: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self._texts

    def of(self, row_id: int) -> str | None:
        """Return the edited text; None if there is none."""
        return self._texts.get(row_id)

    def keep(self, row_id: int, text: str) -> None:
        """Keep an edited text."""
        self._texts[row_id] = text

    def drop(self, row_id: int) -> None:
        """Forget an edited text: it was sent, or discarded."""
        self._texts.pop(row_id, None)
