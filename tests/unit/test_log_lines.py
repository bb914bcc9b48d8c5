"""Log lines escape every harmful character: in the text form, the JSON form, the tail, and what libraries log."""

from __future__ import annotations

import io
import json
import logging
import os
from typing import TYPE_CHECKING

import pytest

from relay.domain.delivery import State
from relay.store.deliveries import Duplicate
from relay.telemetry.forwarding_log import ForwardingLog
from relay.telemetry.log_sink import FORWARDING_SCOPE, LogSink, capture_libraries
from tests.servers import wait_for
from tests.store.hostile import HOSTILE, harmful, texts_in

if TYPE_CHECKING:
    from pathlib import Path

ODD = ["\x9b", "\x7f", "\u2028", "\u202e", "\x00", "\ud800", "\U000e0041", "\u200b", "\r\n"]


def logged(form: str, emit: object) -> tuple[str, LogSink]:
    stream = io.StringIO()
    sink = LogSink(form, stream=stream)
    emit(sink)
    sink.close()
    return stream.getvalue(), sink


@pytest.mark.parametrize("character", ODD, ids=ascii)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_character_is_escaped_anywhere_in_a_line(form: str, character: str) -> None:
    odd = f"a{character}b"

    def emit(sink: LogSink) -> None:
        sink.logger(odd).warning(odd, **{odd: odd, "list": [odd], "object": {odd: odd}})

    text, _ = logged(form, emit)
    assert text.count("\n") == 1
    assert harmful(text, lines=True) == set()
    if form == "json":
        line = json.loads(text)
        assert (line["message"], line["scope"], line[odd], line["list"]) == (odd, odd, odd, [odd])
        assert line["object"] == {odd: odd}


def test_the_text_form_escapes_an_event_as_it_escapes_other_controls() -> None:
    text, _ = logged(
        "text", lambda sink: ForwardingLog(sink, "http://agent").ignored("id", "a\x1b\x9b\x7f\u2028\u202e")
    )
    assert text.partition(" INFO id ")[2] == (
        "[support.webhook] Webhook ignored, not forwarded { webhookEvent: 'a\\u001b\\u009b\\u007f\\u2028\\u202e' }\n"
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_readable_stays_readable(form: str) -> None:
    text, _ = logged(form, lambda sink: sink.logger("s").info("größer", name="漢字 🙂 it's", id="id"))
    assert "größer" in text
    assert "漢字 🙂" in text


def test_the_tail_keeps_escaped_text_that_postgres_takes() -> None:
    _, sink = logged("text", lambda sink: sink.logger(FORWARDING_SCOPE).info(HOSTILE + "\0\ud800", **{HOSTILE: "\0"}))
    (line,) = sink.take_tail(10)
    assert harmful("".join(texts_in(line))) == set()
    assert line.message.startswith("\\u001b]52;")
    assert line.fields == {next(iter(line.fields)): "\\u0000"}


def test_a_delivery_in_the_tail_is_known_by_its_exact_id() -> None:
    _, sink = logged(
        "text", lambda sink: ForwardingLog(sink, "").duplicate("an-id", Duplicate("an-id", State.DELIVERED))
    )
    assert sink.take_tail(1)[0].delivery_id == "an-id"


@pytest.mark.parametrize("message", ["\x1b]52;c;x\x07 \x9b \u202e", "first\nsecond", ""])
def test_what_libraries_log_is_escaped_too(message: str) -> None:
    root = logging.getLogger()
    before = root.handlers, root.level

    def emit(sink: LogSink) -> None:
        capture_libraries(sink)
        logging.getLogger("a\x1blibrary").warning("%s", message)

    try:
        text, _ = logged("text", emit)
    finally:
        root.handlers, root.level = before
    assert harmful(text, lines=True) == set()
    assert text.count("\n") == 1
    assert "logger: 'a\\u001blibrary'" in text


def test_lines_that_a_full_disk_refuses_are_written_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "log"
    with open("/dev/full", "w", encoding="utf-8") as stream:  # noqa: PTH123 - a device
        sink = LogSink(stream=stream)
        log = sink.logger("relay")
        for number in range(3):
            log.info("while it is full", number=number)
        with disk.open("w", encoding="utf-8") as room:
            os.dup2(room.fileno(), stream.fileno())
        log.info("with room")
        wait_for(lambda: disk.read_text(encoding="utf-8").count("\n") == 4)
        sink.close()
    lines = disk.read_text(encoding="utf-8").splitlines()
    assert [line.partition("[relay] ")[2] for line in lines] == [
        *(f"while it is full {{ number: {number} }}" for number in range(3)), "with room",
    ]  # fmt: skip
