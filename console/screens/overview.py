"""The overview: health at a glance, the failure groups in the middle, the end of the log below."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Static

from console.actions import DEAD, LOG, OVERVIEW
from console.flows.acknowledge import ask_acknowledge
from console.flows.replay import ReplayFlow
from console.flows.requests import GoTo, NextWindow
from console.keymap import key_of, view_key
from console.render import panels
from console.render.chart import resample
from console.render.line import Line
from console.render.log_lines import draw
from console.render.wrapping import title_of
from console.screens.view import WIDE, View, titled
from console.widgets.lines import LineList
from console.widgets.rates import RateSparkline
from console.widgets.text import Text, entitle
from relay.domain.format import span
from relay.domain.retry import retry_helps
from relay.incident.cause import REPLAYED

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.snapshot import Snapshot
    from relay.domain.stats import Figures
    from relay.incident.cause import Headline
    from relay.store.browse import Group

SORTS = ("rate", "count", "last")
_BY_HEAD = {"COUNT": "count", "/MIN": "rate", "FIRST": "last", "LAST": "last"}
_MOST_GROUP_ROWS = 16
_LEAST_TAIL_ROWS = 2
_LEAST_GROUP_ROWS = 3
_GROUP_HEADS = 2
"""The title and the heads of the columns."""
_NARROW_TOP_ROWS, _WIDE_TOP_ROWS = 10, 12
"""The rows of the figures, as `console.tcss` has them."""
_NARROW_ALERTS, _WIDE_ALERTS = 4, 5


class OverviewView(View):
    """The first screen."""

    VIEW = OVERVIEW
    AUTO_FOCUS = "#groups"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._replay = ReplayFlow(self)
        self._groups: dict[str, Group] = {}
        self._sort = 0
        self._answer_fits = True

    def compose_body(self) -> ComposeResult:
        """Return charts, probes, failure groups and the log. On narrow screens, alerts and groups come first."""
        with Vertical(id="alerts-first", classes="pane"):
            yield LineList(id="first-alert-lines", classes="calm")
        for compose in (self._groups_pane, self._top) if self._is_narrow else (self._top, self._groups_pane):
            yield from compose()
        with titled(Vertical(id="tail-pane", classes="pane"), f"Log ─ {view_key(LOG)} for all of it"):
            yield Text("", id="tail")

    def _groups_pane(self) -> ComposeResult:
        with Vertical(id="groups-pane", classes="pane"):
            yield LineList(id="groups")
            yield Text("", id="group-answer")

    def _top(self) -> ComposeResult:
        with Container(id="top"):
            with Vertical(id="success", classes="pane"):
                with Container(id="rate-row"):
                    yield Text("", id="rates")
                    yield RateSparkline(id="sparkline")
                yield Text("", id="figures")
            with Vertical(id="attempts", classes="pane"):
                yield Text("", id="histogram")
            with Vertical(id="alerts", classes="pane"):
                yield LineList(id="alert-lines", classes="calm")
            with titled(Vertical(id="health", classes="pane"), "Health"):
                yield Text("", id="health-lines")

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        state, window_name = snapshot.overview, self.context.window_name
        window = self.context.window
        figures = self._figures(snapshot)
        narrow = self._is_narrow
        self._put_in_order(narrow)
        entitle(self.query_one("#success"), f"Success, last {window_name} ─ {_key('window')} window")
        entitle(self.query_one("#attempts"), f"Deliveries by attempts, last {window_name}")
        rates, *rest = panels.success(snapshot, figures, window_name)
        if narrow:
            rest = panels.figures_in_short(snapshot, figures, window_name)
        self.query_one("#rates", Static).update(rates)
        self.query_one(RateSparkline).show(partial(resample, state.minutes, state.at, window))
        self.query_one("#figures", Static).update(Content("\n").join(rest))
        histogram = self.query_one("#histogram", Static)
        histogram.update(Content("\n").join(panels.attempts(figures, histogram.size.width or 40, rows=5)))
        self._paint_lights(snapshot)
        self._paint_groups(snapshot)
        tail = self.query_one("#tail", Static)
        room = max(1, self.query_one("#tail-pane").content_size.height)
        lines = [draw(entry, width=self.app.size.width - 3) for entry in snapshot.tail[-room:]]
        tail.update(Content("\n").join(lines or [Content.styled("no webhook yet", "$text-muted")]))

    def _paint_lights(self, snapshot: Snapshot) -> None:
        alerts, narrow = self._alert_lines, self._is_narrow
        state = snapshot.overview
        firing = len(state.firing)
        keys = [f"{_key('diagnose')} diagnoses"]
        keys += [] if self.context.read_only else [f"{_key('acknowledge')} acknowledges"]
        title = title_of(self.app.size.width, "Alerts", f"{firing} firing", keys=keys) if firing else "Alerts"
        entitle(self.query_one("#alerts-first" if narrow else "#alerts"), title)
        shown = panels.alerts(state, (alerts.size.width or 60) - 2, _NARROW_ALERTS if narrow else _WIDE_ALERTS)
        rules = [verdict.rule.name for verdict in state.firing[: len(shown)]] or [""]
        alerts.show([Line(rule, Content(" ") + content) for rule, content in zip(rules, shown, strict=True)])
        alerts.styles.height = len(shown)
        health = self.query_one("#health-lines", Static)
        lights = panels.health_in_short(state) if narrow else panels.health(state, health.size.width or 50)
        health.update(Content("\n").join(lights))

    def _paint_groups(self, snapshot: Snapshot) -> None:
        state = snapshot.overview
        orders = {
            "rate": lambda group: (group.per_minute, group.count),
            "count": lambda group: (group.count,),
            "last": lambda group: (group.last.timestamp(),),
        }
        groups = sorted(snapshot.groups, key=orders[SORTS[self._sort]], reverse=True)
        self._groups = {group.filter: group for group in groups}
        width = self.app.size.width - 2
        lines = self.query_one("#groups", LineList)
        lines.show(
            [
                Line(key, panels.group_line(group, panels.growth(snapshot, group), state.at, width))
                for key, group in self._groups.items()
            ],
            header=panels.group_header(width),
            empty=Content(f"  No open dead letters. {_last_webhook(snapshot)}"),
        )
        self._share_room(len(groups))
        keys = [f"{_key('open')} opens", f"{_key('sort')} sorts"]
        if not self.context.read_only:
            keys.insert(1, f"{_key('replay')} replays")
        by, number = f"Failure groups by {SORTS[self._sort]}", f"{state.open_dead_letters:,} open"
        entitle(self.query_one("#groups-pane"), title_of(self.app.size.width, by, number, keys=keys))
        cause = snapshot.headline.group
        if cause is not None and not lines.touched:
            lines.move_to(list(self._groups).index(cause.filter))

    def _show_answer(self) -> None:
        """Show how the agent answered the newest of the group under the cursor, if it said anything."""
        answer, line = panels.group_answer(self.group, self.app.size.width - 2), self.query_one("#group-answer", Text)
        line.display = bool(answer) and self._answer_fits
        line.update(answer)

    def on_line_list_moved(self) -> None:
        """Show the answer to the group under the cursor."""
        self._show_answer()

    @property
    def _is_narrow(self) -> bool:
        return self.app.size.width < WIDE

    @property
    def _alert_lines(self) -> LineList:
        """The visible list of alerts."""
        return self.query_one("#first-alert-lines" if self._is_narrow else "#alert-lines", LineList)

    def _put_in_order(self, narrow: bool) -> None:
        body, groups, top = self.query_one("#body"), self.query_one("#groups-pane"), self.query_one("#top")
        groups_come_first = body.children.index(groups) < body.children.index(top)
        if narrow and not groups_come_first:
            body.move_child(groups, before=top)
        elif groups_come_first and not narrow:
            body.move_child(groups, after=top)

    def _share_room(self, groups: int) -> None:
        """Give the groups the rows that they need, and the log the rest if that is at least `_LEAST_TAIL_ROWS`.

        Where the figures would leave no room for the groups, the figures are not shown. The agent's answer to a group
        is not shown where it would take the figures' room.
        """
        top, alerts = self.query_one("#top"), self.query_one("#alerts-first")
        height = self.query_one("#body").size.height
        taken = sum(pane.outer_size.height for pane in (alerts,) if pane.display)
        figures = _NARROW_TOP_ROWS if self._is_narrow else _WIDE_TOP_ROWS
        spare = height - taken - figures - min(max(1, groups), _LEAST_GROUP_ROWS) - _GROUP_HEADS
        self.set_class(spare < 0, "-no-top")
        self._answer_fits = spare != 0
        self._show_answer()
        heads = _GROUP_HEADS + self.query_one("#group-answer").display
        room = height - taken - (0 if self.has_class("-no-top") or not top.display else top.outer_size.height)
        wanted = min(max(1, groups) + heads, room, _MOST_GROUP_ROWS)
        shared = room - wanted >= _LEAST_TAIL_ROWS and not self.has_class("zoomed")
        self.set_class(not shared, "-no-tail")
        self.query_one("#groups-pane").styles.height = wanted if shared else "1fr"

    def _figures(self, snapshot: Snapshot) -> Figures:
        state = snapshot.overview
        return {
            "15 min": state.last_15min, "1 h": state.last_1h, "6 h": state.last_6h, "24 h": state.last_24h
        }[self.context.window_name]  # fmt: skip

    def hint(self, cause: Headline) -> str:
        """Return what opens or replays the group that the headline is about, while the cursor is on it."""
        group, meant = self.group, cause.group
        if group is None or meant is None or self.lines.id != "groups" or group.filter != meant.filter:
            return super().hint(cause)
        if cause.kind not in REPLAYED or self.context.read_only or not retry_helps(group.final_status):
            return f"  {_key('open')} opens them"
        return f"  {_key('replay')} replays {'them' if len(self._groups) == 1 else f'{group.count:,}'}"

    @property
    def group(self) -> Group | None:
        """The group under the cursor."""
        key = self.query_one("#groups", LineList).key
        return self._groups.get(key) if isinstance(key, str) else None

    @property
    def lines(self) -> LineList:
        """The groups, unless the alerts have the focus."""
        alerts = self._alert_lines
        return alerts if self.focused is alerts else self.query_one("#groups", LineList)

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Diagnose what an alert is about, or open the group as a filtered list of dead letters."""
        if event.lines is self._alert_lines:
            self.action_diagnose()
            return
        if self.group is not None:
            self.request(GoTo(DEAD, filter=self.group.filter))

    def on_line_list_header_clicked(self, event: LineList.HeaderClicked) -> None:
        """Sort the groups by the column."""
        if event.head in _BY_HEAD:
            self._sort_by(_BY_HEAD[event.head])

    def action_acknowledge(self) -> None:
        """Acknowledge the alert under the cursor if the alerts have the focus, else the worst one."""
        alerts = self._alert_lines
        ask_acknowledge(self, str(alerts.key) if self.focused is alerts else None)

    def action_window(self) -> None:
        """Switch to the next window."""
        self.request(NextWindow())

    def action_sort(self) -> None:
        """Sort the groups by the next column."""
        self._sort_by(SORTS[(self._sort + 1) % len(SORTS)])

    def _sort_by(self, name: str) -> None:
        self._sort = SORTS.index(name)
        if self.context.snapshot is not None:
            self._paint_groups(self.context.snapshot)

    def action_zoom(self) -> None:
        """Give the groups all of the room, or take it back."""
        self.toggle_class("zoomed")
        self.call_after_refresh(self.show_again)

    def action_replay(self) -> None:
        """Replay the group under the cursor."""
        if self.group is None:
            self.say("There is no dead letter to replay")
        else:
            self._replay.matching(self.group.filter)


def _key(action: str) -> str:
    return key_of(OVERVIEW, action)


def _last_webhook(snapshot: Snapshot) -> str:
    age_s = snapshot.overview.last_webhook_age_s
    return "No webhook received yet." if age_s is None else f"Last webhook received {span(age_s)} ago."
