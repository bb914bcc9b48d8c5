"""Replays, as an operator asks for them: freeze, show what would happen, confirm by size, send, watch.

The deliveries are frozen when the strip opens, so that no refresh changes what is sent.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content

from console.flows.freeze import BY_KEY, frozen, which
from console.flows.requests import CarryOut, OpenEditor, ReadNow, Say
from console.widgets.question import Kind, Prompt
from relay.domain.format import clock, milliseconds, plural, span
from relay.settings import AGENT_PATH
from relay.store.filters import compile_filter, of_rows
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from console.data.operator_session import Proposal
    from console.flows.host import Host
    from relay.store.filters import Condition

_DRY_ROWS = 8


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
        """Open the editor on a dead letter's payload, then propose a replay with the edited body."""
        self._host.in_background(self._edit(row_id))

    async def _edit(self, row_id: int) -> None:
        body = await self._host.context.session.body(row_id)

        def edited(changed: bytes | None) -> None:
            if changed is not None:
                self._begin(of_rows([row_id]), edited_body=changed)

        if self._host.is_in_front:
            self._host.request(OpenEditor(body, edited))

    def _begin(
        self, condition: Condition, *, text: str = "", by_filter: bool = False, edited_body: bytes | None = None
    ) -> None:
        waiting = self._host.dialog.wait("replay", "Freezing what would be sent …", follows=Kind.COUNT)
        proposing = self._host.context.session.propose(condition, text, edited_body)
        self._host.in_background(self._propose(proposing, waiting, by_filter=by_filter))

    async def _propose(self, proposing: Awaitable[Proposal], waiting: Prompt, *, by_filter: bool) -> None:
        proposal = await frozen(self._host, proposing, waiting)
        if proposal is None:
            return
        if proposal.agent is None:
            self._host.dialog.close()
            self._host.request(Say("No relay is running, so nothing can be sent. Start one: `relay serve`", bad=True))
            return
        count = len(proposal.letters)
        typed = count > BY_KEY or (by_filter and count > 1) or proposal.edited_body is not None
        prompt = Prompt(
            title="replay",
            lines=_lines(proposal, self._host.context.operator),
            kind=Kind.COUNT if typed else Kind.YES,
            expected=str(count),
            offers_dry_run=True,
        )
        self._host.dialog.ask(prompt, lambda _: self._send(proposal), dry_run=partial(self._show_dry_run, proposal))

    def _show_dry_run(self, proposal: Proposal) -> None:
        self._host.dialog.ask(Prompt(title="dry run", lines=_dry_run(proposal), kind=Kind.NOTICE))

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
        self._when_sent()
        if watched:
            host.dialog.watch_plan(plan_id)
        else:
            host.request(Say(f"Replay #{plan_id} is queued; 6 shows its progress"))
        host.request(ReadNow())


def _lines(proposal: Proposal, operator: str) -> list[Content]:
    """Return what would be sent, where to, as whom, and at which pace."""
    letters = proposal.letters
    edited = " with an edited body" if proposal.edited_body is not None else ""
    lines = [
        Content.assemble(
            (plural(len(letters), "delivery"), "bold"),
            f"{edited} (frozen {clock(proposal.frozen_at)}) → ",
            (clean((proposal.agent or "").removesuffix(AGENT_PATH), limit=80), "bold"),
            " as ",
            (operator, "bold"),
        ),
    ]
    if len(letters) > 1:
        about = proposal.pace.seconds(len(letters))
        takes = "" if about is None else f", about {span(about)}"
        lines.append(Content(f"{proposal.pace.described(len(letters))}{takes}"))
    lines += which(letters, listed=len(letters) == 1 or (len(letters) <= BY_KEY and not proposal.filter))
    lines.append(_agent_now(proposal) + Content("  This cannot be undone."))
    return lines


def _dry_run(proposal: Proposal) -> list[Content]:
    """Return exactly what would be sent."""
    causes = Counter((letter.final_status or "–", letter.last_error or "–") for letter in proposal.letters)
    events = Counter(clean(letter.event or "–", limit=40) for letter in proposal.letters)
    return [
        Content.assemble((f"{plural(len(proposal.letters), 'delivery')} would be sent", "bold"), "; nothing was sent."),
        *(
            Content(f"  {number:>6,}  {clean(status, limit=20)}  {clean(error, limit=80)}")
            for (status, error), number in causes.most_common(_DRY_ROWS)
        ),
        Content("  events: " + ", ".join(f"{event} {number:,}" for event, number in events.most_common(5))),
    ]


def _agent_now(proposal: Proposal) -> Content:
    """Return the agent's last probe."""
    health = proposal.health
    if health is None:
        return Content.styled("Agent SDK: not probed yet.", "$text-warning")
    probed = f"{health.status or health.error} in {milliseconds(health.latency_ms)} ({span(health.age_s)} ago)."
    return Content.assemble("Agent SDK now: ", (probed, "$text-success" if health.ok else "$text-error bold"))
