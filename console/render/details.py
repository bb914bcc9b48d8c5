"""One delivery close up, as `Content`: its attempts, payload, headers, replays. Pure.

Whatever came from outside goes through `clean` here, for a `Detail` carries it as it is.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import DETAIL
from console.keymap import key_of
from console.render import formatting
from console.render.wrapping import hanging
from relay.domain.delivery import State
from relay.domain.format import clock, exact_clock, full_time, milliseconds, plural
from relay.text import clean, clean_json

if TYPE_CHECKING:
    from relay.store.delivery_detail import Detail, Replayed, Try

PEEK_CHARS = 2_000
PAYLOAD_CHARS = 60_000
PAYLOAD_LINES = 2_000
_MUTED = "$text-muted"
_SECOND_COLUMN = 42
_IGNORED = "stored, not forwarded: a private note, or an event that RELAY_FORWARD_EVENTS leaves out"


def headline(detail: Detail) -> list[Content]:
    """Return id, conversation and event of the delivery, and the last error of a dead letter."""
    row = detail.row
    parts = [
        Content.styled(f"{clean(row.delivery_id[:8])}  conv {clean(row.conversation_id or '–', limit=40)}", "bold"),
        Content.styled(clean(row.event or "–", limit=80), "bold"),
    ]
    if row.last_error and row.state is State.DEAD:
        parts.append(Content.styled(clean(row.last_error, limit=200), "$text-error"))
    return parts


def attempt_lines(detail: Detail, width: int) -> list[Content]:
    """Return the attempts of the last run, a line each: time, wait before it, status and duration.

    Lines of little `width` leave out the wait and parts of a second, so that each attempt stays on its line.
    """
    if not detail.attempts:
        return [_no_attempt(detail)]
    last = [attempt for attempt in detail.attempts if attempt.run == detail.attempts[-1].run]
    said = [
        line for attempt in last[-1:] if attempt.answer for line in answer_lines(attempt.answer, width, _ANSWER_ROWS)
    ]
    whole = [_attempt(attempt) for attempt in last]
    fits = all(line.cell_length <= width for line in whole)
    return [*(whole if fits else [_attempt(attempt, is_short=True) for attempt in last]), *said]


_ANSWER_LINES, _ANSWER_ROWS = 3, 6
"""The rows of an answer's beginning, on the whole width and in the side pane."""

_ANSWER_CHARS = 64 * 1024


def answer_lines(answer: str, width: int, most: int | None) -> list[Content]:
    """Return the agent's answer as lines of `width`, JSON indented; with `most` its beginning."""
    text = (
        clean_json(answer.encode("utf-8", "replace"), limit=_ANSWER_CHARS)
        if answer.lstrip()[:1] in {"{", "["}
        else answer
    )
    rows = hanging([Content(f"  {clean(line, limit=None)}") for line in text.splitlines()], max(20, width))
    if most is not None and len(rows) > most:
        rows = [*rows[:most], Content(f"  … {key_of(DETAIL, 'answers')} shows all of it")]
    return [Content("  answered:"), *(Content.styled(row.plain, _MUTED) for row in rows)]


def timeline(detail: Detail, width: int, *, whole_answers: bool = False) -> list[Content]:
    """Return every attempt of every run with its error and answer; equal ones in a row are shown once.

    Of the answers the beginning is shown, unless `whole_answers`.
    """
    lines: list[Content] = []
    run = 0
    for attempt, after in zip_longest(detail.attempts, detail.attempts[1:]):
        if attempt.run != run:
            run = attempt.run
            plan = "" if run == 1 else "  (replay or take-over)"
            lines.append(Content.styled(f"run {run}{plan}", "bold"))
        lines.append(_attempt(attempt))
        if after is not None and (after.run, after.error, after.answer) == (run, attempt.error, attempt.answer):
            continue
        if attempt.error:
            lines.append(Content.styled(f"  {clean(attempt.error, limit=width)}", "$text-error"))
        if attempt.answer:
            lines += answer_lines(attempt.answer, width, None if whole_answers else _ANSWER_LINES)
    if not lines:
        return [_no_attempt(detail)]
    if detail.row.state is State.FORWARDING:
        lines.append(_under_way(detail))
    return lines


def _no_attempt(detail: Detail) -> Content:
    """Return why no attempt is recorded: attempts are recorded once a run ends or waits."""
    row = detail.row
    if row.state is State.IGNORED:
        return Content.styled(_IGNORED, _MUTED)
    if row.state is State.FORWARDING:
        return _under_way(detail)
    if row.waits is not None:
        return Content.styled(f"no attempt yet: it waits ({row.waits})", _MUTED)
    return Content.styled("no attempt is recorded yet", _MUTED)


def _under_way(detail: Detail) -> Content:
    since = "" if detail.claimed_at is None else f" since {clock(detail.claimed_at)}"
    return Content.styled(
        f"run {detail.row.run} is under way{since}; its attempts are recorded as it ends", "$text-accent"
    )


def _attempt(attempt: Try, *, is_short: bool = False) -> Content:
    return Content.assemble(
        (f"{attempt.number} ", "bold"),
        f"{clock(attempt.started_at) if is_short else exact_clock(attempt.started_at)} ",
        (f"+{_wait(attempt.wait_ms)} " if attempt.wait_ms and not is_short else "", _MUTED),
        (f"{attempt.status} ", "$text-error" if attempt.error else "$text-success"),
        milliseconds(attempt.duration_ms),
    )


def _wait(wait_ms: int) -> str:
    return f"{wait_ms} ms" if wait_ms < 1000 else f"{wait_ms / 1000:.3g} s"


def peek(detail: Detail) -> Content:
    """Return the beginning of the payload."""
    return _json(detail, PEEK_CHARS)


def payload(detail: Detail) -> Content:
    """Return the payload, highlighted. A very long one is cut and says how much is missing."""
    return _json(detail, PAYLOAD_CHARS)


def _json(detail: Detail, limit: int) -> Content:
    from textual.highlight import highlight  # noqa: PLC0415 - Pygments is loaded when there is something to colour

    lines = clean_json(detail.body, limit=limit).split("\n")
    if len(lines) > PAYLOAD_LINES:  # a widget takes its time for each of them
        lines = [
            *lines[:PAYLOAD_LINES],
            f"… {plural(len(lines) - PAYLOAD_LINES, 'more line')}, and what follows, are not shown",
        ]
    return highlight("\n".join(lines), language="json")


def kept_edit() -> Content:
    """Return that an edit of the payload is kept."""
    return Content.styled(f"An edit is kept, not sent; {key_of(DETAIL, 'edit')} opens it", "$text-warning bold")


def facts(detail: Detail, link: str | None, width: int) -> list[Content]:
    """Return what it is, its state, and the link to its conversation, in two columns if `width` has room for them."""
    row = detail.row
    tries = plural(row.attempts or 0, "attempt")
    state = Content.styled(row.state.value.upper(), f"bold {formatting.STATE_STYLES[row.state]}")
    error = f"  {clean(row.last_error, limit=200)}" if row.last_error and row.state is State.DEAD else ""
    lines = [
        Content.assemble(state, error, ("  TEST" if row.test else "", "$text-warning bold")),
        _field("delivery id", clean(row.delivery_id, limit=200)),
        *_side_by_side(
            _field("event", clean(row.event or "–", limit=80)),
            _field("conversation", clean(row.conversation_id or "–", limit=40)),
            width,
        ),
        *_side_by_side(
            _field("received", full_time(row.received_at)),
            _field("finished", full_time(row.finished_at)),
            width,
        ),
        *_side_by_side(
            _field("last run", f"run {row.run}, {tries}, {milliseconds(row.duration_ms)}"),
            _field("payload", plural(detail.body_length, "byte")),
            width,
        ),
    ]
    if row.waits is not None or row.state is State.WAITING:
        due = "" if row.next_attempt_at is None else f"; the next attempt is due at {clock(row.next_attempt_at)}"
        lines.append(_field("waits for", f"{row.waits or 'retry'}{due}"))
    if row.state is State.IGNORED:
        lines.append(_field("not sent", _IGNORED))
    if detail.agent_status:
        lines.append(_field("agent said", clean(detail.agent_status, limit=100)))
    if link is not None:
        lines.append(_field("in Chatwoot", link))
    return lines


def _side_by_side(left: Content, right: Content, width: int) -> list[Content]:
    """Return both on one line if there is room for them, else on two."""
    gap = _SECOND_COLUMN - left.cell_length
    fits = gap > 0 and _SECOND_COLUMN + right.cell_length <= width
    return [left + " " * gap + right] if fits else [left, right]


def _field(name: str, value: str) -> Content:
    return Content.assemble((f"{name:<13} ", _MUTED), value)


def header_lines(detail: Detail) -> list[Content]:
    """Return the stored headers; the store has masked secrets."""
    return [
        Content.assemble(
            (f"{clean(name, limit=60)}: ", _MUTED),
            clean(value, limit=200),
        )
        for name, value in detail.headers
    ]


def _outcome_of(item: Replayed) -> str:
    """Return the outcome of a replay item. A stopped plan never sends its pending items."""
    return "not sent, the replay was stopped" if item.plan_ended and item.state == "pending" else item.state


def history(detail: Detail) -> list[Content]:
    """Return earlier replays and discards, newest last."""
    lines = [
        Content.assemble(
            (f"replay #{item.plan_id} ", "bold"),
            f"by {formatting.signed_name(item.requested_by, item.login, limit=60)}: {_outcome_of(item)}",
            (f" at {clock(item.settled_at)}" if item.settled_at else "", _MUTED),
            (" with an edited body" if item.edited else "", "$text-warning"),
            (f"  {clean(item.reason, limit=100)}" if item.reason else "", _MUTED),
        )
        for item in detail.replays
    ]
    lines += [
        Content.assemble(
            ("discarded ", "bold"),
            f"by {formatting.signed_name(discard.operator, discard.login, limit=60)} ",
            f"at {clock(discard.at)}: ",
            clean(discard.reason, limit=100),
        )
        for discard in detail.discards
    ]
    return lines or [Content.styled("never replayed", _MUTED)]
