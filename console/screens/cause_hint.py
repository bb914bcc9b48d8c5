"""What a key does about the cause that the first line names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.actions import ACTIVITY, DEAD, DIAGNOSIS
from console.keymap import key_of, view_key
from relay.incident.cause import BAD, PRESENT, Kind

if TYPE_CHECKING:
    from relay.incident.cause import Headline

_SHOWN_IN = {Kind.RECOVERED: DEAD, Kind.DEAD_LETTERS: DEAD, Kind.REPLAY_RUNS: ACTIVITY}
"""The views that show what a headline is about."""


def hint_of(view: str, cause: Headline, *, read_only: bool) -> str:
    """Return what a key of `view` does about the cause, with two blanks before it; empty if none does anything."""
    if cause.kind is Kind.HELD and not read_only:
        return f"  {key_of(view, 'hold')} releases"
    if (cause.level == BAD or cause.kind in PRESENT) and view != DIAGNOSIS:
        return f"  {key_of(view, 'diagnose')} says why"
    shows = _SHOWN_IN.get(cause.kind, view)
    return "" if shows == view else f"  {view_key(shows)} shows {'it' if shows == ACTIVITY else 'them'}"
