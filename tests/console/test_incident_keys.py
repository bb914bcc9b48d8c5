"""`D` and `x` on the console: the diagnosis with its way to a replay, and the escalation, read before it is filed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.console.conftest import ALL, LIMITED, OVERLOADED, REFUSED, later
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Rows, RunningRelay

    Console = Callable[..., object]

SIZES = pytest.mark.parametrize(
    "size", [(80, 24), pytest.param((120, 36), marks=pytest.mark.slow)], ids=["80x24", "120x36"]
)


def filed() -> str:
    """The report's text, empty if there is none."""
    report = Path("reports/manager/ESCALATION.md")
    return report.read_text(encoding="utf-8") if report.exists() else ""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@SIZES
async def test_the_diagnosis_names_the_cause_first(
    incident: RunningRelay, console: Console, rows: Rows, size: tuple[int, int]
) -> None:
    async with console(size=size, relay=incident) as seen:
        await seen.shows("Failure groups")
        await seen.press("D")
        shown = await seen.shows("Agent SDK answers again since", "High Retry Rate ─ PROBLEM")
        assert shown.index("Agent SDK answers again since") < shown.index("High Retry Rate")
        await seen.press("G")
        await seen.shows("Signature Verification Failing ─ ok")
        await seen.press("escape")
        await seen.shows("Failure groups")
    assert rows("SELECT operator FROM relay.operator_actions WHERE action = 'diagnose'") == ["maria"]


async def test_enter_on_an_alert_diagnoses(incident: RunningRelay, console: Console) -> None:
    async with console(relay=incident) as seen:
        await seen.shows("Failure groups", "firing")
        await seen.press("tab")
        await until(lambda: seen.app.screen.focused.id == "alert-lines")
        await seen.press("j", "enter")
        await seen.shows("High Retry Rate ─ PROBLEM")
        await seen.press("escape", "tab", "enter")
        await seen.shows(f"{OVERLOADED} match")


async def test_it_leads_to_a_replay_of_what_can_go_through_now(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    later(rows, 300)
    async with console(relay=incident) as seen:
        await seen.shows("Failure groups")
        await seen.press("2", "D")
        await seen.shows("r replays the dead letters whose cause is gone")
        await seen.press("r")
        await seen.shows("REPLAY", f"{OVERLOADED} deliveries")
        await seen.type(str(OVERLOADED))
        await seen.press("enter")
        await seen.shows(f"all {OVERLOADED} delivered")
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == LIMITED + REFUSED


@SIZES
async def test_an_escalation_is_read_first_and_filed_once(
    incident: RunningRelay, console: Console, rows: Rows, size: tuple[int, int]
) -> None:
    async with console(size=size, relay=incident) as seen:
        await seen.shows("Failure groups")
        await seen.press("x")
        await seen.shows("y appends this to", "P1", "Engineering Manager")
        assert filed() == ""
        await seen.press("s")
        await seen.shows("P2  notify")
        await seen.press("y")
        await seen.shows("Appended to")
        await seen.press("y", "escape")
        await seen.shows("Failure groups")
    recorded = "SELECT operator, details ->> 'level' FROM relay.operator_actions WHERE action = 'escalate'"
    await until(lambda: rows(recorded) == [("maria", "p2")])
    text = filed()
    assert text.count("\n## ") == 1
    assert f"{ALL} open" in text
    assert "message 3" not in text


async def test_leaving_an_escalation_writes_nothing(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console(relay=incident) as seen:
        await seen.shows("Failure groups")
        await seen.press("x")
        await seen.shows("y appends this to")
        await seen.press("q")
        await seen.shows("Failure groups")
    assert filed() == ""
    assert rows("SELECT action FROM relay.operator_actions") == []


async def test_with_read_only_it_diagnoses_and_files_nothing(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console(relay=incident, read_only=True) as seen:
        await seen.shows("Failure groups")
        await seen.press("x")
        await seen.shows("The console is read-only")
        await seen.press("D")
        await seen.shows("40 of 47 failures in the last hour")
    assert rows("SELECT action FROM relay.operator_actions") == []
