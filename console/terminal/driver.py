"""The title and the input of the terminal that the console runs on.

`TerminalDriver` replaces the input loop of Textual's `LinuxDriver`, by Textual's public `driver_class`. That loop
decodes strictly, so that a byte that is not UTF-8 ends the app, it spins once its terminal is gone, and a large paste
takes it long.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import time
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

from textual import events
from textual._xterm_parser import XTermParser  # the parser that Textual's own drivers use; it has no public name
from textual.drivers.linux_driver import LinuxDriver

from console.terminal.pastes import Pasted, Pastes

if TYPE_CHECKING:
    from textual.driver import Driver

_READ_BYTES = 4096
_POLL_S = 0.1
_LEGACY_MOUSE = re.compile(rb"\x1b\[M.{3}", re.DOTALL)
_BEGUN_REPORT = re.compile(rb"\x1b\[M.{0,2}\Z", re.DOTALL)
_PUSH_TITLE, _POP_TITLE, _TITLE, _BELL = "\x1b[22;2t", "\x1b[23;2t", "\x1b]2;", "\x07"
_HARMLESS = (_BELL, _TITLE, _PUSH_TITLE, _POP_TITLE)


def show_title(driver: Driver | None, title: str | None) -> None:
    """Set the terminal's title, and keep the one from before; None brings that back. `title` is the console's text."""
    if driver is None or not isinstance(driver, TerminalDriver):
        return
    driver.write(
        _POP_TITLE if title is None else f"{_PUSH_TITLE if not driver.has_title else ''}{_TITLE}{title}{_BELL}"
    )
    driver.has_title = title is not None
    driver.flush()


class TerminalDriver(LinuxDriver):
    """Ignores input that is no UTF-8 and legacy mouse reports, and ends the console once the terminal is gone.

    A paste is one event, however large it is, and whether or not the terminal marks it.
    """

    has_title = False
    _is_lent = False

    def suspend_application_mode(self) -> None:
        """Leave the terminal to another program, or to the shell."""
        super().suspend_application_mode()
        self._is_lent = True

    def resume_application_mode(self) -> None:
        """Take the terminal back."""
        self._is_lent = False
        super().resume_application_mode()

    def write(self, data: str) -> None:
        """Write to the terminal. While another program has it, only the bell and titles pass: they move nothing there.

        Textual's writer has ended by then, and a few writes to it would block the console for ever.
        """
        if not self._is_lent:
            super().write(data)
        elif data.startswith(_HARMLESS):
            os.write(self.fileno, data.encode())

    def run_input_thread(self) -> None:
        """Read the terminal until the console ends."""
        parser, pastes = XTermParser(self._debug), Pastes()
        decode = getincrementaldecoder("utf-8")("ignore").decode
        rest = b""
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                came = pastes.tick(time.monotonic())
                if selector.select(_POLL_S):
                    given = self._read()
                    if given is None:
                        return
                    whole, rest = without_legacy_mouse(rest + given)
                    came += pastes.feed(whole, time.monotonic())
                for one in came:
                    if isinstance(one, Pasted):
                        self.process_message(events.Paste(one.text))
                    elif text := decode(one):  # to the parser an empty text is the end
                        parser = self._parse(text, parser)
                for event in parser.tick():
                    self.process_message(event)

    def _parse(self, text: str, parser: XTermParser) -> XTermParser:
        """Pass on the events of `text`, without keys that are no character. Returns the parser for the next text."""
        try:
            for event in parser.feed(text):
                if not isinstance(event, events.Key) or _is_text(event.character or ""):
                    self.process_message(event)
        except (ValueError, OverflowError):  # a report of a key beyond Unicode ends the parser
            return XTermParser(self._debug)
        return parser

    def _read(self) -> bytes | None:
        """Return what was typed; None once the terminal is gone, which ends the console as a hang-up does."""
        try:
            given = os.read(self.fileno, _READ_BYTES)
        except OSError:
            given = b""
        if given:
            return given
        os.kill(os.getpid(), signal.SIGHUP)
        return None


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def without_legacy_mouse(given: bytes) -> tuple[bytes, bytes]:
    """Return input without legacy mouse reports, and the beginning of one that is not complete yet."""
    kept = _LEGACY_MOUSE.sub(b"", given)
    begun = _BEGUN_REPORT.search(kept)
    return (kept, b"") if begun is None else (kept[: begun.start()], kept[begun.start() :])
