"""One delivery: its state, attempts, payload, headers and earlier replays; with a search in all of it."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from console.actions import DETAIL
from console.data.readings import DetailReading
from console.flows.copy_curl import copy_curl
from console.flows.discard import DiscardFlow
from console.flows.replay import ReplayFlow
from console.flows.requests import Copy, OpenConversation, ReadNow
from console.keymap import key_of
from console.render import details, search
from console.render.curl import MOST_BYTES
from console.render.formatting import cut
from console.render.trouble import plainly
from console.screens.view import View, titled
from console.widgets.search_box import SearchBox
from console.widgets.text import Text
from relay.domain.delivery import State
from relay.errors import RelayError
from relay.settings import without_credentials
from relay.store.delivery_detail import Detail
from relay.text import clean, clean_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.snapshot import Snapshot
    from console.render.search import Place


_TITLES = {
    "facts": "Delivery",
    "timeline": "Attempts",
    "payload": "Payload",
    "headers": "Headers",
    "history": "Replays",
}
_ZOOMED = "payload"
_INDENTED = 20
"""By so many times indented JSON is longer at most, for any payload that is worth reading."""


class DetailView(View):
    """A screen on top of the list it was opened from."""

    VIEW = DETAIL
    ON_TOP = True
    AUTO_FOCUS = SCROLL = "#detail"

    def __init__(self, context: Context, row_id: int, neighbours: Sequence[int] = (), *, answers: bool = False) -> None:
        super().__init__(context)
        self._neighbours = neighbours
        self._whole_answers = answers
        self._replay = ReplayFlow(self)
        self._discard = DiscardFlow(self)
        self._row_id = row_id
        self._detail: Detail | None = None
        self._gone = False
        self._kept: list[Content] = []
        self._texts: dict[str, Content] = {}
        self._find = ""
        self._found: list[tuple[str, Place]] = []
        self._at = 0

    def compose_body(self) -> ComposeResult:
        """Return the search box, its state line, and one scroll with all sections."""
        matches = f"{key_of(DETAIL, 'find_next')} and {key_of(DETAIL, 'find_previous')}"
        yield SearchBox(
            id="filter", placeholder=f"find in the delivery; {matches} go from match to match", returns_to="#detail"
        )
        yield Text("", id="filter-line")
        with VerticalScroll(id="detail"):
            for section, title in _TITLES.items():
                yield titled(Text("", id=f"detail-{section}", classes="pane"), title)

    @property
    def is_settled(self) -> bool:
        """True once the delivery is there, or is known to be gone."""
        return self._detail is not None or self._gone

    def reading(self) -> DetailReading:
        """Return the reading of this delivery."""
        return DetailReading(self._row_id)

    def paint(self, snapshot: Snapshot) -> None:
        """Show the delivery. Sections that cannot have changed are not painted again."""
        if snapshot.reading == self.reading():
            assert snapshot.view is None or isinstance(snapshot.view, Detail)
            self._show_detail(snapshot.view)

    def forget(self) -> None:
        """Forget the delivery: equal times of two zones are equal, so it would not be painted again."""
        self._detail = None

    def on_mount(self) -> None:
        """Read the delivery at once, beside the poller: from far away, a whole snapshot takes many times as long."""
        self._read_at_once()

    def _read_at_once(self) -> None:
        self.in_background(self._read(self._row_id), group="detail")

    async def _read(self, row_id: int) -> None:
        try:
            detail = await self.context.session.detail(row_id)
        except RelayError as error:
            if self.is_up and self._detail is None:
                said = f"{plainly(error)}. The delivery is shown once it can be read."
                self._update("facts", [Content.styled(said, "$text-warning")])
            return
        if self.is_up and row_id == self._row_id and self._detail is None:
            self._show_detail(detail)

    def _show_detail(self, detail: Detail | None) -> None:
        self._gone = detail is None
        if detail is None:
            self.query_one("#detail-facts", Static).update("This delivery is gone: its retention is over.")
            return
        kept = [details.kept_edit()] if self._row_id in self.context.drafts else []
        if detail == self._detail and kept == self._kept:
            return
        fresh = self._detail is None
        at = self._current
        self._detail, self._kept = detail, kept
        width = self.app.size.width - 4
        self._update("facts", [*kept, *details.facts(detail, self._link(detail), width)])
        self._update("timeline", details.timeline(detail, width, whole_answers=self._whole_answers))
        if fresh:
            self._update("payload", [details.payload(detail)])
            self._update("headers", details.header_lines(detail))
        self._update("history", details.history(detail))
        if self._find:
            self._search()
            self._at = self._found.index(at) if at in self._found else min(self._at, max(0, len(self._found) - 1))
            self._paint_found(*_TITLES)

    def _update(self, section: str, lines: list[Content]) -> None:
        self._texts[section] = Content("\n").join(lines)
        self.query_one(f"#detail-{section}", Static).update(self._texts[section])

    # Search

    def action_find(self) -> None:
        """Open the search box."""
        self.query_one(SearchBox).open()

    def on_search_box_submitted(self, event: SearchBox.Submitted) -> None:
        """Search for the typed text, from the first visible row on."""
        self._find = event.text.strip()
        self.set_class(bool(self._find), "searching")
        self._search()
        top = self.query_one(self.SCROLL, VerticalScroll).scroll_offset.y
        self._at = bisect_left(self._found, top, key=self._row_of) % max(1, len(self._found))
        self._paint_found(*_TITLES)
        self._bring_into_sight()

    def _search(self) -> None:
        """Find the matches in every visible section, in their order."""
        shown = [section for section in _TITLES if section == _ZOOMED or not self.has_class("zoomed")]
        self._found = [
            (section, place)
            for section in shown
            if section in self._texts
            for place in search.places(self._texts[section].plain, self._find)
        ]

    @property
    def _current(self) -> tuple[str, Place] | None:
        """The current match."""
        return self._found[self._at] if self._at < len(self._found) else None

    def _paint_found(self, *sections: str) -> None:
        """Show what was found in these sections, and which of it is the current one."""
        current = self._current
        for section in sections:
            if section in self._texts:
                found = [place for where, place in self._found if where == section]
                here = current[1] if current is not None and current[0] == section else None
                text = search.highlighted(self._texts[section], found, here)
                self.query_one(f"#detail-{section}", Static).update(text)
        if current is None:
            state = Content.styled("no match in what is shown", "$text-warning")
        else:
            steps = f"  {key_of(DETAIL, 'find_next')} next, {key_of(DETAIL, 'find_previous')} previous"
            state = Content.assemble(f"match {self._at + 1:,} of {len(self._found):,}", (steps, "dim"))
        line = Content.assemble(
            "search ",
            (cut(self._find, 60), "reverse"),
            "   ",
            state,
            (f"  {key_of(DETAIL, 'back')} ends", "dim"),
        )
        self.query_one("#filter-line", Static).update(line)

    def _go(self, step: int) -> None:
        """Go to another match; the first one follows the last."""
        if not self._find:
            self.action_find()
        elif self._current is not None:
            before = self._current[0]
            self._at = (self._at + step) % len(self._found)
            self._paint_found(*{before, self._found[self._at][0]})
            self._bring_into_sight()

    def _row_of(self, found: tuple[str, Place]) -> int:
        """Return the row of the scroll that a match is in."""
        section, place = found
        pane = self.query_one(f"#detail-{section}", Static)
        row = search.row_of(self._texts[section].plain, place, pane.scrollable_content_region.width)
        return pane.virtual_region.y + pane.gutter.top + row

    def _bring_into_sight(self) -> None:
        """Scroll to the current match, unless it is in sight."""
        if self._current is None:
            return
        scroll, row = self.query_one(self.SCROLL, VerticalScroll), self._row_of(self._current)
        height = max(1, scroll.size.height)
        if not scroll.scroll_offset.y <= row < scroll.scroll_offset.y + height:
            scroll.scroll_to(y=max(0, row - height // 3), animate=False)

    def action_find_next(self) -> None:
        """Go to the next match."""
        self._go(1)

    def action_find_previous(self) -> None:
        """Go to the previous match."""
        self._go(-1)

    def action_back(self) -> None:
        """Close the search, then clear it, then go back."""
        box = self.query_one(SearchBox)
        if box.is_open:
            box.close()
        elif self._find:
            self._find = box.value = ""
            self._found = []
            self._paint_found(*_TITLES)
            self.remove_class("searching")
        else:
            super().action_back()

    def action_zoom(self) -> None:
        """Show the payload alone, or all of it again."""
        self.toggle_class("zoomed")
        self.query_one(self.SCROLL, VerticalScroll).scroll_home(animate=False)
        if self._find:
            self._search()
            self._at = 0
            self._paint_found(*_TITLES)
            self.call_after_refresh(self._bring_into_sight)

    def action_next_delivery(self) -> None:
        """Go to the next delivery of the list that this one was opened from."""
        self._step(1)

    def action_previous_delivery(self) -> None:
        """Go to the previous delivery of the list."""
        self._step(-1)

    def _step(self, step: int) -> None:
        place = self._neighbours.index(self._row_id) + step if self._row_id in self._neighbours else -1
        if not 0 <= place < len(self._neighbours):
            self.say("No further delivery in the list that this one was opened from")
            return
        self._row_id, self._detail, self._gone = self._neighbours[place], None, False
        self.query_one(self.SCROLL, VerticalScroll).scroll_home(animate=False)
        self._update("facts", [Content.styled("reading …", "$text-muted")])
        self._read_at_once()
        self.request(ReadNow())

    async def whole_text(self) -> str:
        """Return the delivery with its whole payload, and the agent's answers in full."""
        if self._detail is None:
            self._show_detail(await self.context.session.detail(self._row_id))
        if self._detail is None:
            return await super().whole_text()
        width = self.app.size.width - 4
        answers = Content("\n").join(details.timeline(self._detail, width, whole_answers=True)).plain
        body = await self.context.session.body(self._row_id)
        payload = clean_json(body, limit=_INDENTED * len(body) + 1)
        texts = {name: text.plain for name, text in self._texts.items()} | {"timeline": answers, "payload": payload}
        return "\n\n".join(f"── {_TITLES[name]} ──\n{texts[name]}" for name in _TITLES if name in texts) + "\n"

    def action_conversation(self) -> None:
        """Open the conversation."""
        if self._detail is None or self._detail.row.conversation_id is None:
            self.say("This delivery names no conversation")
        else:
            self.request(OpenConversation(clean(self._detail.row.conversation_id, limit=200)))

    def action_answers(self) -> None:
        """Show the agent's answers in full, or their beginning."""
        self._whole_answers = not self._whole_answers
        if self._detail is not None:
            width = self.app.size.width - 4
            self._update("timeline", details.timeline(self._detail, width, whole_answers=self._whole_answers))

    def _link(self, detail: Detail) -> str | None:
        settings, conversation = self.context.settings, detail.row.conversation_id
        if settings.chatwoot_base_url is None or not conversation or not conversation.isdigit():
            return None
        account = settings.chatwoot_account_id or 1
        return f"{without_credentials(settings.chatwoot_base_url)}/app/accounts/{account}/conversations/{conversation}"

    def _is_dead(self) -> bool:
        if self._detail is None:
            self.say(
                "The delivery is no longer stored" if self._gone else "The delivery has not been read yet", bad=True
            )
            return False
        is_dead = self._detail.row.state is State.DEAD
        if not is_dead:
            self.say("Only a dead letter can be replayed, edited or discarded", bad=True)
        return is_dead

    def action_replay(self) -> None:
        """Replay this one."""
        if self._is_dead():
            self._replay.rows([self._row_id])

    def action_edit(self) -> None:
        """Edit the payload, then replay it."""
        if self._is_dead():
            self._replay.edit(self._row_id)

    def action_discard(self) -> None:
        """Discard this one, with a reason."""
        if self._is_dead():
            self._discard.rows([self._row_id])

    def action_copy(self) -> None:
        """Copy the payload."""
        self.in_background(self._copy())

    async def _copy(self) -> None:
        body = await self.context.session.body(self._row_id)
        if len(body) > MOST_BYTES:
            self.say(f"The payload is {len(body):,} bytes: too long for the clipboard of a terminal", bad=True)
            return
        self.request(Copy(body.decode("utf-8", "replace"), f"Copied the payload, {len(body):,} bytes"))

    def action_copy_curl(self) -> None:
        """Copy a curl command."""
        self.in_background(copy_curl(self, self._row_id))
