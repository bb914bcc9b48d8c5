"""Replays, as an operator asks for them: freeze, show what would happen, confirm by size, send, watch.

The deliveries are frozen when the strip opens, so that no refresh changes what is sent.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from console.actions import ACTIVITY
from console.flows.freeze import frozen, is_refused_without_relay
from console.flows.requests import CarryOut, OpenEditor, ReadNow, Say
from console.keymap import view_key
from console.render.backlog import why_replays_wait
from console.render.proposal import BY_KEY, dry_run, plan_question
from console.widgets.prompt import Kind, Prompt
from relay.domain.format import plural
from relay.errors import RelayError
from relay.store.filters import compile_filter, of_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from textual.content import Content

    from console.data.operator_session import Proposal
    from console.flows.host import Host
    from console.flows.requests import Edit
    from relay.replay.requests import Pace
    from relay.store.filters import Condition

_CHATWOOT_S = 60.0
"""How long Chatwoot is asked which messages are answered by now. The plan can be sent meanwhile."""
_KEEP_UP_S = 2.0
_PACE_KEYS = {"faster", "slower", "canary", "stop_rule"}


class ReplayFlow:
    """Replays on one screen. `when_sent` is called once a plan is enqueued."""

    def __init__(self, host: Host, when_sent: Callable[[], None] = lambda: None) -> None:
        self._host = host
        self._when_sent = when_sent

    def matching(self, text: str, *, but: Collection[int] = ()) -> None:
        """Propose a replay of all that the filter `text` matches, except the rows `but`."""
        self._begin(compile_filter(text).without(but), text=text, by_filter=True)

    def rows(self, row_ids: Sequence[int]) -> None:
        """Propose a replay of certain dead letters."""
        self._begin(of_rows(row_ids))

    def edit(self, row_id: int) -> None:
        """Open the editor on a dead letter's payload, or on the edit of it that is kept; then propose a replay."""
        self._host.in_background(self._edit(row_id))

    async def _edit(self, row_id: int) -> None:
        body, drafts = await self._host.context.session.body(row_id), self._host.context.drafts

        def edited(edit: Edit | None) -> None:
            if edit is None:
                drafts.drop(row_id)
            else:
                drafts.keep(row_id, edit.text)
                if edit.is_accepted:
                    self._begin(of_rows([row_id]), edited_body=edit.text.encode())

        if self._host.is_in_front:
            self._host.request(OpenEditor(body, drafts.of(row_id), edited))

    def _begin(
        self, condition: Condition, *, text: str = "", by_filter: bool = False, edited_body: bytes | None = None
    ) -> None:
        waiting = self._host.dialog.wait("replay", "Freezing what would be sent …", follows=Kind.COUNT)
        proposing = self._host.context.session.propose(condition, text, edited_body)
        self._host.in_background(self._propose(proposing, waiting, by_filter=by_filter))

    async def _propose(self, proposing: Awaitable[Proposal], waiting: Prompt, *, by_filter: bool) -> None:
        proposal = await frozen(self._host, proposing, waiting)
        if proposal is None or is_refused_without_relay(self._host, proposal, "sent"):
            return
        _Question(self._host, proposal, by_filter=by_filter, send=self._send).ask()

    def _send(self, proposal: Proposal) -> None:
        count = plural(len(proposal.letters), "delivery")
        waiting = self._host.dialog.wait("replay", f"Handing {count} to the relay …")
        self._host.request(CarryOut(partial(self._enqueue, proposal, waiting)))

    async def _enqueue(self, proposal: Proposal, waiting: Prompt) -> None:
        """Enqueue the plan, and watch it unless the operator has turned to something else."""
        plan_id: int | None = None
        host = self._host
        try:
            plan_id = await host.context.session.send(proposal)
        finally:
            watched = host.is_up and host.dialog.shows(waiting)
            if watched and plan_id is None:
                host.dialog.close()
        if proposal.edited_body is not None:
            host.context.drafts.drop(proposal.frozen[0].id)
        self._when_sent()
        if watched:
            host.dialog.watch_plan(plan_id)
        else:
            host.request(Say(f"Replay #{plan_id} is queued; {view_key(ACTIVITY)} shows its progress"))
        host.request(ReadNow())


class _Question:
    """The plan on the strip: asked once, adjusted by its keys, sent as it is then."""

    def __init__(self, host: Host, proposal: Proposal, *, by_filter: bool, send: Callable[[Proposal], None]) -> None:
        self._host = host
        self._proposal = proposal
        self._by_filter = by_filter
        self._send = send
        self._prompt = self._fresh()

    def ask(self) -> None:
        """Ask, and find out meanwhile which of several are answered by now."""
        self._host.dialog.ask(self._prompt, lambda _: self._confirmed(), adjust=self._adjust)
        self._host.in_background(self._keep_up(), group="plan")
        if self._proposal.asks_chatwoot:
            self._host.in_background(self._find_answered(), group="answered")

    async def _keep_up(self) -> None:
        """Show how the agent and other plans are, for as long as it is asked."""
        while self._host.is_up and self._host.dialog.shows(self._prompt):
            await asyncio.sleep(_KEEP_UP_S)
            with suppress(RelayError):
                found = await self._host.context.session.refreshed(self._proposal)
                self._change(health=found.health, outcomes=found.outcomes, overlaps=found.overlaps)

    async def _find_answered(self) -> None:
        from relay.replay.answered import answered_rows  # noqa: PLC0415 - loads an HTTP client when first wanted

        settings, messages = self._host.context.settings, self._proposal.messages or {}
        try:
            found, fault = await answered_rows(settings, messages, within_s=_CHATWOOT_S), ""
        except RelayError as error:
            found, fault = set(), str(error)
        self._change(asks_chatwoot=False, answered=frozenset(found), answered_fault=fault)

    def _fresh(self) -> Prompt:
        proposal, count = self._proposal, len(self._proposal.letters)
        typed = count > BY_KEY or (self._by_filter and count != 1) or proposal.edited_body is not None
        return Prompt(
            title="replay",
            lines=self._lines,
            kind=Kind.COUNT if typed else Kind.YES,
            expected=str(count),
            adjusts=self._adjusts,
        )

    @property
    def _adjusts(self) -> frozenset[str]:
        """The actions that change or show this plan."""
        several, answered = len(self._proposal.frozen) > 1, bool(self._proposal.answered)
        return frozenset(
            {"dry_run"} | (_PACE_KEYS if several else set()) | ({"include_answered"} if answered else set())
        )

    @property
    def _lines(self) -> list[Content]:
        context = self._host.context
        waits = "" if context.snapshot is None else why_replays_wait(context.snapshot.overview.backlog)
        return plan_question(self._proposal, context.operator, context.environment, waits)

    def _confirmed(self) -> None:
        if self._proposal.letters:
            self._send(self._proposal)
        else:
            self._host.request(Say("Nothing was sent: all of these are answered in Chatwoot by now"))

    def _adjust(self, action: str) -> None:
        proposal = self._proposal
        pace, count = proposal.pace, len(proposal.letters)
        if action == "dry_run":
            self._host.dialog.show_aside(dry_run(proposal))
            return
        if action == "include_answered":
            self._change(includes_answered=not proposal.includes_answered)
            return
        changes: dict[str, Callable[[], Pace]] = {
            "faster": pace.faster,
            "slower": pace.slower,
            "canary": partial(pace.next_canary, count),
            "stop_rule": pace.next_stop,
        }
        self._change(pace=changes[action]())

    def _change(self, **changes: Any) -> None:
        """Change the proposal and show it, if it is still asked about. Another count has to be typed anew."""
        self._proposal = replace(self._proposal, **changes)
        if self._host.is_up and self._host.dialog.shows(self._prompt):
            expected = str(len(self._proposal.letters))
            self._prompt = self._host.dialog.renew(self._prompt, self._lines, expected=expected, adjusts=self._adjusts)
