"""The lists of deliveries: their order, their columns, what leaves them as a file, and which filters they take."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from console.data import snapshot
from console.data.readings import WINDOW
from console.data.row_window import RowWindow
from console.render.completion import completed, expanded, offers
from console.render.export import exported as exported_text
from console.widgets.search_box import SearchBox
from relay.domain.delivery import State
from relay.store.browse import Group
from relay.store.filters import compile_filter
from relay.store.sessions import open_session
from relay.store.sorted_rows import Order, sorted_page
from relay.text import is_safe
from tests.console.conftest import ALL, LIMITED, OVERLOADED, open_dead_letters, webhook
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import pytest

    from tests.console.screens import Terminal, Watched
    from tests.servers import Rows, RunningRelay

    Console = Callable[..., AbstractAsyncContextManager[Watched]]


async def test_the_rows_are_sorted_by_any_column(incident: RunningRelay, console: Console, rows: Rows) -> None:
    ids = {
        Order.OLDEST: "finished_at, id", Order.CONVERSATION: "conversation_id::int, id DESC",
        Order.STATUS: "final_status, id DESC", Order.NEWEST: "finished_at DESC, id DESC",
    }  # fmt: skip
    async with console() as seen:
        await open_dead_letters(seen)
        for order in (*list(Order)[1:], Order.NEWEST):
            await seen.press("o")
            await seen.shows(f"all {ALL}, {order}")
            if order in ids:
                wanted = rows(
                    f"SELECT left(delivery_id, 8) FROM relay.deliveries WHERE state = 'dead' ORDER BY {ids[order]}"
                )
                await seen.shows(wanted[0])
                shown = re.findall(r"^\W*(\d{8})\b.*message_created", seen.text, flags=re.MULTILINE)
                assert shown == wanted[: len(shown)], order


async def test_every_order_has_every_row_once(incident: RunningRelay, dsn: str) -> None:
    async with await open_session(dsn, read_only=True, application="tests", timeout_ms=60_000) as connection:
        for states in ((State.DEAD,), None):
            for order in list(Order)[1:]:
                found: list[int] = []
                for skipped in range(0, 60, 20):
                    page, _ = await sorted_page(
                        connection, compile_filter(""), states=states, order=order, skipped=skipped, limit=20
                    )
                    found += [row.id for row in page]
                assert len(found) == len(set(found)) == (ALL if states else ALL + 1), order


async def test_a_sorted_list_whose_later_rows_have_gone_begins_again(
    incident: RunningRelay, dsn: str, rows: Rows
) -> None:
    rows(_MANY, (WINDOW,))
    window = RowWindow((State.DEAD,))
    window.sort_by(Order.OLDEST)
    async with await open_session(dsn, read_only=True, application="tests", timeout_ms=60_000) as connection:

        async def read() -> int:
            reading = window.reading(frozenset(), {})
            assert window.take(await snapshot.read(connection, reading, minutes_of=timedelta(hours=1)))
            return len(window.rows)

        assert (await read(), window.turn(up=False)) == (WINDOW, True)
        assert await read() == WINDOW // 2 + ALL
        rows("DELETE FROM relay.deliveries WHERE event = 'late'")
        while await read() == 0:
            assert not window.is_settled
        assert (len(window.rows), window.is_settled) == (ALL, True)


_MANY = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, customer, finished_at, final_status,
                                  last_error, headers, body)
    SELECT 'late-' || n, 'dead', gen_random_uuid(), false, 'late', true, now(), '503', 'Agent SDK answered 503', '[]',
           '{}'
      FROM generate_series(1, %s) AS n
"""


async def test_columns_are_chosen_and_stay_chosen(incident: RunningRelay, console: Console) -> None:
    async with console((160, 36)) as seen:
        await open_dead_letters(seen)
        await seen.press("C")
        await seen.shows("1  ■ age", "received")
        await seen.press("2")
        await seen.shows("2    event")
        await seen.press("6", "escape")
        header = next(line for line in seen.text.splitlines() if " ID " in line)
        assert "RECEIVED" in header
        assert "EVENT" not in header
        await seen.press("3")
        await seen.shows("STATE", "EVENT")


async def test_the_breakdown_counts_by_event_and_by_inbox_and_opens_what_it_counts(
    incident: RunningRelay, console: Console
) -> None:
    for number, inbox in ((600, 3), (601, 3), (602, 4)):
        await incident.post(webhook(number) | {"inbox": {"id": inbox, "name": f"Shop {inbox}"}})
    await incident.post({"event": "conversation_updated", "id": 9, "inbox_id": 4})
    ignored = webhook(603) | {"inbox": {"id": 4}, "message_type": "outgoing", "private": True}
    assert (await incident.post(ignored)).json()["ignored"]
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("b")
        await seen.shows(f"By event, {ALL + 6} deliveries of the last 1 h", "message_created", "conversation_updated")
        shown = await seen.shows("3 Shop 3", "4 Shop 4")
        (shop,) = (line.split() for line in shown.splitlines() if "4 Shop 4" in line)
        assert shop[3:9] == ["3", "2", "0", "0", "0", "1"]
        await seen.press("tab", "j", "enter")
        await seen.shows("FILTERED inbox:", "3 match")


def only(folder: Path, pattern: str) -> Path:
    """The one file of the folder that matches."""
    (found,) = folder.glob(pattern)
    return found


async def test_what_is_listed_is_exported_whole(
    incident: RunningRelay, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with console() as seen:
        await open_dead_letters(seen)
        await seen.press("E")
        await seen.shows("1  JSON", "2  CSV")
        await seen.press("1")
        await seen.shows(f"Exported {ALL} rows")
        exported = only(tmp_path, "dead-letters-*.json")
        assert exported.stat().st_mode & 0o777 == 0o600
        found = json.loads(exported.read_text())
        assert len({one["deliveryId"] for one in found}) == ALL
        await seen.press("3", "E", "2")
        await seen.shows(f"Exported {ALL + 1} rows")
        exported = only(tmp_path, "deliveries-*.csv")
        assert len(exported.read_text().splitlines()) == ALL + 2
        await seen.press("4")
        await seen.shows("FOLLOWING")
        await seen.press("E", "1")
        await seen.shows("log-lines-")
        exported = only(tmp_path, "log-lines-*.json")
        assert any("retrying" in line["message"] for line in json.loads(exported.read_text()))


def test_no_text_is_a_formula_or_a_control_in_an_export() -> None:
    for text in ("=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "\x1b]52;c;x\x07", "a\u202eb", 'x"\n=1'):
        csv_text = exported_text("CSV", ("field",), [(text,)])
        assert is_safe(csv_text.replace("\n", ""))
        (cell,) = list(csv.reader(io.StringIO(csv_text)))[1]
        assert cell[:1] not in set("=+-@\t\r"), text
        assert json.loads(exported_text("JSON", ("field",), [(text,)])) == [{"field": text}]
        assert exported_text("JSON", ("field",), [(text,)]).isascii()


async def test_the_text_of_a_screen_is_whole(incident: RunningRelay, console: Console) -> None:
    async with console((80, 24)) as seen:
        await open_dead_letters(seen)
        lines = (await seen.app.view.whole_text()).splitlines()
        assert sum("message_created" in line for line in lines) >= ALL
        await seen.press("enter")
        await seen.shows("Attempts")
        text = await seen.app.view.whole_text()
        assert "── Headers ──" in text
        assert '"content": "message' in text


async def test_any_screen_goes_to_the_pager(
    incident: RunningRelay, terminal: Callable[..., Terminal], rows: Rows
) -> None:
    # What one pager leaves must not be taken for what the next one shows.
    pager = "sh -c 'clear; head -c 300; echo; echo PAGED; read x < /dev/tty; clear'"
    screen = await asyncio.to_thread(terminal, (80, 24), PAGER=pager)
    await asyncio.to_thread(screen.shows, "Failure groups")
    for keys in (("2",), ("D",)):
        await asyncio.to_thread(screen.press, *keys)
        await asyncio.to_thread(screen.shows, "CAUSE" if keys == ("2",) else "PROBLEM")
        await asyncio.to_thread(screen.press, "P")
        await asyncio.to_thread(screen.shows, "PAGED")
        if keys == ("2",):
            (now,) = rows("SELECT now()")
            await until(lambda now=now: rows(READ_SINCE, (now,)), what="the console reads beside the pager")
        await leave_pager(screen)


READ_SINCE = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'hotdash console' AND query_start > %s"


async def leave_pager(screen: Terminal) -> None:
    """Press enter. A pager that has ended within a second counts as one that ended at once."""
    await asyncio.to_thread(screen.press, "Enter")
    await until(lambda: "LIVE" in screen.text or GOES_BACK in screen.text)
    if GOES_BACK in screen.text:
        await asyncio.to_thread(screen.press, "Enter")
    await asyncio.to_thread(screen.shows, "LIVE")


GOES_BACK = "any key goes back to the console"


async def test_what_a_pager_leaves_that_ends_at_once_stays_until_a_key(
    incident: RunningRelay, terminal: Callable[..., Terminal]
) -> None:
    screen = await asyncio.to_thread(terminal, (80, 24), PAGER="cat")
    await asyncio.to_thread(screen.shows, "Failure groups")
    await asyncio.to_thread(screen.press, "P")
    shown = await asyncio.to_thread(screen.shows, GOES_BACK)
    assert "── Failure groups" in shown or "LIVE" not in shown
    await asyncio.to_thread(screen.press, "j")
    await asyncio.to_thread(screen.shows, "LIVE", "Failure groups")


async def test_ctrl_c_in_the_pager_ends_the_pager_alone(
    incident: RunningRelay, terminal: Callable[..., Terminal]
) -> None:
    pager = """sh -c 'trap "echo INTERRUPTED; read x < /dev/tty; exit" INT; echo PAGED; while :; do sleep 1; done'"""
    screen = await asyncio.to_thread(terminal, (80, 24), PAGER=pager)
    await asyncio.to_thread(screen.shows, "Failure groups")
    for key, text in (("P", "PAGED"), ("C-c", "INTERRUPTED")):
        await asyncio.to_thread(screen.press, key)
        await asyncio.to_thread(screen.shows, text)
    await leave_pager(screen)
    await asyncio.to_thread(screen.press, "2")
    await asyncio.to_thread(screen.shows, "CAUSE")


async def test_a_pager_with_an_open_quotation_is_one_sentence(
    incident: RunningRelay, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", "less 'x")
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("P")
        await seen.shows("PAGER is no command: No closing quotation. Correct it")


async def test_without_a_working_directory_an_export_says_so(
    incident: RunningRelay, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    async with console() as seen:
        await open_dead_letters(seen)
        monkeypatch.chdir(gone)
        gone.rmdir()
        await seen.press("E")
        await seen.shows("The working directory does not exist any more")


async def test_what_was_typed_comes_back_after_the_history(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        seen.app.context.choices.filters = []
        await open_dead_letters(seen)
        await seen.press("slash")
        await seen.type("sta")
        box = seen.app.screen.query_one(SearchBox)
        await seen.press("up", "down")
        assert box.value == "sta"
        seen.app.context.choices.filters = ["status:429", "status:422"]
        await seen.press("up", "up", "down")
        assert box.value == "status:429"
        await seen.press("down")
        assert box.value == "sta"


def test_a_value_with_blanks_is_one_word_of_a_filter() -> None:
    now = datetime.now(UTC)
    group = Group("503", "Agent SDK answered 503", 1, 1, now, now, ("message_created",), "")
    found = offers('conv:7 error:"Agent SDK', [group], {})
    assert found == [('error:"Agent SDK answered 503"', 1)]
    assert completed('conv:7 error:"Agent SDK', found, {}) == 'conv:7 error:"Agent SDK answered 503"'
    mistyped = Group("422", "Agent SDK refused", 3, 1, now, now, ("message_updated", "x y"), "", event_letters=(2, 1))
    assert offers("error:agent", [group], {}) == found
    assert offers("event:message_", [group, mistyped], {}) == [
        ("event:message_updated", 2), ("event:message_created", None),
    ]  # fmt: skip
    assert offers("event:x", [mistyped], {}) == [('event:"x y"', 1)]
    assert offers("!test:", [], {}) == [("!test:yes", None), ("!test:no", None)]
    assert expanded('"mail @ops now" @ops', {"ops": "status:503"}) == '"mail @ops now" status:503'


async def test_a_filter_is_completed_recalled_and_doubted(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        seen.app.context.choices.saved = {"limits": "status:429"}
        await open_dead_letters(seen)
        await seen.press("slash")
        await seen.type("sta")
        await seen.press("tab")
        await seen.shows("status:", "state:")
        await seen.type("us:")
        await seen.press("tab")
        await seen.shows(f"status:503 {OVERLOADED}", f"status:429 {LIMITED}")
        await seen.type("50")
        await seen.press("tab", "enter")
        await seen.shows("FILTERED status:503", f"{OVERLOADED} match")
        await seen.press("slash")
        await seen.type("@limits")
        await seen.press("enter")
        await seen.shows("FILTERED status:429", f"{LIMITED} match")
        await seen.press("slash", "up", "up", "enter")
        await seen.shows("FILTERED status:503")
        await seen.press("slash")
        await seen.type("status:abc")
        await seen.press("enter")
        await seen.shows("abc is no status")
