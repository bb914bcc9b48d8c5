"""Replays as an operator asks for them: freeze, show what would happen, ask by size, send, watch.

A mix-in for views that hold dead letters. What is asked for is frozen when the strip opens; no refresh moves
a row under the cursor.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.content import Content

from console.clean import clean
from console.desk import RATE, STOP_AFTER
from console.view import View
from console.widgets.question import Kind, Prompt
from console.words import clock, milliseconds, plural, span
from relay.errors import RelayError
from relay.filters import Condition, compile_filter
from relay.settings import AGENT_PATH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from console.desk import Proposal
    from relay.store.replays import Control

_LISTED = 6
_BY_KEY = 50
_DRY_ROWS = 8


class Replaying(View):
    """A view that can replay."""

    def replay_matching(self, text: str) -> None:
        """Propose a replay of all that the filter `text` matches."""
        self._consider(compile_filter(text), text=text, by_filter=True)

    def replay_rows(self, row_ids: Sequence[int]) -> None:
        """Propose a replay of certain dead letters."""
        self._consider(Condition("d.id = ANY(%(ids)s)", {"ids": list(row_ids)}))

    def replay_edited(self, row_id: int, body: bytes) -> None:
        """Propose a replay of one dead letter with another body."""
        self._consider(Condition("d.id = %(id)s", {"id": row_id}), edited_body=body)

    def work(self, doing: Awaitable[Any]) -> None:
        """Do something with the database beside the screen; what goes wrong is said."""

        async def told() -> None:
            try:
                await doing
            except RelayError as error:
                self.console.say(str(error), bad=True)

        self.run_worker(told(), exclusive=False)

    def _consider(
        self, condition: Condition, *, text: str = "", by_filter: bool = False, edited_body: bytes | None = None
    ) -> None:
        waiting = self.question.wait("replay", "Freezing what would be sent …")
        proposing = self.console.desk.propose(condition, text, edited_body)
        self.work(self._propose(proposing, waiting, by_filter=by_filter))

    async def _propose(self, proposing: Awaitable[Proposal], waiting: Prompt, *, by_filter: bool) -> None:
        """Ask for what is proposed, unless the operator has closed `waiting`: what comes then is no longer wanted."""
        try:
            proposal = await proposing
        except RelayError:
            if self.question.shows(waiting):
                self.question.close()
            raise
        if not self.question.shows(waiting):
            return
        if not proposal.letters or proposal.agent is None:
            self.question.close()
        if not proposal.letters:
            self.console.say("No dead letter matches: somebody else dealt with them", bad=True)
            return
        if proposal.agent is None:
            self.console.say("No relay is running, so nobody would send them. Start one with `relay serve`", bad=True)
            return
        count = len(proposal.letters)
        typed = count > _BY_KEY or (by_filter and count > 1) or proposal.edited_body is not None
        self.question.ask(
            Prompt(
                title="replay",
                lines=self._lines(proposal),
                kind=Kind.COUNT if typed else Kind.YES,
                expected=str(count),
                then=lambda _: self.work(self._send(proposal)),
                dry=partial(self._dry_run, proposal),
            )
        )

    def _lines(self, proposal: Proposal) -> list[Content]:
        letters = proposal.letters
        edited = " with an edited body" if proposal.edited_body is not None else ""
        pace = f"up to {RATE:g}/s, stop at {STOP_AFTER} failures in a row, about {span(proposal.seconds)}"
        canary = f"first {proposal.canary} as a canary, then " if proposal.canary else ""
        lines = [
            Content.assemble(
                (plural(len(letters), "delivery"), "bold"),
                f"{edited} (frozen {clock(proposal.frozen_at)}) → ",
                (clean((proposal.agent or "").removesuffix(AGENT_PATH), limit=80), "bold"),
                " as ",
                (self.console.operator, "bold"),
            ),
        ]
        if len(letters) > 1:
            lines.append(Content(f"{canary}{pace}"))
        if len(letters) == 1 or (len(letters) <= _BY_KEY and not proposal.filter):
            lines += [
                Content(f"  {clean(letter.delivery_id, limit=40)}  {clean(letter.event or '-', limit=40)}  "
                        f"conv {clean(letter.conversation_id or '-', limit=20)}  {letter.final_status}")
                for letter in letters[:_LISTED]
            ]  # fmt: skip
            if len(letters) > _LISTED:
                lines.append(Content(f"  … and {len(letters) - _LISTED} more"))
        lines.append(_agent_now(proposal) + Content("  Sent ones can't be unsent."))
        return lines

    def _dry_run(self, proposal: Proposal) -> None:
        """Say exactly what would be sent, and send nothing."""
        causes = Counter((letter.final_status or "–", letter.last_error or "–") for letter in proposal.letters)
        events = Counter(clean(letter.event or "–", limit=40) for letter in proposal.letters)
        lines = [
            Content.assemble(
                (f"{plural(len(proposal.letters), 'delivery')} would be sent", "bold"), "; nothing was sent."
            ),
            *(
                Content(f"  {number:>6,}  {status}  {error}")
                for (status, error), number in causes.most_common(_DRY_ROWS)
            ),
            Content("  events: " + ", ".join(f"{event} {number:,}" for event, number in events.most_common(5))),
        ]
        self.question.ask(Prompt(title="dry run", lines=lines, kind=Kind.NOTICE))

    async def _send(self, proposal: Proposal) -> None:
        plan_id = await self.console.desk.send(proposal)
        self.marks_served()
        self.question.watch_plan(plan_id, self._steer)
        self.console.read_now()

    def _steer(self, plan_id: int, control: Control) -> None:
        self.work(self.console.desk.control(plan_id, control))
        self.console.read_now()

    # Editing and discarding

    def edit(self, row_id: int) -> None:
        """Open the editor on a dead letter's payload; what comes back is proposed as a replay."""
        self.work(self._edit(row_id))

    async def _edit(self, row_id: int) -> None:
        from console.screens.editor import EditorScreen  # noqa: PLC0415 - loaded when it is first wanted

        body = await self.console.desk.body(row_id)

        def edited(changed: bytes | None) -> None:
            if changed is not None:
                self.replay_edited(row_id, changed)

        self.app.push_screen(EditorScreen(body), edited)

    def ask_discard(self, ids: list[int]) -> None:
        """Ask for the reason, then for the count if there are many."""

        def confirm(reason: str) -> None:
            if len(ids) == 1:
                self.work(self._discard_rows(ids, reason))
                return
            self.question.ask(
                Prompt(
                    title="discard",
                    lines=[Content(f"{plural(len(ids), 'dead letter')} will never be sent: {reason}")],
                    kind=Kind.COUNT,
                    expected=str(len(ids)),
                    then=lambda _: self.work(self._discard_rows(ids, reason)),
                )
            )

        self.question.ask(
            Prompt(
                title="discard",
                lines=[
                    Content.assemble(
                        ("Discard ", ""), (plural(len(ids), "dead letter"), "bold"), " as ",
                        (self.console.operator, "bold"), ". It stays on record and will not be sent. Type the reason",
                    )
                ],
                kind=Kind.TEXT,
                then=confirm,
            )
        )  # fmt: skip

    async def _discard_rows(self, ids: list[int], reason: str) -> None:
        await self.console.desk.discard(ids, reason)
        self.marks_served()
        self.console.say(f"{plural(len(ids), 'dead letter')} handed to the relay to be discarded")
        self.console.read_now()

    def marks_served(self) -> None:
        """Called once what was marked is on its way, to be replayed or discarded."""


def _agent_now(proposal: Proposal) -> Content:
    """What the agent's health was when it was last probed."""
    health = proposal.health
    if health is None:
        return Content.styled("Agent SDK: not probed yet.", "$text-warning")
    said = f"{health.status or health.error} in {milliseconds(health.latency_ms)} ({span(health.age_s)} ago)."
    return Content.assemble("Agent SDK now: ", (said, "$text-success" if health.ok else "$text-error bold"))
