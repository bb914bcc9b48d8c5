"""`relay demo`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.commands.common import Finite, Source, connected, database, say
from relay.commands.status import lines
from relay.demo.dead_mans_switch import DeadMansSwitch
from relay.demo.debrief import Observer, debrief
from relay.demo.drills import AFTER_S, DRILLS
from relay.demo.play import play
from relay.domain.format import plural
from relay.errors import ConfigurationError
from relay.incident import state as incident_state
from relay.incident.headline import headline
from relay.settings import as_environment, load_settings
from relay.store import demo_history, embedded
from relay.store.databases import demo_directory
from relay.store.migrate import migrate
from relay.telemetry.log_sink import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.drills import Drill
    from relay.settings import Settings
    from relay.store.databases import Place


@click.command("demo")
@click.option("--seconds", type=Finite(1), metavar="N", help="End after N seconds. Default: when stopped.")
@click.option("--no-console", is_flag=True, help="Print what happens even on a terminal.")
@click.option(
    "--drill", type=click.Choice(list(DRILLS)),
    help="Stage this incident instead, in a database of its own, and report at the end how it went.",
)  # fmt: skip
def command(*, seconds: float | None, no_console: bool, drill: str | None) -> None:
    """Everything on this machine: embedded Postgres, relay, stand-ins for Chatwoot and the Agent SDK, an outage.

    All data are invented. They are kept apart from yours, in RELAY_DATA_DIR/demo, and reach no real Agent SDK,
    Chatwoot or alert webhook. While it runs, `console` and the commands find it where there is no other embedded
    server, and say DEMO.

    On a terminal it opens the console, and ends when that is quit. Serves on RELAY_BIND like `serve`; the
    runbook's curl works beside it at any time. With --drill it exits 1 if the alerts were not the drill's.
    """
    settings = load_settings()
    if settings.database_url is not None:
        say("[demo] DATABASE_URL is set and left alone: the demo uses an embedded Postgres of its own.", err=True)
    data_dir = demo_directory(settings.relay_data_dir)
    settings = settings.model_copy(update={"database_url": None, "relay_data_dir": data_dir})
    quiet_libraries()
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not no_console
    if on_terminal and find_spec("textual") is None:
        say("[demo] The console is not installed; run: pip install 'hotdash-relay[console]'", err=True)
        on_terminal = False
    if drill is not None:
        click.get_current_context().exit(_practise(settings, DRILLS[drill], seconds, on_terminal=on_terminal))

    async def demo(place: Place) -> None:
        dsn = place.dsn
        await _mark(place)
        await play(dsn, seconds=seconds, watch=_watch(dsn, on_terminal=on_terminal))
        async with connected(dsn) as connection:
            state, whole = await incident_state.read(connection)
        say(lines(state, Source(place.name, state.demo), headline(whole)))
        say(f"The demo's data stay in {data_dir}, for the next demo. Next: `relay serve` with your own AGENT_SDK_URL.")

    with database(settings, create=True) as place:
        asyncio.run(demo(place))


async def _mark(place: Place) -> None:
    """Bring the schema up to date, and mark all that is in it as invented.

    Raises:
        ConfigurationError: a relay that is no demo's has worked in this database.
    """
    await migrate(place.dsn, roles=True)
    async with connected(place.dsn) as connection:
        if await demo_history.may_be_real(connection):
            raise ConfigurationError(
                f"The demo needs a database of its own, and a relay that is no demo's has worked in {place.name}; "
                "set RELAY_DATA_DIR to another directory"
            )
        await demo_history.mark_as_demo(connection)
        await demo_history.forget_destinations(connection)


def _practise(settings: Settings, drill: Drill, seconds: float | None, *, on_terminal: bool) -> int:
    """Run a drill in a database that is deleted afterwards; 0 if it went as planned."""
    if seconds is None and not on_terminal:
        seconds = drill.begins_at_s + drill.lasts_s + AFTER_S
    say(f"[drill] {drill.summary}\n[drill] Your part: {drill.task}")
    with tempfile.TemporaryDirectory(prefix="hotdash-drill-", ignore_cleanup_errors=True) as folder:
        settings = settings.model_copy(update={"relay_data_dir": Path(folder)})
        with database(settings, create=True) as place:
            return asyncio.run(_drill(place, Path(folder), drill, seconds, on_terminal=on_terminal))


async def _drill(place: Place, folder: Path, drill: Drill, seconds: float | None, *, on_terminal: bool) -> int:
    dsn = place.dsn
    await _mark(place)
    if drill.history is not None:
        async with connected(dsn) as connection:
            history = drill.history
            await demo_history.plant_history(connection, deliveries=history.deliveries, silent_for=history.silent_for)
            if history.usual:
                await demo_history.plant_last_week(connection)
            if history.relay_stopped:
                await demo_history.plant_stopped_relay(connection, silent_for=history.silent_for)
        say(f"[drill] A history of {plural(history.deliveries, 'delivery')} was planted for it.")
    observer, switch = Observer(drill, dsn), DeadMansSwitch()
    settings = {"relay_probe_seconds": 2, "relay_data_dir": folder, **drill.settings}
    if drill.misses_heartbeat:
        await switch.start()
        settings["relay_heartbeat_url"] = switch.url
    await play(
        dsn,
        seconds=seconds,
        watch=_watch(dsn, on_terminal=on_terminal),
        script=drill.phases,
        a_second=drill.webhooks_a_second,
        other_settings=settings,
        beside=observer.watch,
        take_store=partial(_take_store, folder),
    )
    await switch.stop()
    await _take_store(folder, False)
    report = await debrief(drill, observer, switch)
    say(report.lines())
    return 0 if report.went_as_planned else 1


async def _take_store(folder: Path, away: bool) -> None:
    """Stop the embedded Postgres in `folder`, or start it again if it does not run."""
    await asyncio.to_thread(embedded.interrupt if away else embedded.resume, folder)


def _watch(dsn: str, *, on_terminal: bool) -> Callable[[Settings], Awaitable[None]] | None:
    return partial(_console, dsn) if on_terminal else None


async def _console(dsn: str, settings: Settings) -> None:
    """The console on this terminal, as a process of its own, until it is quit."""
    surroundings = os.environ | as_environment(settings) | {"DATABASE_URL": dsn}
    console = await asyncio.create_subprocess_exec(sys.executable, "-m", "console", env=surroundings)
    try:
        await console.wait()
    finally:
        if console.returncode is None:
            console.terminate()
            await console.wait()
