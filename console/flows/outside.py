"""Runs another program in the console's terminal, while the console is suspended.

The console goes on reading meanwhile and paints nothing: its figures, alerts and bell are those of now when the program
ends, and no transaction stays open.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import sys
import termios
import time
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual.app import SuspendNotSupported

from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import App

_AT_ONCE_S = 1.0
"""A program that ends within so long has left no time to read what it wrote, unless it has taken keys."""
_LOOK_EVERY_S = 0.05
_BACK = "\n[any key goes back to the console] "


def command_of(*variables: str, default: str) -> list[str]:
    """Return the command that the first of `variables` in the environment names, in parts.

    Raises:
        RelayError: its quotation is not closed.
    """
    name = next((name for name in variables if os.environ.get(name)), None)
    if name is None:
        return [default]
    try:
        return shlex.split(os.environ[name]) or [default]
    except ValueError as error:
        raise RelayError(f"{name} is no command: {error}. Correct it") from error


async def run_outside(
    app: App[Any], command: Sequence[str], *, remedy: str, given: bytes | None = None, is_pager: bool = False
) -> None:
    """Run `command` with `given` on its standard input, or with the terminal's, until it ends.

    An interrupt (ctrl+c) is for the program: it does not end the console. After a pager that ends at once, as `cat`
    does, the text stays until a key is pressed.

    Raises:
        RelayError: it cannot be run; `remedy` says what to set.
    """
    fault: OSError | None = None
    try:
        with app.suspend(), app.batch_update():
            before = signal.signal(signal.SIGINT, lambda *_: None)  # the program gets the default again
            try:
                has_ended_at_once = await _run(command, given)
                if is_pager and has_ended_at_once:
                    await _wait_for_key()
            except OSError as error:
                fault = error
            finally:
                signal.signal(signal.SIGINT, before)
    except SuspendNotSupported as error:
        raise RelayError("This terminal cannot suspend the console, so no other program can be run") from error
    if fault is not None:
        raise RelayError(f"{clean(command[0], limit=100)}: {fault.strerror}; {remedy}") from fault


async def _run(command: Sequence[str], given: bytes | None) -> bool:
    """Run `command`. Returns True if it ended at once and took no single keys, as `less` does."""
    began, takes_keys = time.monotonic(), False
    process = await asyncio.create_subprocess_exec(*command, stdin=None if given is None else asyncio.subprocess.PIPE)
    ending = asyncio.create_task(process.communicate(given))
    try:
        while not ending.done():
            await asyncio.wait([ending], timeout=_LOOK_EVERY_S)
            takes_keys = takes_keys or not _takes_lines()
            if _hung_up():
                break
        else:
            await ending
    finally:
        if process.returncode is None:  # the console ends
            with suppress(ProcessLookupError):
                process.terminate()
            ending.cancel()
    return not takes_keys and time.monotonic() - began < _AT_ONCE_S


def _takes_lines() -> bool:
    """Return True while the terminal passes input on by lines, as it does unless a program asks for single keys."""
    with suppress(termios.error, ValueError, OSError):
        return bool(termios.tcgetattr(_input())[3] & termios.ICANON)
    return True


def _hung_up() -> bool:
    """Return True, and end the console as a hang-up does, if its terminal is gone: nothing else reads it meanwhile."""
    try:
        termios.tcgetattr(_input())
    except termios.error as error:
        if error.args[0] == errno.EIO:
            os.kill(os.getpid(), signal.SIGHUP)
            return True
    except (ValueError, OSError):
        pass
    return False


async def _wait_for_key() -> None:
    """Return once a key was pressed, or the terminal's input is over."""
    loop, pressed, terminal = asyncio.get_running_loop(), asyncio.Event(), _input()
    try:
        before = termios.tcgetattr(terminal)
    except termios.error:
        return
    os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, _BACK.encode())
    tty.setcbreak(terminal)
    loop.add_reader(terminal, pressed.set)
    try:
        await pressed.wait()
        if not _hung_up():
            os.read(terminal, 1024)
    finally:
        loop.remove_reader(terminal)
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _input() -> int:
    return sys.__stdin__.fileno() if sys.__stdin__ else 0
