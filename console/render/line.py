"""One line of a list, as data: a key and its `Content`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from textual.content import Content


@dataclass(frozen=True, slots=True)
class Line:
    """One row: the key that identifies it, and its content."""

    key: Hashable
    content: Content
