"""The two lines above every screen: the status line and the cause, or what is known while Postgres is away. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from textual.content import Content

from console.render import header
from console.render.trouble import meaning_of
from relay.domain.format import span, utc_clock
from relay.incident.cause import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from console.data.context import Context
    from console.data.snapshot import Snapshot
    from relay.incident.cause import Headline

    Hint = Callable[[Headline], str]
    """Returns what a key does about the cause on a screen."""


_MOST_ROWS = 2
"""The headline has at most so many rows, as `console.tcss` has them."""

_WHOLE = frozenset({Kind.REFUSED, Kind.STUCK, Kind.HELD, Kind.BREAKER_OPEN})
"""Kinds of headlines that take a second row rather than leave out a half."""

_LONGEST_WORD = 16
"""The cells that the end of the first row may leave free."""


@dataclass(frozen=True, slots=True)
class Head:
    """The two lines, and the classes of the second one in the style sheet."""

    status: Content
    cause: Content
    classes: str = ""


def connecting(*, is_away: bool) -> Content:
    """Return the status line of a console that has read nothing yet."""
    what = "nothing could be read yet" if is_away else "connecting to Postgres"
    return Content.assemble((" hotdash ", "bold reverse"), f" {what}")


def head_of(context: Context, shown_at: float | None, width: int, hint: Hint) -> Head:
    """Return both lines. `shown_at` is when the screen's own rows were read (`time.monotonic()`)."""
    snapshot = context.snapshot
    if snapshot is None:
        status = connecting(is_away=context.trouble is not None)
        if context.round_trip_s > header.SLOW_S and not context.trouble:
            return Head(status, header.slow_link(context.round_trip_s))
        return Head(status, Content(_away(context, None)), "bad trouble" if context.trouble else "")
    age_s = time.monotonic() - snapshot.read_at
    status = header.status_line(snapshot, _session_status(context, age_s), width)
    if context.trouble is None:
        return Head(status, _cause(snapshot, width, hint), snapshot.headline.level)
    shown_s = time.monotonic() - (shown_at or snapshot.read_at)
    older = f", what is below {span(shown_s)}" if shown_s > age_s + 1 else ""
    figures = f" The figures are {int(age_s)} s old{older}."
    return Head(status, Content(_away(context, snapshot) + figures), "bad trouble")


def _away(context: Context, snapshot: Snapshot | None) -> str:
    """Return what is wrong with Postgres, since when, what that means for webhooks, and what to do."""
    trouble = context.trouble
    if trouble is None:
        return ""
    if not trouble.is_away:
        return f"{trouble.reason}. Trying again."
    meaning = meaning_of(trouble.reason)
    if trouble.headline is not None:
        return f"{trouble.headline}. {meaning[0].upper()}{meaning[1:]}. Trying again."
    since = datetime.fromtimestamp(trouble.since, UTC).astimezone(context.choices.zone)
    webhooks = ""
    if snapshot is not None and snapshot.overview.alive:
        room = any(spool.max_bytes > 0 for spool in snapshot.overview.spools)
        webhooks = " Relays spool webhooks meanwhile." if room else " Relays without a spool refuse webhooks (503)."
    age = span(time.time() - trouble.since)
    return f"No session with Postgres since {utc_clock(since)} ({age}): {meaning}. Trying again.{webhooks}"


def _session_status(context: Context, age_s: float) -> header.SessionStatus:
    return header.SessionStatus(
        place=context.place,
        environment=context.environment,
        operator=context.operator,
        read_only=context.read_only,
        paused=context.paused,
        is_away=context.trouble is not None,
        age_s=age_s,
        round_trip_s=context.round_trip_s,
    )


def _beside(cause: Headline, hint: str, room: int) -> str | None:
    """Return the longest form with room for `hint` behind it; None if that is only the shortest of several."""
    forms = (cause.sentence, *cause.shorter[:-1])
    return next((form for form in forms if len(form) + len(hint) <= room), None)


def _cause(snapshot: Snapshot, width: int, hint: Hint) -> Content:
    """Return the headline's sentence, in two rows if its shortest form is long, with the hint where there is room."""
    cause = snapshot.headline
    key = hint(cause)
    sentence = _beside(cause, key, width - 2)
    if sentence is None:
        most = _MOST_ROWS if cause.kind in _WHOLE else 1
        sentence = cause.fitting(most * (width - 2) - (most - 1) * _LONGEST_WORD)
    rows = Content(sentence).wrap(max(10, width - 2))
    if len(rows) > _MOST_ROWS:
        rows = [*rows[: _MOST_ROWS - 1], Content(sentence[sum(row.cell_length for row in rows[:1]) :].strip())]
    shown = [(Content(" ") + row).truncate(max(10, width - 1), ellipsis=True) for row in rows]
    if shown[-1].cell_length + len(key) >= width:
        key = ""
    return Content("\n").join(shown) + Content.styled(key, "dim")
