"""Takes the pictures in this directory: every screen of the real console, at both sizes, while an outage is under way.

`python screenshots/take.py [--calm-s SECONDS] [--into DIRECTORY]`. It plays `relay demo` on an embedded Postgres
of its own: traffic flows for `--calm-s` seconds, then the Agent SDK fails for three reasons, and after as long again
the pictures are taken. The longer the calm, the more history the charts have; the committed ones had 150 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.app import ConsoleApp
from relay.demo.agent import Behaviour, Mode
from relay.demo.play import play
from relay.demo.script import Phase, phases
from relay.store.embedded import EmbeddedPostgres
from relay.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from textual.pilot import Pilot

    from relay.settings import Settings

HERE = Path(__file__).parent
WIDE, NARROW = (120, 36), (80, 24)
LEAST_OUTAGE_S, TAKING_S = 6, 90
_PATIENCE_S = 60.0
_FONT = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_CELL, _ADVANCE = 12.2, 0.602


def _typed(text: str) -> tuple[str, ...]:
    return tuple("space" if character == " " else character for character in text)


SCENES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("overview", ("~Failure groups",)),
    ("dead-letters", ("2", "~CAUSE", "j", "space", "j", "space", "~2 marked", "~  conv ")),
    ("delivery", ("2", "~CAUSE", "j", "j", "enter", "~Attempts", "~run 1")),
    ("deliveries", ("3", "~STATE", "~  conv ")),
    ("log", ("4", "~FOLLOWING", "~retrying")),
    ("health", ("5", "~Alert rules", "h", "~authenticated API")),
    ("test-webhook", ("t", "~TEST WEBHOOK", "1", "~the relay answered")),
    ("diagnosis", ("D", "~PROBLEM")),
    ("escalation", ("x", "~appends this to")),
    ("edit", ("2", "~CAUSE", "e", "~as it came")),
    ("keys", ("2", "~CAUSE", "question_mark", "~Keys")),
    ("replay", ("2", "~CAUSE", "slash", "s", "t", "a", "t", "u", "s", "colon", "5", "0", "3", "enter", "~match",
                "R", "~and enter")),
    ("replay-under-way", ("=recovered", "r", "~and enter", "=count", "enter", "~p pauses")),
    ("activity", ("6", "~Who did what", "~running")),
    ("conversation", ("3", "~STATE", "j", "j", "c", "~Conversation", "~deliver")),
    ("held", ("H", "~Type the reason", *_typed("deploying the agent"), "enter", "~Forwarding is held")),
)  # fmt: skip
"""Name, and the keys that lead there; `~text` waits for a text, `=` for what is said after it."""

ONCE = {"replay-under-way": ("6", "~running", "enter", "~p pauses"), "held": ("~held",)}
"""What is begun in the wider picture is looked at again in the other one."""

INCIDENTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("refused", ("~refused (", "~none accepted")),
    ("hanging", ("~wait at the Agent SDK",)),
    ("breaker", ("~circuit breaker is open", "~wait")),
)
"""Scenes that need an incident of their own: name, and what is waited for on the overview."""

_INCIDENT_BEGINS_S = 20


def incident(name: str) -> tuple[list[Phase], dict[str, Any]]:
    """What happens in the incident of a scene, and the relay's settings in it. It lasts until they are taken."""
    what: dict[str, dict[str, Any]] = {
        "refused": {"text": "the secret is changed in Chatwoot", "secret": b"a secret the relay lacks"},
        "hanging": {"text": "the Agent SDK hangs", "behaviours": (Behaviour(mode=Mode.HANG),)},
        "breaker": {"text": "the Agent SDK answers 503", "behaviours": (Behaviour(status=503),)},
    }
    settings = {"refused": {"chatwoot_webhook_secret": "the secret of before"}, "breaker": {"relay_breaker": "on"}}
    begins = Phase(0, "traffic starts, all is well"), Phase(_INCIDENT_BEGINS_S, **what[name])
    return list(begins), settings.get(name, {})


SHOTS = tuple(
    shot for name, keys in SCENES for shot in ((name, WIDE, keys), (f"{name}-80x24", NARROW, ONCE.get(name, keys)))
)
"""Every scene at both sizes."""


class Photographer:
    """Opens a console a picture, presses its keys, and writes what it shows."""

    def __init__(self, dsn: str, into: Path, calm_s: float, *, cause: str = "answered 503") -> None:
        self._dsn = dsn
        self._into = into
        self._cause = cause
        self._begin_at = time.monotonic() + calm_s + max(calm_s, LEAST_OUTAGE_S)
        self._outage_ends = self._begin_at + TAKING_S

    async def take_all(self, settings: Settings, shots: Sequence[tuple[str, tuple[int, int], tuple[str, ...]]]) -> None:
        """Every picture, one after another, once the outage is under way."""
        await asyncio.sleep(max(0.0, self._begin_at - time.monotonic()))
        for name, size, keys in shots:
            await self._take(settings.model_copy(update={"console_operator": "maria"}), name, size, keys)
            sys.stdout.write(f"  {name}.svg\n")

    async def _take(self, settings: Settings, name: str, size: tuple[int, int], keys: Sequence[str]) -> None:
        app = ConsoleApp(settings, self._dsn)
        async with app.run_test(size=size) as pilot:
            await self._until_shown(app, "LIVE")
            if time.monotonic() < self._outage_ends:  # later on all of its dead letters may be replayed
                await self._until_shown(app, self._cause)
            for key in keys:
                await self._do(app, pilot, key)
            await pilot.pause(0.4)
            self._into.mkdir(parents=True, exist_ok=True)
            svg = app.export_screenshot(title=f"console ({size[0]}x{size[1]})")
            (self._into / f"{name}.svg").write_text(_self_contained(svg), encoding="utf-8")

    async def _do(self, app: ConsoleApp, pilot: Pilot[Any], key: str) -> None:
        if key.startswith("~"):
            await self._until_shown(app, key[1:])
        elif key == "=recovered":
            await asyncio.sleep(max(0.0, self._outage_ends + 2 - time.monotonic()))
        elif key == "=count":
            found = re.search(r"type (\d+) and enter", _text(app))
            assert found is not None
            await pilot.press(*found[1])
        else:
            await pilot.press(key)

    async def _until_shown(self, app: ConsoleApp, text: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while text not in _text(app):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} does not appear; the screen shows\n{_text(app)}")
            await asyncio.sleep(0.05)


def _text(app: ConsoleApp) -> str:
    strips = app.screen._compositor.render_strips()  # noqa: SLF001 - what is on the screen, as text
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def _self_contained(svg: str) -> str:
    """The picture without fonts from elsewhere, its letters as wide as its cells: the same wherever it is seen."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", _FONT)
    return svg.replace("font-size: 20px", f"font-size: {_CELL / _ADVANCE:.2f}px")


@contextlib.asynccontextmanager
async def _fresh_server() -> AsyncIterator[str]:
    """The DSN of an embedded Postgres with the relay's tables, in a directory where artifacts may be left."""
    with tempfile.TemporaryDirectory(prefix="screenshots-", ignore_cleanup_errors=True) as folder:
        server = await asyncio.to_thread(EmbeddedPostgres, Path(folder))
        try:
            await migrate(server.dsn, roles=True)
            with contextlib.chdir(folder):  # the health check leaves its artifact there
                yield server.dsn
        finally:
            await asyncio.to_thread(server.close)


async def take(into: Path, calm_s: float, only: Sequence[str] = ()) -> None:
    """Play the demo and its incidents and take the pictures (those named in `only`, or all) into a directory."""
    wanted = [shot for shot in SHOTS if not only or shot[0] in only]
    if wanted:
        async with _fresh_server() as dsn:
            watch = partial(Photographer(dsn, into, calm_s).take_all, shots=wanted)
            script = phases(calm_s, max(calm_s, LEAST_OUTAGE_S) + TAKING_S)
            await play(dsn, seconds=None, watch=watch, script=script)
    for name, keys in INCIDENTS:
        both = ((name, WIDE, keys), (f"{name}-80x24", NARROW, keys))
        shots = [shot for shot in both if not only or shot[0] in only]
        if shots:
            async with _fresh_server() as dsn:
                photographer = Photographer(dsn, into, _INCIDENT_BEGINS_S, cause=keys[0][1:])
                watch, (script, settings) = partial(photographer.take_all, shots=shots), incident(name)
                await play(dsn, seconds=None, watch=watch, script=script, other_settings=settings)


def main() -> None:
    """Parse, take, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calm-s", type=float, default=20, help="seconds of ordinary traffic before the outage")
    parser.add_argument("--into", type=Path, default=HERE, help="where the pictures go (default: beside this script)")
    parser.add_argument("--only", nargs="*", default=(), help="names of the pictures to take (default: all)")
    given = parser.parse_args()
    os.environ |= {
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }  # independent of where it runs
    asyncio.run(take(given.into.resolve(), given.calm_s, given.only))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
