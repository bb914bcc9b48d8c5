"""Where log lines go: to stdout, in the runbook's form or as JSON, and to a tail that the store keeps.

structlog makes the lines. Writing never blocks the loop: lines are gathered for a moment and written by a
thread, so that a slow terminal delays no webhook.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import io
import json
import logging
import os
import queue
import sys
import threading
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

import structlog

from relay.store.log import LogLine
from relay.text import escaped, json_text, rfc3339, unicode_escaped

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Format = Literal["text", "json"]
FORWARDING_SCOPE = "support.webhook"
RELAY_SCOPE = "relay"

_GATHER_S = 0.05
_WAITING_CHUNKS = 1_000
_TAIL_LINES = 20_000
_RETRY_S = 0.5
_READER_HAS_GONE = frozenset({errno.EPIPE, errno.EBADF})


class Stream(Protocol):
    """Where lines are written: a file, a terminal, a pipe."""

    def write(self, text: str, /) -> object:
        """Take a chunk of whole lines."""

    def flush(self) -> None:
        """Pass on what was taken."""


class LogSink:
    """The end of every log line of one relay process.

    `logger(scope)` gives a structlog logger whose lines appear as `TIME LEVEL [scope] message { field: value }`.
    A `delivery_id` field is the line's reference: the text form has it before the scope, since the rest is the
    runbook's to the letter.
    """

    def __init__(
        self, form: Format = "text", *, level: str = "info", stream: Stream | None = None, tail: bool = True
    ) -> None:
        self._form = form
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self._out = _LineThread(stream or sys.stdout)
        self._gathered: list[str] = []
        self._tail: deque[LogLine] | None = deque(maxlen=_TAIL_LINES) if tail else None
        self._flush_due = False
        self.tail_ready = asyncio.Event()

    def logger(self, scope: str) -> FilteringBoundLogger:
        """A logger whose lines have `[scope]` before their message."""
        wrapped: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[structlog.processors.add_log_level, self._accept],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
        ).bind(scope=scope)
        return wrapped

    def take_tail(self, most: int) -> list[LogLine]:
        """Remove and return up to `most` of the oldest forwarding lines that the store has not had."""
        self.tail_ready.clear()
        if self._tail is None:
            return []
        lines = [self._tail.popleft() for _ in range(min(most, len(self._tail)))]
        if self._tail:
            self.tail_ready.set()
        return lines

    def put_back(self, lines: list[LogLine]) -> None:
        """Return lines that could not be stored, as far as there is room."""
        if self._tail is not None:
            room = _TAIL_LINES - len(self._tail)
            self._tail.extendleft(reversed(lines[-room:] if room else []))

    def close(self) -> None:
        """Write out what is still gathered; waits a second at most."""
        self._flush()
        self._out.close()

    def info(self, scope: str, message: str, delivery_id: str, **fields: Any) -> None:
        """Log a line about a delivery as `logger(scope).info` does, at a third of the cost."""
        if self._level <= logging.INFO:
            self._write(LogLine(datetime.now(UTC), "info", scope, message, fields, delivery_id))

    def _accept(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        line = LogLine(
            at=datetime.now(UTC),
            level=event.pop("level"),
            scope=event.pop("scope"),
            message=str(event.pop("event")),
            delivery_id=event.pop("delivery_id", None),
            fields=dict(event),
        )
        self._write(line)
        raise structlog.DropEvent

    def _write(self, line: LogLine) -> None:
        self._gathered.append(text_form(line) if self._form == "text" else json_form(line))
        if self._tail is not None and line.scope == FORWARDING_SCOPE:
            self._tail.append(_for_the_tail(line))
            self.tail_ready.set()
        if not self._flush_due:
            try:
                asyncio.get_running_loop().call_later(_GATHER_S, self._flush)
                self._flush_due = True
            except RuntimeError:  # no loop: a command, not the service
                self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        if self._gathered:
            gathered, self._gathered = self._gathered, []  # another thread may log meanwhile
            self._out.write("\n".join(gathered) + "\n")


class _LineThread:
    """Writes chunks to a stream from a thread; drops them, and says so, when a thousand of them wait.

    A chunk that cannot be written, as on a full disk, is tried again until it can; the others wait behind it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._closing = threading.Event()
        self._chunks: queue.Queue[str | None] = queue.Queue(_WAITING_CHUNKS)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, chunk: str) -> None:
        try:
            if self._dropped:
                at, fields = rfc3339(datetime.now(UTC)), f"{{ chunks: {self._dropped} }}"
                self._chunks.put_nowait(f"{at} WARNING [relay] Log lines were dropped {fields}\n")
                self._dropped = 0
            self._chunks.put_nowait(chunk)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._chunks.put_nowait(None)
        self._thread.join(timeout=1)

    def _run(self) -> None:
        descriptor = _descriptor(self._stream)
        while (chunk := self._chunks.get()) is not None:
            try:
                if descriptor is None:
                    self._stream.write(chunk)
                    self._stream.flush()
                else:
                    self._write_out(descriptor, chunk.encode("utf-8", "backslashreplace"))
            except (OSError, ValueError):  # the reader has closed the pipe
                return

    def _write_out(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`, if need be after waits. Unbuffered: a buffer would keep a part of what failed.

        Raises:
            OSError: the reader has gone, or there is no room and the sink closes.
        """
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except OSError as error:
                if error.errno in _READER_HAS_GONE or self._closing.wait(_RETRY_S):
                    raise


def _descriptor(stream: Stream) -> int | None:
    """The file descriptor below `stream`; None if there is none."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def text_form(line: LogLine) -> str:
    """Time, level, delivery id where there is one, then the runbook's form, which is the end of the line.

    `2026-11-27T08:15:00.123Z INFO 0192f0a1-… [support.webhook] Webhook forwarded successfully { duration: 145, … }`
    """
    fields = ", ".join(f"{escaped(key)}: {_inspect(value)}" for key, value in line.fields.items())
    reference = "" if line.delivery_id is None else f" {escaped(line.delivery_id).replace(' ', '%20')}"
    head = f"{rfc3339(line.at)} {line.level.upper()}{reference} [{escaped(line.scope)}] {escaped(line.message)}"
    return head + (f" {{ {fields} }}" if fields else "")


def json_form(line: LogLine) -> str:
    """One JSON object: `at`, `level`, `scope`, `message`, `deliveryId` where there is one, and the fields.

    Harmful characters are JSON escapes in it, so that a parser gets the exact text and a terminal none of it.
    """
    reference = {} if line.delivery_id is None else {"deliveryId": line.delivery_id}
    head = {"at": rfc3339(line.at), "level": line.level, "scope": line.scope, "message": line.message}
    return json_text(head | reference | line.fields)


def _inspect(value: Any) -> str:
    """`value` as a JavaScript console shows it inside an object: strings in single quotes."""
    if isinstance(value, str):
        return _quote(value)
    return str(value) if type(value) is int else json_text(value)


@functools.lru_cache(maxsize=512)  # the same few endpoints, states and errors again and again
def _quote(text: str) -> str:
    inside = json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{unicode_escaped(inside)}'"


def _for_the_tail(line: LogLine) -> LogLine:
    """`line` with every text in it escaped, since Postgres takes neither NUL nor lone surrogates."""
    message, fields = escaped(line.message), _escaped_value(line.fields)
    return line if message == line.message and fields == line.fields else replace(line, message=message, fields=fields)


def _escaped_value(value: Any) -> Any:
    """`value` with every text in it escaped."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {escaped(str(key)): _escaped_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped_value(item) for item in value]
    return value


class _Forward(logging.Handler):
    """Hands what libraries log to the sink, warnings and worse."""

    def __init__(self, sink: LogSink) -> None:
        super().__init__(logging.WARNING)
        self._log = sink.logger(RELAY_SCOPE)

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = record.exc_info[0].__name__
        self._log.log(record.levelno, record.getMessage().partition("\n")[0], **fields)


def capture_libraries(sink: LogSink) -> None:
    """Send the warnings and errors of every library through `sink`, except what the relay logs itself."""
    root = logging.getLogger()
    root.handlers = [_Forward(sink)]
    root.setLevel(logging.WARNING)
    quiet_libraries()


def quiet_libraries() -> None:
    """Keep back what libraries warn of and the relay itself reports or mends, as a connection that was closed."""
    for name in ("psycopg.pool", "psycopg", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
