"""Consoles as tests see them: in process by Textual's pilot, and as a whole program in tmux."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.servers import PATIENCE_S, ROOT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from textual.pilot import Pilot

    from console.app import ConsoleApp


class Watched:
    """A console under a pilot. `text` is what its screen shows now, a line a row."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self._pilot = pilot

    @property
    def text(self) -> str:
        """The screen."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)

    async def press(self, *keys: str) -> None:
        """Press keys one after another."""
        await self._pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Type text, a key a character."""
        await self._pilot.press(*({" ": "space"}.get(character, character) for character in text))

    async def shows(self, *texts: str) -> str:
        """Wait until the screen shows all of `texts`; returns the screen."""
        await self._until(lambda: all(text in self.text for text in texts), f"the screen shows {texts}")
        return self.text

    async def hides(self, *texts: str) -> str:
        """Wait until the screen shows none of `texts`; returns the screen."""
        await self._until(lambda: not any(text in self.text for text in texts), f"the screen hides {texts}")
        return self.text

    async def _until(self, condition: Any, what: str) -> None:
        try:
            await until(condition, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows\n{self.text}") from None


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
        self._tmux(
            "-f", os.devnull, "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), "-c", str(folder), *given,
            "-e", f"PYTHONPATH={ROOT}", "--", sys.executable, *arguments,
            ";", "set-option", "-g", "remain-on-exit", "on",
            ";", "set-option", "-s", "set-clipboard", "on",
        )  # fmt: skip

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *arguments],
            env=self._surroundings, capture_output=True, text=True, check=True, timeout=10,
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
