"""What the operator chooses: the zone of times, keys, themes and filters from files, and what is remembered."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from console import keymap
from console.actions import ACTIONS, DEAD
from console.data.choices import remembered
from console.keymap import rebound
from console.start.config_file import Config, chosen, read_config
from console.theme import THEMES
from relay.errors import ConfigurationError
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.console.screens import Terminal, Watched
    from tests.servers import RunningRelay

    Console = Callable[..., AbstractAsyncContextManager[Watched]]


@pytest.mark.usefixtures("kathmandu")
async def test_times_are_utc_or_this_machines(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        assert re.search(r"\d\d:\d\d:\d\dZ", seen.text.splitlines()[0])
        await seen.press("L")
        await seen.shows("+05:45")
        await seen.press("2", "enter")
        await seen.shows("received", "+05:45")
        await seen.press("L")
        await seen.hides("+05:45")


def test_keys_columns_filters_and_themes_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "themes").mkdir()
    (tmp_path / "themes" / "mine.toml").write_text('extends = "hotdash-light"\nwarning = "#ff8700"\nrule = "#000000"\n')
    (tmp_path / "console.toml").write_text(
        'theme = "mine"\nlocal_time = true\nmouse = false\n'
        '[keys]\ndiagnose = ["f5", "D"]\nfilter = "&"\n'
        '[columns]\ndead = ["age", "status"]\n[filters]\noverload = "status:503 age:<1h"\n'
    )
    config = read_config(tmp_path)
    choices = chosen(tmp_path / "state" / "console.json", config)
    assert (choices.theme, choices.is_local_time, config.mouse) == ("mine", True, False)
    assert choices.columns == {DEAD: ["age", "status"]}
    assert choices.saved == {"overload": "status:503 age:<1h"}
    assert config.themes[0]["warning"] == "#ff8700"
    assert config.themes[0]["error"] == THEMES[1]["error"]
    by_slug = {action.slug: action.keys for action in rebound(config.keys)}
    assert (by_slug["diagnose"], by_slug["filter"]) == (("f5", "D"), ("ampersand",))
    choices.choose_theme("hotdash")
    choices.remember_filter("conv:7")
    again = chosen(tmp_path / "state" / "console.json", config)
    assert (again.theme, again.filters) == ("hotdash", ["conv:7"])
    (tmp_path / "state" / "console.json").write_text('{"theme": 7, "columns": [], "filters": {"a": 1}}')
    assert chosen(tmp_path / "state" / "console.json", config).theme == "mine"


def test_two_consoles_remember_what_was_chosen_in_either(tmp_path: Path) -> None:
    path = tmp_path / "console.json"
    one, other = remembered(path), remembered(path)
    one.remember_filter("conv:7")
    other.remember_filter("conv:8")
    other.choose_columns(DEAD, ["age"])
    one.choose_theme("hotdash-light")
    one.remember_filter("conv:9")
    again = remembered(path)
    assert again.filters == one.filters == ["conv:9", "conv:8", "conv:7"]
    assert (again.theme, again.columns) == ("hotdash-light", {DEAD: ["age"]})
    assert path.stat().st_mode & 0o077 == 0
    with path.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other.remember_filter("conv:10")
    assert remembered(path).filters[0] == "conv:9"
    other.choose_clock(is_local_time=True)
    again = remembered(path)
    assert (again.filters[:2], again.is_local_time) == (["conv:10", "conv:9"], True)


def test_a_theme_that_is_no_more_leaves_the_configured_one(tmp_path: Path) -> None:
    path = tmp_path / "console.json"
    remembered(path).choose_theme("gone")
    assert chosen(path, Config(theme="hotdash-contrast")).theme == "hotdash-contrast"
    assert chosen(path, Config(theme="mine", themes=({"name": "gone"},))).theme == "gone"


async def test_texts_name_the_keys_in_use(
    incident: RunningRelay, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    slugs = ("diagnose", "acknowledge", "sort", "open", "replay", "back", "cancel", "agree", "explain", "dry_run",
             "find", "filter", "follow", "check_health", "hold", "file", "severity", "faster", "canary")  # fmt: skip
    monkeypatch.setattr(keymap._Table, "actions", tuple(
        replace(action, keys=(f"f9-{action.slug}", *action.keys)) if action.slug in slugs else action
        for action in ACTIONS
    ))  # fmt: skip
    async with console((240, 50)) as seen:
        await seen.shows("f9-diagnose diagnoses, f9-acknowledge acknowledges", "f9-open opens, f9-replay replays")
        await seen.press("r")
        await seen.shows(
            "and enter", "f9-dry_run shows them", "f9-explain explains", "f9-cancel cancels", "(f9-canary)"
        )
        await seen.press("escape", "2")
        await seen.shows("f9-filter filters")
        await seen.press("r")
        await seen.shows("f9-agree does it")
        await seen.press("escape", "4", "k")
        await seen.shows("held; f9-follow follows")
        await seen.press("5")
        await seen.shows("f9-check_health runs it", "f9-hold holds and releases")
        await seen.press("x")
        await seen.shows("f9-file appends this", "f9-severity changes", "f9-back leaves")


FAULTY = (
    ('theme = "mine"', 1, "no theme 'mine'"),
    ("\nlocal_time = 1", 2, "true or false"),
    ("colour = 1", 1, "no such setting"),
    ("[keys\n", 1, "no TOML"),
    ('[keys]\n\ndiagnosis = "D"', 3, "no such action"),
    ('[keys]\ndiagnose = "ctrl+h"', 2, "not a key that every terminal passes on"),
    ('[keys]\ndiagnose = "x"', 2, "would be both diagnose and escalate"),
    ('[keys]\nclose_box = "c"', 2, "types a character"),
    ("[keys]\ndiagnose = 5", 2, "a key or a list of keys"),
    ('keys.diagnose = "ctrl+m"', 1, "not a key"),
    ('[columns]\ndead = ["size"]', 2, "known are age, "),
    ('[filters]\nx = "status:"', 2, "a value is missing"),
    ("keys = 1", 1, "must be a table"),
    ("\n[[keys]]\nopen = 1", 2, "must be a table"),
    ('\nkeys = {diagnose = "ctrl+h"}', 2, "not a key"),
    ('[keys]\nclose_box = " "', 2, "space types a character"),
)


def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path) -> None:
    for text, line, fault in FAULTY:
        (tmp_path / "console.toml").write_text(text)
        with pytest.raises(ConfigurationError, match=rf"console\.toml, line {line}: .*{fault}"):
            read_config(tmp_path)
    (tmp_path / "console.toml").unlink()
    (tmp_path / "themes").mkdir()
    for text, fault in (('warning = "orange"', "no colour"), ("sky = 1", "no such colour"), ("dark = 1", "true")):
        (tmp_path / "themes" / "x.toml").write_text(f"\n{text}")
        with pytest.raises(ConfigurationError, match=rf"x\.toml, line 2: .*{fault}"):
            read_config(tmp_path)


def test_the_table_of_keys_shows_the_keys_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "hotdash-relay"
    folder.mkdir()
    for text, code, shown in (
        ('[keys]\ndiagnose = "f5"', 0, r"F5 +diagnose +Diagnose"),
        ('[keys]\ndiagnose = "x"', 2, r"line 2: keys\.diagnose"),
    ):
        (folder / "console.toml").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "console", "--keys"], cwd=ROOT, text=True, capture_output=True, check=False,
            env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert re.search(shown, done.stdout + done.stderr)


@pytest.mark.slow
def test_keys_and_theme_of_the_files_are_those_of_the_console(
    incident: RunningRelay, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    folder = tmp_path / ".config" / "hotdash-relay"
    folder.mkdir(parents=True)
    (folder / "console.toml").write_text('[keys]\ndiagnose = "f5"\nview_log = "&"\n')
    screen = terminal((120, 36))
    screen.shows("Failure groups", "F5 diagnose")
    screen.press("&")
    screen.shows("FOLLOWING")
    screen.press("F5")
    screen.shows("PROBLEM")
    screen.press("q", "T", "?")
    screen.shows("Keys:", "F5")
    assert '"theme": "hotdash-light"' in (tmp_path / ".local/state/hotdash-relay/console.json").read_text()
