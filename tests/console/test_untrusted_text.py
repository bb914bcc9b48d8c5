"""Text from outside shows as text: it steers no terminal, parses as no markup, fires no action, crashes nothing."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import random
import re
import sys
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.visual import Style

from console.data.log_entry import entry_of
from console.data.readings import short_row
from console.render import details, rows
from console.render.breakdown import share_line
from console.render.completion import offered, offers
from console.render.curl import ansi_c_quoted
from console.render.export import FORMATS, ROW_FIELDS, exported, row_values
from console.render.log_lines import draw
from console.screens.editor import editable
from relay.domain.delivery import State
from relay.store.breakdown import Share
from relay.store.browse import Group, Row
from relay.store.conversation import MessagePreview
from relay.store.delivery_detail import Detail
from relay.store.log import LogLine
from relay.text import clean, clean_json, escaped, is_safe
from tests.console.screens import RawTerminal
from tests.servers import AT_ONCE_S, PATIENCE_S, ROOT
from tests.store.hostile import harmful, plant_hostile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from textual.content import Content

    from tests.servers import Rows, RunningRelay

PIECES = [
    "\x1b]52;c;" + base64.b64encode(b"PWNED").decode() + "\x07", "\x1b[2J", "\x1b]0;PWNED\x07", "\x1bP+q544e\x1b\\",
    "\x9b31m", "\x9d52;c;UFdORUQ=\x9c", "\x07", "\x08\x08", "\r", "\x7f", "\x00", "[bold red]", "[/]", "[/b]", "[/bold",
    "[@click=app.quit]quit[/]", "[@click=app.exit()]", "[link=file:///etc/passwd]", "[$accent]", "[[", "]]",
    "\\[", "{}",
    "\u202e", "\u2066", "\u200f", "\u200b", "\ufeff", "\u2028", "\U000e0041", "👩‍👩‍👧‍👦", "漢字",
    "a\u0300\u0301\u0302", "𝕏", "﷽",
    "\ud800", "%s", "{0}", "'; DROP TABLE", "$(id)", "`id`", "\x1b[?1049l", "\x1b[6n", "\x1bc", "\x1b[200~", "\t", "\n",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=8).map("".join)
_TURNING = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}
_NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)


def hostile_texts(count: int) -> Iterator[str]:
    """`count` texts, each another mixture of what has broken terminals and toolkits."""
    rng = random.Random(3)
    for _ in range(count):
        yield "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))


def encoded(value: Any) -> bytes:
    """JSON with raw controls where JSON allows none: as escapes; lone surrogates likewise."""
    return json.dumps(value, ensure_ascii=True).encode()


def drawn(content: Content) -> str:
    """What reaches the terminal of `content`, styles apart."""
    return "".join(segment.text for segment in content.render_segments(Style()))


def assert_harmless(text: str) -> None:
    for character in text.replace("\n", ""):
        assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}, repr(character)
        assert unicodedata.bidirectional(character) not in _TURNING
    assert is_safe(text)


@given(TEXTS)
@settings(max_examples=1_000, deadline=None)
def test_cleaned_text_is_safe_and_stays_so(text: str) -> None:
    shown = clean(text)
    assert_harmless(shown)
    assert clean(shown) == shown


def test_no_character_at_all_is_harmful_once_it_is_cleaned_or_escaped() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    assert [ascii(c) for c in every if harmful(clean(c)) or harmful(escaped(c))] == []


def test_what_was_there_is_still_to_be_seen() -> None:
    assert clean("a\x1b[31mb\u202ec\x9d") == "a␛[31mb<U+202E>c<U+009D>"
    assert clean("[bold]x[/]") == "[bold]x[/]"


def test_all_that_has_no_width_is_named_also_what_joins_emoji() -> None:
    assert clean("👩\u200d👩\u200d👧 a\u200bb\u200cc\u2060d\ufeff") == (
        "👩<U+200D>👩<U+200D>👧 a<U+200B>b<U+200C>c<U+2060>d<U+FEFF>"
    )


def test_long_text_is_cut_and_says_what_is_missing() -> None:
    shown = clean("x" * 5_000_000, limit=100)
    assert shown == "x" * 100 + "… 5.0 MB more"


def group_of(text: str) -> Group:
    """A failure group with `text` wherever one can come from outside, as the store returns it."""
    shown = clean(text)
    return Group(shown, shown, 1, 1, _NOW, _NOW, (shown,), "")


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_payloads_are_drawn_as_text_in_every_pane(count: int) -> None:
    for number, text in enumerate(hostile_texts(count)):
        value = text.encode("utf-8", "replace").decode()
        row = Row(
            id=number, delivery_id=value, state=State.DEAD, run=1, event=value, conversation_id=value, test=False,
            attempts=3, duration_ms=1, final_status="503", last_error="Agent SDK answered 503", received_at=_NOW,
            finished_at=_NOW,
        )  # fmt: skip
        detail = Detail(
            row=row, headers=[("x-odd", value), (value, "1")], body=encoded({"content": text, text: [text]}),
            body_length=100, agent_status=value, attempts=[], replays=[], discards=[],
        )  # fmt: skip
        line = LogLine(_NOW, "info", "support.webhook", value, {value: value}, value)
        said = MessagePreview(value, value)
        shown = [
            rows.line(short_row(row), rows.DEAD_COLUMNS, 118, _NOW, {number: said}, marked=False),
            details.peek(detail), *details.facts(detail, None, 118), *details.header_lines(detail),
            draw(entry_of(1, line), width=118),
            share_line(Share(True, value[:40], value[:80], 5, 1, 1, 1, 1, 1, 2.0), 3, 118),
            offered([(value, 1)]), offered(offers("error:", [group_of(value)], {})),
        ]  # fmt: skip
        for form in FORMATS:
            written = exported(form, ROW_FIELDS, [row_values(row)])
            assert_harmless(written)
        for content in shown:
            assert_harmless(drawn(content))


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_at_all_are_shown_edited_and_quoted_harmlessly(body: bytes) -> None:
    assert_harmless(clean_json(body, limit=1_000))
    assert_harmless(editable(body).replace("\t", " "))
    assert ansi_c_quoted(body).isprintable()


@pytest.mark.timeout(AT_ONCE_S)
def test_five_megabytes_are_shown_at_once() -> None:
    body = encoded({"content": "\x1b" * 800_000})
    assert_harmless(clean_json(body, limit=2_000))


_PARSING_SINKS = {"Static", "Label", "Button", "notify", "update", "from_markup", "OptionList", "Option"}


def test_no_text_goes_to_a_widget_that_would_parse_it() -> None:
    """`Static` and its like are built with `markup=False`; widgets that cannot be are not used at all."""
    offenders = []
    for path in sorted((ROOT / "console").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            unparsed = isinstance(keywords.get("markup"), ast.Constant) and keywords["markup"].value is False
            if name == "from_markup" or (name in {"Static", "Label", "notify"} and not unparsed):
                offenders.append(f"{path.name}:{node.lineno} {name}")
            if name in {"Button", "OptionList", "DataTable", "Tree", "RichLog", "Markdown"}:
                offenders.append(f"{path.name}:{node.lineno} {name}")
    assert offenders == []


_PLANT = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, conversation_id, customer, finished_at,
                                  attempts, duration_ms, final_status, last_error, headers, body)
    SELECT t ->> 0 || n, 'dead', gen_random_uuid(), false, t ->> 0, t ->> 0, true, clock_timestamp(), 3, 1, '503',
           'Agent SDK answered 503', jsonb_build_array(jsonb_build_array('x-odd', t ->> 0)), convert_to(t ->> 1, 'UTF8')
      FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS given(t, n)
"""
_PLANT_LOG = """
    INSERT INTO relay.log (at, level, scope, message, fields, instance)
    SELECT now(), 'warning', 'support.webhook', t ->> 0, jsonb_build_object(t ->> 0, t ->> 0), gen_random_uuid()
      FROM jsonb_array_elements(%s::jsonb) AS given(t)
"""
_DOWN, _UP = b"\x04", b"\x15"  # ctrl+d and ctrl+u: a page


def page_until(terminal: RawTerminal, key: bytes, wanted: bytes) -> None:
    """Page through the list, so that every row of it has been on the screen, until `wanted` is in sight."""
    start = len(terminal.output)
    for _ in range(2_000):
        terminal.press(key, rest_s=0.03)
        if wanted in terminal.output[start:]:
            return
    terminal.read_until(wanted, since=start)  # a slow machine has yet to draw what the last keys ask for


def bring_up(terminal: RawTerminal, key: bytes, title: bytes) -> None:
    """Press `key` in the list until `title` is on the screen.

    A busy console reads an escape and the key after it as one key, so that the key may have to be pressed again.
    """
    for patience_s in (2, 4, 8, 16, 32, PATIENCE_S):
        begun = len(terminal.output)
        terminal.press(key, rest_s=0)
        with contextlib.suppress(AssertionError):
            terminal.read_until(title, patience_s, since=begun)
            return
        terminal.press(b"\x1b", rest_s=1)
        terminal.press(b"2", rest_s=1)
    raise AssertionError(f"{title!r} did not come: {terminal.output[-2000:]!r}")


def open_what_lists_offer(terminal: RawTerminal) -> None:
    """Open columns, export, every order, the completion of a filter, and the breakdown."""
    terminal.press(b"2")
    terminal.rest(1)
    for key, title in ((b"C", b"COLUMNS"), (b"E", b"EXPORT")):
        bring_up(terminal, key, title)
        terminal.press(b"\x1b", rest_s=0.4)
    terminal.press(b"ooooooog")
    terminal.rest(1)
    terminal.press(b"/error:\t")
    terminal.rest(0.5)
    terminal.press(b"\x1b", rest_s=0.5)
    terminal.press(b"\x1b", rest_s=0.5)
    bring_up(terminal, b"b", b"By inbox")
    terminal.press(b"\x04\t\x04q")


# What Textual itself writes: styles, cursor, modes and their queries, the pointer's shape; nothing else is an OSC.
_OWN = re.compile(rb"\x1b\[[0-9;:?<>=$]*[ -/]*[@-~]|\x1b[=>78]|\x1b\(B|\x1b\]22;default\x07")


@pytest.mark.slow
def test_ten_thousand_hostile_payloads_pass_through_every_screen_of_a_real_terminal(
    relay: RunningRelay, dsn: str, rows: Rows, tmp_path: Path
) -> None:
    planted = [["the-first", encoded({"content": "the-first"}).decode()]]
    for text in hostile_texts(10_000):
        value = text.encode("utf-8", "replace").decode().replace("\0", "")
        planted.append([value, encoded({"content": text}).decode().replace("\\u0000", "\\u001b")])
    rows(_PLANT, (json.dumps(planted),))
    rows(_PLANT_LOG, (json.dumps(planted),))
    terminal = RawTerminal(tmp_path, dsn)
    try:
        terminal.read_until(b"Failure groups")
        for view in b"2", b"3":
            terminal.press(view)
            terminal.rest(1)
            for _ in range(6):
                terminal.press(b"\r")  # into a delivery
                terminal.rest(0.3)
                terminal.press(b"\x04\x04")
                terminal.press(b"qj")
            page_until(terminal, _DOWN, b"the-first")
        terminal.press(b"2g")
        terminal.rest(0.5)
        for _ in range(3):  # the editor, the replay strip, the discard strip: opened, read, left
            for key, title in ((b"e", b"Edit the payload"), (b"r", b"REPLAY"), (b"d", b"DISCARD")):
                bring_up(terminal, key, title)
                terminal.rest(0.2)
                terminal.press(b"\x1b")
                terminal.rest(0.2)
            terminal.press(b"jj")
        terminal.press(b"4")
        terminal.rest(1)
        page_until(terminal, _UP, b"the-first")
        terminal.press(b"156")
        terminal.rest(1)
        open_what_lists_offer(terminal)
        terminal.press(b"D")
        terminal.read_until(b"PROBLEM")
        terminal.press(b"\x04\x04qx")
        terminal.read_until(b"ESCALATION.md")
        terminal.press(b"\x04\x04\x04q")
        assert terminal.is_running
        terminal.press(b"?")
        terminal.read_until(b"Keys")
    finally:
        terminal.close()
    assert "␛[2J".encode() in terminal.output
    assert_nothing_from_data(terminal)


_TITLE = re.compile(rb"\x1b\]2;[ -~]*\x07|\x1b\[2[23];2t")
MOST_BELLS = 2
"""The console rings at each new P0."""


def assert_nothing_from_data(terminal: RawTerminal) -> None:
    """No control of a terminal's came out of data: all that the console wrote is Textual's own and clean text."""
    left = _OWN.sub(b"", _TITLE.sub(b"", terminal.output)).decode()
    assert harmful(left) <= {"\r", "\n", "\a"}
    assert left.count("\a") <= MOST_BELLS
    assert b"\x1b]52;" not in terminal.output


@pytest.mark.slow
def test_what_others_write_into_any_table_passes_through_every_screen_of_a_real_terminal(
    relay: RunningRelay, dsn: str, rows: Rows, tmp_path: Path
) -> None:
    row_id = plant_hostile(rows)
    terminal = RawTerminal(tmp_path, dsn)
    pages = {
        "the overview, with the group and its status": (b"1", b"]52;c;UFdOR"),
        "a replay of the group": (b"r", b"REPLAY"),
        "the group as a filtered list": (b"\x1b\r", b"FILTERED"),
        "its filter in the field": (b"/", b"u001b]52;c"),
        "the dead letter": (b"\x1b\r", b"Attempts"),
        "its second page": (b"\x04", b""),
        "its conversation": (b"c", b"Conversation "),
        "the log": (b"qq4", b"new line"),
        "health": (b"5", b"]52;c;UFdORUQ="),
        "activity": (b"6", b"]52;c;UFdORUQ="),
        "an audit's entry": (b"\r", b""),
        "the breakdown": (b"q1b", b"By inbox"),
        "the diagnosis": (b"qD", b"PROBLEM"),
        "the escalation": (b"qx", b"ESCALATION.md"),
        "all of it": (b"\x04\x04\x04\x04", b""),
        "the test webhook": (b"q1t", b"posts no note"),
        "help": (b"\x1b?", b"Keys"),
    }
    try:
        for name, (keys, wanted) in pages.items():
            begun = len(terminal.output)
            if keys.startswith(b"\x1b"):  # a busy console reads an escape and a key soon after it as one key
                terminal.press(b"\x1b", rest_s=3)
            terminal.press(keys.removeprefix(b"\x1b"), rest_s=0.4)
            if wanted:
                terminal.read_until(wanted, since=begun)
            terminal.rest(0.4)
            assert terminal.is_running, name
    finally:
        terminal.close()
    assert_nothing_from_data(terminal)
    assert b"@click=app.quit" in terminal.output
    assert rows("SELECT state FROM relay.deliveries WHERE id = %s", (row_id,)) == ["dead"]
