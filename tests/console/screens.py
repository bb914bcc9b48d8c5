"""Consoles as tests see them: in process by Textual's pilot, and as a whole program in tmux."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from contextlib import asynccontextmanager, suppress
from fcntl import ioctl
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from textual import events
from textual.keys import REPLACED_KEYS, _character_to_key, _get_unicode_name_from_key  # as Textual's pilot uses them

from tests.servers import PATIENCE_S, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from textual.pilot import Pilot

    from console.app import ConsoleApp


_CHECK_S = 0.5
"""How often a screen is read that is not painted anew."""

_TURN_S, _TURNS = 0.005, 200
"""How long a press waits for the key's effect, at most, counted in turns of the loop: some effects wait for a test."""


class Watched:
    """A console under a pilot. `text` is what its screen shows now, a line a row."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self._pilot = pilot
        self._painted = asyncio.Event()
        app.post_display_hook = self._painted.set

    @property
    def text(self) -> str:
        """The screen."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)

    async def press(self, *keys: str) -> None:
        """Press keys one after another, each once the effect of the one before is on the screen.

        Textual's pilot waits in its place until the process is idle, and so until the relays of a test are.
        """
        for key in keys:
            number, event = self.app._number, _key_event(key)
            event.set_sender(self.app)
            self.app._driver.send_message(event)
            for _ in range(_TURNS):
                await asyncio.sleep(_TURN_S)
                if self.app._number != number and not self.app._under_way:
                    break
            await self._pilot._wait_for_screen()

    async def type(self, text: str) -> None:
        """Type text, a key a character."""
        await self.press(*text)

    async def shows(self, *texts: str) -> str:
        """Wait until the screen shows all of `texts`; returns the screen."""
        return await self._until(lambda screen: all(text in screen for text in texts), f"the screen shows {texts}")

    async def hides(self, *texts: str) -> str:
        """Wait until the screen shows none of `texts`; returns the screen."""
        return await self._until(lambda screen: not any(text in screen for text in texts), f"the screen hides {texts}")

    async def _until(self, condition: Callable[[str], bool], what: str) -> str:
        """The first screen that fulfils `condition`. Reads the screen again whenever it was painted."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self._painted.clear()
            screen = self.text
            if condition(screen):
                return screen
            assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}; it shows\n{screen}"
            with suppress(TimeoutError):
                await asyncio.wait_for(self._painted.wait(), _CHECK_S)


def _key_event(key: str) -> events.Key:
    """A key as Textual's pilot sends it: a character, or a key's name."""
    name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
    try:
        return events.Key(name, unicodedata.lookup(_get_unicode_name_from_key(REPLACED_KEYS.get(name, name))))
    except KeyError:
        return events.Key(name, key if len(key) == 1 else None)


@asynccontextmanager
async def opened(app: ConsoleApp, size: tuple[int, int]) -> AsyncIterator[Watched]:
    """The console, for as long as the block lasts."""
    async with app.run_test(size=size, notifications=True) as pilot:
        yield Watched(app, pilot)


class Terminal:
    """A program in a terminal of `size` columns and lines: a tmux server of its own, ended by `close`."""

    def __init__(self, folder: Path, size: tuple[int, int], arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self._socket = str(folder / f"tmux-{uuid4().hex[:6]}")
        surroundings = {
            name: value for name, value in os.environ.items() if name not in {"TMUX", "TMUX_PANE", "COLUMNS", "LINES"}
        }
        surroundings |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)} | env
        self._surroundings = surroundings
        given = [part for name, value in surroundings.items() if name in env for part in ("-e", f"{name}={value}")]
        named = ("env", f"TERM={env['TERM']}") if "TERM" in env else ()  # tmux gives its own name otherwise
        self._tmux(
            "-f", os.devnull, "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), "-c", str(folder), *given,
            "-e", f"PYTHONPATH={ROOT}", "--", *named, sys.executable, *arguments,
            ";", "set-option", "-g", "remain-on-exit", "on",
            # Its own words about the end would push the first line out of sight.
            ";", "set-option", "-gq", "remain-on-exit-format", "",
            ";", "set-option", "-s", "set-clipboard", "on",
        )  # fmt: skip

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *arguments],
            env=self._surroundings, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        ).stdout  # fmt: skip

    @property
    def text(self) -> str:
        """What the terminal shows now."""
        return self._tmux("capture-pane", "-p")

    @property
    def styled_text(self) -> str:
        """The same with the escape sequences that style it."""
        return self._tmux("capture-pane", "-p", "-e")

    @property
    def clipboard(self) -> str:
        """What the program last copied, by OSC 52; empty if nothing."""
        try:
            return self._tmux("show-buffer")
        except subprocess.CalledProcessError:
            return ""

    @property
    def pid(self) -> int:
        """The program's process."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    @property
    def has_ended(self) -> bool:
        """True once the program is over; what it left on the terminal stays readable."""
        return self._tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: `Enter`, `Escape`, `Down`, or a character each."""
        for key in keys:
            self._tmux("send-keys", key)

    def press_at_once(self, *keys: str) -> None:
        """Press keys with no time between them."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text."""
        self._tmux("send-keys", "-l", text)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def shows(self, *texts: str) -> str:
        """Wait until all of `texts` are to be seen; returns the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(text in (screen := self.text) for text in texts):
            assert time.monotonic() < deadline, f"{texts} not within {PATIENCE_S:g} s; it shows\n{screen}"
            time.sleep(0.03)
        return screen

    def close(self) -> None:
        """End the program and its terminal."""
        subprocess.run(
            ["tmux", "-S", self._socket, "kill-server"], env=self._surroundings, capture_output=True, check=False
        )


class RawTerminal:
    """The console in a bare pseudo-terminal; `output` is every byte that it wrote there."""

    def __init__(self, folder: Path, dsn: str, *arguments: str, size: tuple[int, int] = (120, 36)) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        env = os.environ | {"DATABASE_URL": dsn, "HOME": str(folder), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        for name in ("COLUMNS", "LINES"):  # they would go before the terminal's own size
            env.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "console", *arguments], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.output = b""
        self._pressed_at = 0

    def read_until(self, wanted: bytes, patience_s: float = PATIENCE_S, since: int | None = None) -> None:
        """Read on until `wanted` has come since keys were pressed last, or since so many bytes had come."""
        deadline, start = time.monotonic() + patience_s, self._pressed_at if since is None else since
        while wanted not in self.output[start:]:
            assert time.monotonic() < deadline, f"{wanted!r} did not come: {self.output[start:][:6000]!r}"
            self.rest(0.05)

    def rest(self, seconds: float) -> None:
        """Read whatever comes for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._master], [], [], left)[0]:
                try:
                    self.output += os.read(self._master, 65_536)
                except OSError:
                    return

    def press(self, keys: bytes, *, rest_s: float = 0.15) -> None:
        """Send keys, then read what they bring within `rest_s`."""
        self._pressed_at = len(self.output)
        os.write(self._master, keys)
        self.rest(rest_s)

    def answers(self, keys: bytes, *, wanted: bytes = b"", patience_s: float = PATIENCE_S) -> float:
        """Send keys; the seconds until the first byte came, or until `wanted` was among what came."""
        start, began = len(self.output), time.perf_counter()
        os.write(self._master, keys)
        while True:
            ready = select.select([self._master], [], [], patience_s)[0]
            late = time.perf_counter() - began > 4 * patience_s
            assert ready, f"{keys!r} was not answered within {patience_s:g} s"
            assert not late, f"{keys!r} did not bring {wanted!r} in time"
            self.output += os.read(self._master, 65_536)
            if wanted in self.output[start:]:
                return time.perf_counter() - began

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False once it has ended, by whatever."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it."""
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
        self.rest(0.5)
        self._process.wait(PATIENCE_S)
        os.close(self._master)
